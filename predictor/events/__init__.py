"""CloudEvents in, each generated once, replies and progress out."""
