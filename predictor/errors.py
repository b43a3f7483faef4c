"""What stands in the way of serving a model."""


class ModelError(Exception):
    """The model cannot be served; the message is one line that says why."""
