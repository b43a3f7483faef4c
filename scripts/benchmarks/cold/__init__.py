"""`scripts/bench cold`: how long it takes from the start of a server to its first token."""
