"""`scripts/bench wake`: how long a deployed service takes from zero, by phase, and what is lost meanwhile."""
