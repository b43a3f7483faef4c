"""The light container: takes orders at `POST /generate` and passes them to a model server."""
