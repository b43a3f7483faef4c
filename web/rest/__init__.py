"""The REST backend: a generation over a predictor's OpenAI routes."""
