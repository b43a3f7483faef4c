"""What is imported at a start, and what only when it is asked for."""
