"""Keys and values of a running batch, and of texts that have left it."""
