"""Text from token ids: the pieces joined are the whole, no character is cut, and the text ends before the first stop
sequence, however it is cut into pieces."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from predictor.engine.events import Reasoning, Token
from predictor.text.output.reasoning import ReasoningSplitter, ReasoningTags, reasoning_tags
from predictor.text.output.stop_sequences import StopScanner
from predictor.text.output.text_output import IncrementalDetokenizer, TextOutput
from tests.support.texts.tokenizers import bytes_and

CUT = "\N{REPLACEMENT CHARACTER}"


@pytest.fixture(scope="module")
def bytewise() -> Tokenizer:
    """Token 256 is special."""
    return bytes_and("</s>", special=True)


def pieces(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    decoder = IncrementalDetokenizer(tokenizer)
    return [decoder.push(token) for token in ids] + [decoder.flush()]


@pytest.mark.parametrize(
    "text", ["moon", "床前明月光", "\U0001f319 \U0001f468\u200d\U0001f469", "é e\u0301", "a\0b", " a  b "]
)
def test_a_character_comes_when_its_last_byte_has(bytewise: Tokenizer, text: str) -> None:
    spoken = pieces(bytewise, bytewise.encode(text).ids)

    assert [piece for piece in spoken if piece] == list(text)


def test_a_character_that_stays_incomplete_is_left_out(bytewise: Tokenizer) -> None:
    ids = bytewise.encode("a月").ids

    assert "".join(pieces(bytewise, ids[:-1])) == "a"


def test_what_is_no_character_is_marked_once_it_is_certain(bytewise: Tokenizer) -> None:
    ids = [*bytewise.encode("a月").ids[:-1], *bytewise.encode("b").ids]

    assert "".join(pieces(bytewise, ids)) == f"a{CUT}b"


def test_special_tokens_say_nothing(bytewise: Tokenizer) -> None:
    assert pieces(bytewise, [256, *bytewise.encode("a").ids, 256]) == ["", "a", "", ""]


def test_an_endless_run_of_what_is_no_character_is_not_held_back_for_ever(bytewise: Tokenizer) -> None:
    [_, second, _] = bytewise.encode("月").ids  # a byte that only continues a character

    assert sum(map(len, pieces(bytewise, [second] * 100)[:-1])) > 50


def test_any_text_in_any_language_joins_to_what_it_was(bytewise: Tokenizer) -> None:
    chance = random.Random(7)
    for _ in range(300):
        text = "".join(chance.choices("ab é月光\U0001f319\n", k=30))

        assert "".join(pieces(bytewise, bytewise.encode(text).ids)) == text


def test_a_leading_space_is_only_swallowed_where_the_tokenizer_does() -> None:
    """Sentencepiece's way: the mark of a space is text anywhere but in the first token."""
    tokenizer = Tokenizer(models.WordLevel({"▁the": 0, "▁moon": 1, "s": 2, "?": 3}, unk_token="?"))
    tokenizer.decoder = decoders.Metaspace()

    assert pieces(tokenizer, [0, 1, 2, 0]) == ["the", " moon", "s", " the", ""]


# Stop sequences


def scan(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    scanner = StopScanner(stops)
    passed = ""
    for piece in pieces:
        passed += scanner.push(piece)
        if scanner.stopped:
            return passed, True
    return passed + scanner.flush(), False


def find(text: str, stops: list[str]) -> tuple[str, bool]:
    """What the scanner promises, on the whole text."""
    found = [text.index(stop) for stop in stops if stop in text]
    return (text[: min(found)], True) if found else (text, False)


@pytest.mark.parametrize(
    ("pieces", "stops", "passed"),
    [
        (["a", "b"], [], "ab"),
        (["a\n", "b"], ["\n"], "a"),
        (["a", "<", "e", "n", "d", ">", "b"], ["<end>"], "a"),
        (["a", "<", "en", "x"], ["<end>"], "a<enx"),
        (["a<en"], ["<end>"], "a<en"),
        (["a", "a", "b"], ["ab"], "a"),
        (["abcabd"], ["abd"], "abc"),
        (["one two"], ["two", "one"], ""),
        (["床前明", "月光"], ["明月"], "床前"),
        (["", "a", ""], ["b"], "a"),
        (["a.*b"], [".*"], "a"),
        (["a\0b"], ["\0"], "a"),
        (["\U0001f319\U0001f319"], ["\U0001f319\U0001f319"], ""),
    ],
)
def test_text_is_passed_on_up_to_the_first_stop_sequence(pieces: list[str], stops: list[str], passed: str) -> None:
    text, _ = scan(pieces, stops)

    assert text == passed


def test_only_what_could_begin_a_stop_sequence_is_held_back() -> None:
    scanner = StopScanner(["end"])

    assert [scanner.push(piece) for piece in ("a", "be", "d", "en", "d")] == ["a", "b", "ed", "", ""]
    assert scanner.stopped


def test_the_first_in_the_text_wins_over_the_first_that_is_complete() -> None:
    assert scan(["abcd"], ["bc", "abcd"]) == find("abcd", ["bc", "abcd"])


def test_any_cut_of_any_text_gives_what_a_search_of_the_whole_gives() -> None:
    chance = random.Random(7)
    for _ in range(20_000):
        text = "".join(chance.choices("abc", k=chance.randrange(12)))
        stops = ["".join(chance.choices("abc", k=chance.randrange(1, 5))) for _ in range(chance.randrange(5))]
        pieces = []
        rest = text
        while rest:
            at = chance.randrange(1, len(rest) + 1)
            pieces.append(rest[:at])
            rest = rest[at:]

        passed, stopped = scan(pieces, stops)

        assert stopped == find(text, stops)[1], (pieces, stops)
        assert passed == expected(pieces, stops), (pieces, stops)


def expected(pieces: list[str], stops: list[str]) -> str:
    """Piece by piece: the shortest text so far that holds a stop sequence decides."""
    text = ""
    for piece in pieces:
        text += piece
        passed, stopped = find(text, stops)
        if stopped:
            return passed
    return text


# Reasoning and answer: told apart however the text is cut, and only of a model that reasons

TAGS = ReasoningTags("<think>", "</think>")
BEGUN = ReasoningTags("<think>", "</think>", begun=True)


def split(pieces: list[str], tags: ReasoningTags = TAGS) -> tuple[str, str]:
    splitter = ReasoningSplitter(tags)
    parts = [*(splitter.push(piece) for piece in pieces), splitter.flush()]
    return "".join(reasoning for reasoning, _ in parts), "".join(answer for _, answer in parts)


@pytest.mark.parametrize(
    ("tags", "text", "parts"),
    [
        (TAGS, "<think>\nhm, so\n\nyes\n</think>\n\nmoon\n", ("hm, so\n\nyes", "moon\n")),
        (TAGS, "\n<think>hm</think>moon", ("hm", "moon")),
        (TAGS, "<think>\n\n</think>\n\nmoon", ("", "moon")),
        (TAGS, "<think>hm", ("hm", "")),
        (TAGS, "<think>hm </thi", ("hm </thi", "")),
        (TAGS, "<think>a < b </ c</think>moon", ("a < b </ c", "moon")),
        (TAGS, "<think>hm</think>", ("hm", "")),
        (TAGS, "<think>hm</think>one <think>two</think> three", ("hm", "one <think>two</think> three")),
        (TAGS, " moon", ("", " moon")),
        (TAGS, "the tag <think> and </think>", ("", "the tag <think> and </think>")),
        (TAGS, "<thin ice", ("", "<thin ice")),
        (TAGS, "<th", ("", "<th")),
        (TAGS, "", ("", "")),
        (TAGS, " \n", ("", " \n")),
        (BEGUN, "\nhm\n</think>\n\nmoon", ("hm", "moon")),
        (BEGUN, "hm", ("hm", "")),
        (BEGUN, "</think>moon", ("", "moon")),
    ],
)
def test_reasoning_is_what_comes_before_the_answer_between_tags(
    tags: ReasoningTags, text: str, parts: tuple[str, str]
) -> None:
    for size in range(1, len(text) + 1):
        assert split([text[at : at + size] for at in range(0, len(text), size)], tags) == parts


def test_only_what_could_begin_a_tag_or_end_the_reasoning_is_held_back() -> None:
    splitter = ReasoningSplitter(TAGS)
    pieces = ["<think>", "a", " b", " \n", "c<", "d", "</think>", "\n", "e", " f"]

    assert [splitter.push(piece) for piece in pieces] == [
        ("", ""),
        ("a", ""),
        (" b", ""),
        ("", ""),
        (" \nc", ""),
        ("<d", ""),
        ("", ""),
        ("", ""),
        ("", "e"),
        ("", " f"),
    ]


def tags_of(backend: Tokenizer, template: str | None = None, prompt: str = "") -> ReasoningTags | None:
    tokenizer: Any = SimpleNamespace(chat_template=template, backend_tokenizer=backend)
    return reasoning_tags(tokenizer, prompt)


def test_a_model_reasons_whose_vocabulary_or_template_has_the_tags() -> None:
    assert tags_of(bytes_and()) is None
    assert tags_of(bytes_and(), "{{ messages }}") is None
    assert tags_of(bytes_and("<think>", "</think>")) == TAGS
    assert tags_of(bytes_and(), "{% if x %}<think>\n\n</think>{% endif %}") == TAGS
    assert tags_of(bytes_and("[THINK]", "[/THINK]")) == ReasoningTags("[THINK]", "[/THINK]")


def test_a_token_for_a_space_is_no_tag() -> None:
    letters = sorted(set("▁<>/think"))
    backend = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    assert backend.decode([letters.index("▁")]) == ""

    assert tags_of(backend, "{% if x %}<think>\n\n</think>{% endif %}") == TAGS


def test_a_prompt_may_begin_the_reasoning() -> None:
    backend = bytes_and("<think>", "</think>")

    assert tags_of(backend, prompt="user moon assistant <think>\n") == BEGUN
    assert tags_of(backend, prompt="user moon assistant <think>\n\n</think>\n\n") == TAGS


def written(text: str, backend: Tokenizer, *, stops: list[str], max_tokens: int = 1_000) -> tuple[str, str, Any, int]:
    """Reasoning, answer, the end, and how many tokens of the text were taken."""
    events: list[Any] = []
    output = TextOutput(
        SimpleNamespace(publish=events.append),  # type: ignore[arg-type]  # all that it needs of a generation
        backend,
        prompt_tokens=1,
        max_tokens=max_tokens,
        eos=set(),
        stops=stops,
        reasoning=tags_of(backend),
    )
    ids = backend.encode(text).ids
    taken = next((number for number, token in enumerate(ids, 1) if output.put(token)), len(ids))
    end = output.finish()
    parts = ["".join(event.text for event in events if isinstance(event, kind)) for kind in (Reasoning, Token)]
    return parts[0], parts[1], end.finish_reason, taken


@pytest.mark.parametrize("special", [False, True])
def test_stop_sequences_apply_to_the_answer_alone(special: bool) -> None:
    backend = bytes_and("<think>", "</think>", special=special)

    assert written("<think>\none\n\ntwo\n</think>\n\nthree\n\nfour", backend, stops=["\n\n"])[:3] == (
        "one\n\ntwo",
        "three",
        "stop",
    )


@pytest.mark.parametrize("text", ["<|channel>thought\nhm\n<channel|>moon", "<|channel>thought\n<channel|>moon", "moon"])
def test_a_tag_may_be_a_special_token_and_more(text: str) -> None:
    backend = bytes_and("<|channel>", "<channel|>", "<turn|>", special=True)

    assert written(f"{text}<turn|>", backend, stops=[])[:2] == ("hm" if "hm" in text else "", "moon")


def test_the_limit_counts_the_reasoning() -> None:
    backend = bytes_and("<think>", "</think>")

    assert written("<think>one two three", backend, stops=[], max_tokens=8) == ("one two", "", "length", 8)
