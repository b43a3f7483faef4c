"""The processes of `scripts/run`: how they are made, and how each one is."""
