"""What was measured of a model, kept for its next start."""
