"""OpenAI's shapes: the bodies of its routes as requests of ours, and our results as its documents."""
