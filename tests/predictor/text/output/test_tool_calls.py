"""Calls in a text: apart from its words, however it is cut into pieces."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from tokenizers import Tokenizer

from contract.limits import TOOLS
from predictor.engine.events import Reasoning, TextFinished, Token, ToolCallPiece
from predictor.text.output.reasoning import ReasoningTags
from predictor.text.output.text_output import TextOutput
from predictor.text.output.tool_calls import CallIds, ToolCallSplitter
from predictor.text.output.tool_format import ToolFormat
from tests.support.texts.tokenizers import bytes_and

TAGGED = ToolFormat(
    "<tool_call>",
    '<tool_call>\n{"name": "',
    '", "arguments": ',
    '}\n</tool_call>\n<tool_call>\n{"name": "',
    "}\n</tool_call>",
)
PLAIN = ToolFormat("", '{"name": "', '", "parameters": ', None, "}")
LIST = ToolFormat("<TOOLCALL>", '<TOOLCALL>[{"name": "', '", "arguments": ', '}, {"name": "', "}]</TOOLCALL>")
IDS = CallIds(1, [1, 2])
ARGUMENTS = ['{"city": "杭州"}', '{"a": {"b": [1, "}\\"]{"]}}', "{}"]


def written(form: ToolFormat, names: Sequence[str]) -> str:
    """So many calls, with ARGUMENTS in turn."""
    calls = [f"{name}{form.middle}{ARGUMENTS[number % 3]}" for number, name in enumerate(names)]
    return form.first + (form.following or "").join(calls) + form.last


def split(form: ToolFormat, pieces: Sequence[str], *, several: bool = True) -> tuple[str, list[tuple[str, str]]]:
    """The words of a text, and its calls."""
    splitter = ToolCallSplitter(form, IDS, several=several)
    words = ""
    calls: dict[int, list[Any]] = {}
    parts = [part for piece in pieces for part in splitter.push(piece)] + splitter.flush()
    for part in parts:
        if isinstance(part, str):
            assert not calls
            words += part
        else:
            known = calls.setdefault(part.index, [part.name, part.id, ""])
            assert (part.name, part.id) in ((None, None), (known[0], IDS[part.index]))
            known[2] += part.arguments
    return words, [(name, arguments) for name, _, arguments in calls.values()]


def cut(text: str, chance: random.Random) -> list[str]:
    pieces = []
    while text:
        end = chance.randrange(1, 8)
        pieces.append(text[:end])
        text = text[end:]
    return pieces


@pytest.mark.parametrize("form", [TAGGED, LIST])
@pytest.mark.parametrize("words", ["", "Let me see.", "a < b <tool_", '{"name": "x"'])
def test_any_cut_gives_the_same_words_and_calls(form: ToolFormat, words: str) -> None:
    chance = random.Random(7)
    for names in ([], ["rain"], ["rain", "snow", "rain"]):
        text = words + ("\n" + written(form, names) if names else "")
        for _ in range(100):
            found = split(form, cut(text, chance))

            assert found == (words, [(name, ARGUMENTS[number]) for number, name in enumerate(names)])


@pytest.mark.parametrize("before", ["", " \n"])
def test_plain_json_is_a_call_where_the_text_begins_with_it(before: str) -> None:
    chance = random.Random(7)
    for _ in range(100):
        assert split(PLAIN, cut(before + written(PLAIN, ["rain"]), chance)) == ("", [("rain", ARGUMENTS[0])])
    words = "I say " + written(PLAIN, ["rain"])
    assert split(PLAIN, cut(words, chance)) == (words, [])


def test_words_come_as_soon_as_they_are_no_call() -> None:
    splitter = ToolCallSplitter(TAGGED, IDS, several=True)

    assert [splitter.push(piece) for piece in ("a", " ", "b", " <tool", "_call x", "\n")] == [
        ["a"],
        [],
        [" b"],
        [],
        [" <tool_call x"],
        [],
    ]
    assert splitter.flush() == ["\n"]


def test_arguments_come_piece_by_piece() -> None:
    splitter = ToolCallSplitter(TAGGED, IDS, several=True)
    pieces = [TAGGED.first, "rain", TAGGED.middle, '{"a"', ': "', "}", '"', "}", "}\n</tool_call>"]
    parts = [part for piece in pieces for part in splitter.push(piece)]

    assert parts[0] == ToolCallPiece(0, '{"a"', IDS[0], "rain")
    assert parts[1:] == [ToolCallPiece(0, piece) for piece in (': "', "}", '"', "}")]
    assert not splitter.ended


def test_one_call_ends_the_text_where_several_are_not_wanted() -> None:
    text = written(TAGGED, ["rain", "snow"])

    assert split(TAGGED, [text], several=False) == ("", [("rain", ARGUMENTS[0])])


def test_no_more_calls_than_the_contract_has_room_for() -> None:
    _, calls = split(TAGGED, [written(TAGGED, ["rain"] * (TOOLS + 1))])

    assert len(calls) == TOOLS


def test_a_call_that_is_cut_before_its_arguments_is_left_out() -> None:
    assert split(TAGGED, ["Well ", TAGGED.first, "ra"]) == ("Well", [])


def test_ids_are_those_of_the_same_text_alone() -> None:
    assert IDS[0] == CallIds(1, [1, 2])[0]
    others = {IDS[0], IDS[1], CallIds(2, [1, 2])[0], CallIds(1, [1, 2, 3])[0], CallIds(1, [12])[0]}
    assert len(others) == 5
    assert all(name.startswith("call_") for name in others)


# In a text


class Published:
    """A generation that keeps its events."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def publish(self, event: Any) -> None:
        self.events.append(event)


def put(tokenizer: Tokenizer, text: str, form: ToolFormat, **options: Any) -> tuple[list[Any], TextFinished]:
    """The events of a text that is put token by token, and its end."""
    published: Any = Published()
    several = options.pop("several", True)
    asked: dict[str, Any] = {"max_tokens": 1_000, "stops": []} | options
    output = TextOutput(
        published,
        tokenizer,
        prompt_tokens=1,
        eos={256},
        calls=ToolCallSplitter(form, IDS, several=several),
        **asked,
    )
    for token in [*tokenizer.encode(text).ids, 256]:
        if output.put(token):
            break
    return published.events, output.finish()


def joined(events: list[Any]) -> tuple[str, str, str]:
    """Reasoning, words, and arguments."""
    kinds: Any = (Reasoning, Token, ToolCallPiece)
    return tuple(
        "".join(getattr(event, "text", getattr(event, "arguments", "")) for event in events if isinstance(event, kind))
        for kind in kinds
    )  # type: ignore[return-value]


@pytest.fixture(scope="module")
def bytewise() -> Tokenizer:
    """Token 256 is special."""
    return bytes_and("</s>", special=True)


def test_a_text_that_calls_says_so_at_its_end(bytewise: Tokenizer) -> None:
    events, end = put(bytewise, "Hm.\n" + written(TAGGED, ["rain"]), TAGGED)

    assert joined(events) == ("", "Hm.", ARGUMENTS[0])
    assert end.finish_reason == "tool_calls"


def test_a_text_without_a_call_stops_as_usual(bytewise: Tokenizer) -> None:
    events, end = put(bytewise, "Hm.\n", TAGGED)

    assert (joined(events), end.finish_reason) == (("", "Hm.\n", ""), "stop")


def test_a_call_that_is_cut_has_the_length_as_its_reason(bytewise: Tokenizer) -> None:
    text = written(TAGGED, ["rain"])
    begun = len((TAGGED.first + "rain" + TAGGED.middle + '{"').encode())
    events, end = put(bytewise, text, TAGGED, max_tokens=begun)

    assert (joined(events), end.finish_reason) == (("", "", '{"'), "length")


def test_a_single_call_ends_the_text_at_once(bytewise: Tokenizer) -> None:
    text = written(TAGGED, ["rain", "snow"])
    _, end = put(bytewise, text, TAGGED, several=False)

    assert end.finish_reason == "tool_calls"
    assert end.completion_tokens == len((TAGGED.first + "rain" + TAGGED.middle + ARGUMENTS[0]).encode())


def test_special_tokens_as_tags(bytewise: Tokenizer) -> None:
    tokenizer = bytes_and("</s>", "<TOOLCALL>", "</TOOLCALL>", special=True)
    form = ToolFormat(
        LIST.trigger, LIST.first, LIST.middle, LIST.following, LIST.last, {257: "<TOOLCALL>", 258: "</TOOLCALL>"}
    )
    events, end = put(tokenizer, "Hm " + written(form, ["rain", "snow"]), form)

    assert (joined(events), end.finish_reason) == (("", "Hm", ARGUMENTS[0] + ARGUMENTS[1]), "tool_calls")


def test_reasoning_comes_before_the_calls(bytewise: Tokenizer) -> None:
    text = "<think>so <tool_call></think>\n\n" + written(TAGGED, ["rain"])
    events, _ = put(bytewise, text, TAGGED, reasoning=ReasoningTags("<think>", "</think>"))

    assert joined(events) == ("so <tool_call>", "", ARGUMENTS[0])


def test_stop_sequences_apply_to_the_words(bytewise: Tokenizer) -> None:
    """What may have been the beginning of one comes before the call."""
    events, end = put(bytewise, "a ci" + written(TAGGED, ["rain"]), TAGGED, stops=["city", "cider"])
    assert (joined(events), end.finish_reason) == (("", "a ci", ARGUMENTS[0]), "tool_calls")
    assert events.index(Token("ci")) < next(n for n, one in enumerate(events) if isinstance(one, ToolCallPiece))

    events, end = put(bytewise, "a city" + written(TAGGED, ["rain"]), TAGGED, stops=["city"])
    assert (joined(events), end.finish_reason) == (("", "a ", ""), "stop")
