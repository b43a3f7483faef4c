"""OpenAI's responses: bodies as requests of ours, and what becomes of them as its documents and events."""
