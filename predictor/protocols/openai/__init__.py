"""OpenAI's routes: texts, pictures and the list of models, streaming and not."""
