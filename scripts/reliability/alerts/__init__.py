"""A Prometheus beside a run: which of our alerts fire."""
