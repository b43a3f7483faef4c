"""`scripts/bench`: how fast this machine serves, beside lower bounds from the same run."""
