"""OpenAI's own names of mistakes, where clients look for them."""

from __future__ import annotations

from contract.problems import Problem

CONTEXT_LENGTH = "context_length_exceeded"
"""A prompt is longer than the model's context."""


def field_code(problem: Problem) -> str | None:
    """That of the first field that has one."""
    return next((error.code for error in problem.errors or () if error.code), None)
