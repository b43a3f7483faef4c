"""The ends of jobs, delivered to the addresses that their callers have given."""
