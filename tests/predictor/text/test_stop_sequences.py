"""Stop sequences: what is passed on ends before the first of them, however the text is cut into pieces."""

from __future__ import annotations

import random

import pytest

from predictor.text.stop_sequences import StopScanner


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
