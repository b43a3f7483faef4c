"""Errors of the start that the log tells in one line."""


class ModelError(Exception):
    """The model cannot be served; the message is one line that says why."""
