"""The events backend: a generation over CloudEvents, and the endpoint that takes the replies."""
