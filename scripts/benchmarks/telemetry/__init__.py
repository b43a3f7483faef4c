"""What metrics, logs and traces cost."""
