"""The protocols that a model is served over: KServe's V1 and V2, and OpenAI's routes."""
