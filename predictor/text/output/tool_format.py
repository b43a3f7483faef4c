"""How a model writes the calls of functions, as its chat template shows."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from predictor.text.output.reasoning import REASONING_TAGS, hidden_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """What stands around the names and the arguments of calls, to the letter: `first` NAME `middle` ARGUMENTS, then
    `following` NAME `middle` ARGUMENTS of each further call, and `last`. The arguments are the JSON of an object.

    `trigger` is what `first` begins with and no other text has; where it is empty, `first` opens a JSON object, which
    is a call where a text begins so. `following` is None where the template takes one call in a turn. `hidden` are the
    special tokens in all of these, by their ids: decoding leaves them out.
    """

    trigger: str
    first: str
    middle: str
    following: str | None
    last: str
    hidden: Mapping[int, str] = field(default_factory=dict)


_TAG = re.compile(r"<[^<>\s]+>|\[[A-Z_]+\]")

# What models are told in the place of an example: SmolLM3's template leaves out the calls of earlier turns.
_INSTRUCTION = re.compile(
    r'(?P<first><(?P<tag>\w+)>\s*{"name": )<[\w-]+>, "(?P<key>arguments|parameters)": <[\w-]+>}'
    r"(?P<close>\s*</(?P=tag)>)"
)

_OTHER_FORMAT = "functools["
"""Phi 4 mini's, which its template tells the model to write, though it shows calls as plain JSON."""

_PLAIN = "a probed answer"
_NAMES = ("probed_function", "probed_other")
_IDS = ("probe0001", "probe0002")  # nine letters and digits, as Mistral's want
_ARGUMENTS = ({"probed_key": "probed value"}, {"probed_key": "probed other"})


def takes_tools(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether the chat template tells the model of functions: one may leave them out without a word."""
    if tokenizer.chat_template is None:
        return False
    return _NAMES[0] in (_rendered(tokenizer) or "")


def tool_format(tokenizer: PreTrainedTokenizerFast) -> ToolFormat | None:
    """By what the template writes of calls in an earlier turn, or else by what it tells the model to write; None where
    it is another format than names and JSON between fixed texts."""
    found = _by_example(tokenizer) or _by_instruction(_rendered(tokenizer) or "")
    if found is None:
        return None
    texts = found.first + found.middle + (found.following or "") + found.last
    return replace(found, hidden=hidden_tokens(tokenizer.backend_tokenizer, texts))


def _by_example(tokenizer: PreTrainedTokenizerFast) -> ToolFormat | None:
    before, plain = _rendered(tokenizer) or "", _rendered(tokenizer, _answer()) or ""
    one, two = (_written(before, _rendered(tokenizer, _answer(calls)) or "") for calls in (1, 2))
    parts = _parts(one, 0)
    if parts is None:
        return None
    first, middle, rest = parts
    following = _following(two, first, middle)
    if following is None and _NAMES[1] in two:  # it counts the calls, or tells them apart in another way
        return None
    end_of_turn = plain.rpartition(_PLAIN)[2]
    if following is not None and following.endswith(first):
        last = following.removesuffix(first).rstrip()
    elif rest.endswith(end_of_turn):
        last = rest.removesuffix(end_of_turn).rstrip()
    else:
        return None
    tag = _TAG.match(first)
    if not tag and (not first.startswith("{") or _OTHER_FORMAT in before):
        return None
    if any(probed in text for text in (first, middle, last) for probed in (*_IDS, *_NAMES)):
        return None
    return ToolFormat(tag[0] if tag else "", first, middle, following, last)


def _by_instruction(before: str) -> ToolFormat | None:
    found = _INSTRUCTION.search(before)
    if found is None:
        return None
    first, last = found["first"] + '"', "}" + found["close"]
    return ToolFormat(f"<{found['tag']}>", first, f'", "{found["key"]}": ', f"{last}\n{first}", last)


def _written(before: str, conversation: str) -> str:
    """The answer in a conversation, with the names of its calls before their arguments."""
    pairs = zip(before, conversation, strict=False)
    same = next((number for number, (one, other) in enumerate(pairs) if one != other), len(before))
    answer = conversation[same:]
    for _, tag in REASONING_TAGS:  # which a template may write before an answer
        answer = answer.rpartition(tag)[2]
    return _name_first(_name_first(answer.lstrip(), 0), 1)


def _parts(text: str, number: int) -> tuple[str, str, str] | None:
    """What stands before the name of this probed call, between name and arguments, and after those."""
    first, name, after = text.partition(_NAMES[number])
    for found in re.finditer("{", after):
        try:
            arguments, end = json.JSONDecoder().raw_decode(after, found.start())
        except ValueError:
            continue
        if name and arguments == _ARGUMENTS[number]:
            return first, after[: found.start()], after[end:]
    return None


def _following(two: str, first: str, middle: str) -> str | None:
    """What stands between the arguments of a call and the name of the next; None where no two may stand in a turn."""
    parts = _parts(two, 0)
    if parts is None or parts[:2] != (first, middle):
        return None
    parts = _parts(parts[2], 1)
    return parts[0] if parts is not None and parts[1] == middle else None


def _name_first(text: str, number: int) -> str:
    """The text with the name of this probed call before its arguments: Hermes' template writes it behind them, and
    tells the model to write it before."""
    for found in re.finditer("{", text):
        try:
            call, end = json.JSONDecoder().raw_decode(text, found.start())
        except ValueError:
            continue
        keys = list(call)
        if keys in (["arguments", "name"], ["parameters", "name"]) and call["name"] == _NAMES[number]:
            written = json.dumps({"name": call["name"], keys[0]: call[keys[0]]})
            return text[: found.start()] + written + text[end:]
    return text


def _rendered(tokenizer: PreTrainedTokenizerFast, *answer: dict[str, Any]) -> str | None:
    """A conversation up to its answer, or with it, as the template writes it; None where it does not."""
    try:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": "hello"}, *answer],
            tools=[_tool(name) for name in _NAMES],
            tokenize=False,
            add_generation_prompt=not answer,
            enable_thinking=False,
            thinking=False,
        )
    except Exception:  # a template is a program, and fails in any way at what it does not expect
        return None
    return str(text)


def _tool(name: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"probed_key": {"type": "string", "description": "A text."}}}
    return {"type": "function", "function": {"name": name, "description": "Does nothing.", "parameters": parameters}}


def _answer(calls: int = 0) -> dict[str, Any]:
    if not calls:
        return {"role": "assistant", "content": _PLAIN}
    made = [
        {"type": "function", "id": id, "function": {"name": name, "arguments": arguments}}
        for id, name, arguments in zip(_IDS, _NAMES, _ARGUMENTS, strict=True)
    ]
    return {"role": "assistant", "content": "", "tool_calls": made[:calls]}
