"""The events of a response, made of its job's log.

The same log gives the same events with the same numbers, so that whoever comes back goes on where it was. A job that
begins again writes its beginning once more, which is passed over here. A log without its beginning, of which the store
keeps the newest entries, gives the events of the result alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from contract.events import LiveEvent, ReasoningEvent, StatusEvent, TokenEvent, ToolCallEvent
from contract.openai.responses.documents import Document, ResponseDocuments, Status, likely, reasoning_part, text_part
from contract.problems import Problem
from contract.result import TextResult
from contract.texts.logprobs import TokenLogprob
from contract.texts.tools import CalledFunction, ToolCall

_REASONING, _MESSAGE = -2, -1  # the numbers of the calls begin at 0


class _Diverged(Exception):
    """What comes does not go on from what was told."""


@dataclass
class _Item:
    """An output item whose beginning was told."""

    id: str
    place: int
    """Its output_index."""
    call: ToolCall | None = None
    text: str = ""
    """Or the arguments of a call."""
    repeated: int = 0
    """Characters of it that the present attempt of the job has written."""
    done: bool = False


class ResponseEvents:
    """Every method gives the events that follow, as documents with their type and number."""

    def __init__(self, documents: ResponseDocuments) -> None:
        self._documents = documents
        self._number = 0
        self._running = False
        self._items: dict[int, _Item] = {}
        self._cut = False  # something that goes on came before anything that says that it is generated
        self.is_numbered_anew = False
        """Whether nothing of the log was told: whoever followed it earlier may have seen other numbers."""
        self.ended = False
        """Whether the last event was given."""

    def begin(self) -> Iterator[Document]:
        """What comes before everything else."""
        background = self._documents.kept.in_background
        status: Status = "queued" if background else "in_progress"
        yield self._event("response.created", response=self._documents.begun(status))
        if background:
            yield self._event("response.queued", response=self._documents.begun(status))

    def add(self, event: LiveEvent) -> Iterator[Document]:
        """Of an entry of the log before the last one."""
        goes_on = not isinstance(event, StatusEvent) or event.resumed
        if goes_on and not self._running:
            self._cut = True
        if self._cut:
            return
        try:
            match event:
                case StatusEvent(state="running"):
                    yield from self._run()
                case StatusEvent(state="queued"):
                    for item in self._items.values():
                        item.repeated = 0
                case ReasoningEvent():
                    yield from self._text(_REASONING, event.text)
                case TokenEvent():
                    yield from self._text(_MESSAGE, event.text, event.logprobs)
                case ToolCallEvent():
                    yield from self._called(event)
        except _Diverged:
            yield self._diverged()

    def complete(self, result: TextResult, ended: float) -> Iterator[Document]:
        """What was not told of the result, and the end."""
        self.is_numbered_anew = not self._items
        try:
            yield from self._run()
            yield from self._rest(result)
            output = {item["id"]: item for item in self._documents.output(result)}
            if output.keys() != {item.id for item in self._items.values()}:
                raise _Diverged
            for key in self._items:
                yield from self._close(key, output[self._items[key].id]["status"], result.logprobs)
        except _Diverged:
            yield self._diverged()
            return
        self.ended = True
        document = self._documents.ended(result, ended, [output[item.id] for item in self._items.values()])
        yield self._event(f"response.{document['status']}", response=document)

    def fail(self, problem: Problem, ended: float, *, cancelled: bool) -> Iterator[Document]:
        """The end without a result."""
        self.is_numbered_anew = not self._items
        self.ended = True
        document = self._documents.failed(problem, ended, cancelled=cancelled)
        yield self._event("response.failed", response=document)

    def _diverged(self) -> Document:
        self.ended = True
        message = "The generation was begun again and goes another way; the response itself will have all of it."
        return self._event("error", code="diverged", message=message, param=None)

    def _run(self) -> Iterator[Document]:
        if not self._running:
            self._running = True
            yield self._event("response.in_progress", response=self._documents.begun("in_progress"))

    def _text(self, key: int, text: str, logprobs: Sequence[TokenLogprob] | None = None) -> Iterator[Document]:
        """A piece of the reasoning, the message or a call's arguments."""
        if not text:
            return
        if key not in self._items:
            yield from self._open(key)
        item = self._items[key]
        known = item.text[item.repeated : item.repeated + len(text)]
        new = text[len(known) :]
        if text[: len(known)] != known or (new and item.done):
            raise _Diverged
        item.repeated += len(text)
        if not new:
            return
        item.text += new
        if key == _MESSAGE:
            told = likely(None if known else logprobs)
            yield self._of(item, "response.output_text.delta", content_index=0, delta=new, logprobs=told)
        elif key == _REASONING:
            yield self._of(item, "response.reasoning_text.delta", content_index=0, delta=new)
        else:
            yield self._of(item, "response.function_call_arguments.delta", delta=new)

    def _called(self, event: ToolCallEvent) -> Iterator[Document]:
        if event.name is not None:
            call = ToolCall(id=event.id or "", function=CalledFunction(name=event.name, arguments=""))
            if event.index not in self._items:
                yield from self._open(event.index, call)
            if self._items[event.index].call != call:
                raise _Diverged
        if event.index not in self._items:
            raise _Diverged
        yield from self._text(event.index, event.arguments)

    def _open(self, key: int, call: ToolCall | None = None) -> Iterator[Document]:
        yield from self._run()
        for other in self._items:
            if other == _REASONING or 0 <= other < key:
                yield from self._close(other, "completed")
        documents, part = self._documents, None
        if call is not None:
            shown = documents.call(key, call, "in_progress")
        elif key == _MESSAGE:
            shown, part = documents.message(None, "in_progress"), text_part("")
        else:
            shown, part = documents.reasoning(None, "in_progress"), reasoning_part("")
        item = self._items[key] = _Item(shown["id"], len(self._items), call)
        yield self._event("response.output_item.added", output_index=item.place, item=shown)
        if part is not None:
            yield self._of(item, "response.content_part.added", content_index=0, part=part)

    def _close(self, key: int, status: Status, logprobs: Sequence[TokenLogprob] | None = None) -> Iterator[Document]:
        item, documents = self._items[key], self._documents
        if item.done:
            return
        item.done = True
        if item.call is not None:
            function = CalledFunction(name=item.call.function.name, arguments=item.text)
            shown = documents.call(key, item.call.model_copy(update={"function": function}), status)
            yield self._of(
                item, "response.function_call_arguments.done", name=function.name, arguments=function.arguments
            )
        elif key == _MESSAGE:
            shown, told = documents.message(item.text, status, logprobs), likely(logprobs)
            yield self._of(item, "response.output_text.done", content_index=0, text=item.text, logprobs=told)
        else:
            shown = documents.reasoning(item.text, status)
            yield self._of(item, "response.reasoning_text.done", content_index=0, text=item.text)
        for part in shown.get("content", ()):
            yield self._of(item, "response.content_part.done", content_index=0, part=part)
        yield self._event("response.output_item.done", output_index=item.place, item=shown)

    def _rest(self, result: TextResult) -> Iterator[Document]:
        """Backends need not tell pieces."""
        calls = result.tool_calls or ()
        yield from self._text(_REASONING, self._untold(_REASONING, result.reasoning_content or ""))
        if not result.text and not calls and _MESSAGE not in self._items:
            yield from self._open(_MESSAGE)
        told = None if _MESSAGE in self._items else result.logprobs
        yield from self._text(_MESSAGE, self._untold(_MESSAGE, result.text), told)
        for number, call in enumerate(calls):
            arguments = self._untold(number, call.function.arguments)
            event = ToolCallEvent(index=number, id=call.id, name=call.function.name, arguments=arguments)
            yield from self._called(event)

    def _untold(self, key: int, whole: str) -> str:
        item = self._items.get(key)
        if item is None:
            return whole
        if not whole.startswith(item.text):
            raise _Diverged
        item.repeated = len(item.text)
        return whole[len(item.text) :]

    def _of(self, item: _Item, kind: str, **members: Any) -> Document:
        return self._event(kind, item_id=item.id, output_index=item.place, **members)

    def _event(self, kind: str, **members: Any) -> Document:
        number, self._number = self._number, self._number + 1
        return {"type": kind, "sequence_number": number, **members}
