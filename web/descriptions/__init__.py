"""What is known of each model: what it is good for, its limits and its defaults."""
