"""The phases of a generation, as the engine's events tell of them."""
