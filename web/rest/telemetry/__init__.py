"""What is told of a generation over REST: its metrics and its span."""
