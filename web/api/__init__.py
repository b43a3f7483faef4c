"""The public endpoints."""
