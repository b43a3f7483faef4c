"""One bounded call to a model server."""
