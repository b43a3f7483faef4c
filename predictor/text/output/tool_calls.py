"""The calls of functions in a text, told apart from its words while it is written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

from contract.limits import TOOLS
from predictor.engine.events import ToolCallPiece
from predictor.text.output.stop_sequences import overlap
from predictor.text.output.tool_format import ToolFormat


class CallIds:
    """The ids of a text's calls: the same for the same prompt and seed, so that a text that is written again has them
    again, and others for another turn of the conversation."""

    def __init__(self, seed: int, prompt: Sequence[int]) -> None:
        self._text = f"{seed}\n{','.join(map(str, prompt))}\n"

    def __getitem__(self, index: int) -> str:
        return "call_" + hashlib.sha256(f"{self._text}{index}".encode()).hexdigest()[:24]


_Take = Callable[[str, list[str | ToolCallPiece]], str | None]


class ToolCallSplitter:
    """Tells the calls of a text from the words before them. White space between the two belongs to neither.

    A grammar holds calls to the letter of their format, so nothing is guessed here. Text that may be the beginning of a
    call is held back until the next piece decides.
    """

    def __init__(self, form: ToolFormat, ids: CallIds, *, several: bool) -> None:
        self._form = form
        self._ids = ids
        self._most = TOOLS if several and form.following is not None else 1
        self._take: _Take = self._take_words
        self._held = ""
        self._name = ""
        self._spoke = False
        self._object = _JsonObject()
        self.called = 0
        self.ended = False
        """No more calls may come: the rest of the text would be none."""

    @property
    def hidden(self) -> Mapping[int, str]:
        """As ToolFormat.hidden."""
        return self._form.hidden

    def push(self, piece: str) -> list[str | ToolCallPiece]:
        """Take the next piece; the words and the pieces of calls that are certain with it."""
        text, self._held = self._held + piece, ""
        parts: list[str | ToolCallPiece] = []
        while text and not self.ended:
            rest = self._take(text, parts)
            if rest is None:
                self._held = text
                break
            text = rest
        return parts

    def flush(self) -> list[str | ToolCallPiece]:
        """The words that were held back, when no piece follows. A call that is cut before its arguments is left out."""
        held, self._held = self._held, ""
        return [held] if held and self._take == self._take_words else []

    # Each takes what it can of the text, and returns the rest; None where more must come first.

    def _take_words(self, text: str, parts: list[str | ToolCallPiece]) -> str | None:
        first = self._form.first
        if self._form.trigger:
            words, found, rest = text.partition(first)
            certain = words if found else text[: len(text) - overlap(text, first)]
        else:  # a call opens the text, or there is none
            begun = text.lstrip() if not self._spoke else text
            found = "" if self._spoke or not begun.startswith(first) else first
            if not found and not self._spoke and first.startswith(begun):
                return None
            rest, certain = begun.removeprefix(first), "" if found else text
        certain = certain.rstrip()
        if certain:
            parts.append(certain)
            self._spoke = True
        if found:
            self._take = self._take_name
            return rest
        self._held = text[len(certain) :]
        return ""

    def _take_name(self, text: str, _parts: list[str | ToolCallPiece]) -> str | None:
        name, found, rest = text.partition(self._form.middle)
        if not found:
            return None
        self._name = name
        self._take = self._take_begun
        return rest

    def _take_begun(self, text: str, parts: list[str | ToolCallPiece]) -> str | None:
        """The first piece of the arguments comes with the name."""
        arguments = self._object.take(text)
        parts.append(ToolCallPiece(self.called, arguments, self._ids[self.called], self._name))
        self.called += 1
        return self._after(arguments, text)

    def _take_arguments(self, text: str, parts: list[str | ToolCallPiece]) -> str | None:
        arguments = self._object.take(text)
        parts.append(ToolCallPiece(self.called - 1, arguments))
        return self._after(arguments, text)

    def _after(self, arguments: str, text: str) -> str:
        self._take = self._take_arguments
        if self._object.closed:
            self._object = _JsonObject()
            self._take = self._take_following
            self.ended = self.called >= self._most
        return text[len(arguments) :]

    def _take_following(self, text: str, _parts: list[str | ToolCallPiece]) -> str | None:
        """Up to the name of the next call. What is no beginning of one ends the calls."""
        following = self._form.following or ""
        if text.startswith(following):
            self._take = self._take_name
            return text.removeprefix(following)
        if following.startswith(text) or self._form.last.startswith(text):
            return None
        self.ended = True
        return ""


class _JsonObject:
    """Finds the end of an object in a stream of JSON."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_text = self._escaped = False
        self.closed = False

    def take(self, text: str) -> str:
        """What of the text belongs to the object."""
        for place, character in enumerate(text):
            if self._escaped:
                self._escaped = False
            elif self._in_text:
                self._escaped = character == "\\"
                self._in_text = character != '"'
            elif character == '"':
                self._in_text = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if not self._depth:
                    self.closed = True
                    return text[: place + 1]
        return text
