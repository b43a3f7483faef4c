"""Tasks, admission in front of the slots, and the thread that steps the running batch."""
