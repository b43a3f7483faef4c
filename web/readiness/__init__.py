"""Whether each model is asleep, waking or ready, and the probe that wakes it."""
