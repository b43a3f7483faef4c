"""`scripts/bench`: how fast this machine serves, beside floors from the same run."""
