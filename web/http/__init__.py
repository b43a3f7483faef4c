"""Request headers in, responses out."""
