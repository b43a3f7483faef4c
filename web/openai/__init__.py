"""OpenAI's routes: the same generations as at `POST /generate`, in OpenAI's shapes."""
