"""The OpenAPI description of the public endpoints."""
