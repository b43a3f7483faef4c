"""From exec to ready: where a model comes from, how it is read, and what the start reports."""
