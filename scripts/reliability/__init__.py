"""`scripts/chaos` and `scripts/hammer`: faults on purpose, and a count of what was lost."""
