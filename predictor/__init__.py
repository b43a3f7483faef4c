"""The chef: a KServe custom predictor around one generative model."""
