"""OpenAI's `/v1/responses`: each response is a job of its caller."""
