"""What is said of the served models: what each is, and whether it is awake."""
