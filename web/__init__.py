"""The light container in front: takes `POST /generate` and passes it to a model server."""
