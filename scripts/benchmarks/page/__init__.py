"""`scripts/bench page`: what a visitor of the page waits for."""
