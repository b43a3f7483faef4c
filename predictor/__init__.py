"""A KServe custom predictor around one generative model."""
