"""The predictor: a KServe server around one generative model."""
