"""KServe's model server around a model, the listening socket, and draining after SIGTERM."""
