"""Errors of the start that the log tells in one line."""


class ModelError(Exception):
    """The model cannot be served; the message is one line that says why."""


def first_line(error: BaseException) -> str:
    """What an error says first; its type where it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
