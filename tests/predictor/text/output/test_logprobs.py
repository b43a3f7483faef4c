"""Log probabilities of the tokens of each piece: joined they are those of the text, and of nothing else."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer

from contract.texts.logprobs import TokenLogprob
from predictor.engine.events import Reasoning, Token
from predictor.text.output.reasoning import ReasoningTags
from predictor.text.output.text_output import TextOutput
from predictor.text.output.token_bytes import TokenBytes
from predictor.text.sampling.log_probabilities import TokenLikelihood
from tests.predictor.text.output.test_token_bytes import byte_level

END = 256


@pytest.fixture(scope="module")
def bytewise() -> Tokenizer:
    return byte_level("</s>")


def spoken(
    tokenizer: Tokenizer,
    ids: list[int],
    stops: tuple[str, ...] = (),
    most: int = 10_000,
    reasoning: ReasoningTags | None = None,
) -> list[Any]:
    """The events of a text of these tokens, where that of number n has the log probability -n."""
    events: list[Any] = []
    output = TextOutput(
        SimpleNamespace(publish=events.append),  # type: ignore[arg-type]  # all that an output does with a generation
        tokenizer,
        prompt_tokens=1,
        max_tokens=most,
        eos={END},
        stops=list(stops),
        reasoning=reasoning,
        token_bytes=TokenBytes(tokenizer),
    )
    for number, token in enumerate(ids):
        output.note_likelihood(TokenLikelihood(-float(number), [(token, -float(number)), (END, -50.0)]))
        if output.put(token):
            break
    output.finish()
    return events


def told(events: list[Any]) -> list[TokenLogprob]:
    return [one for event in events if isinstance(event, Token) for one in event.logprobs or ()]


def text_of(events: list[Any]) -> str:
    return "".join(event.text for event in events if isinstance(event, Token))


def bytes_of(tokens: list[TokenLogprob]) -> bytes:
    return b"".join(bytes(one.bytes) for one in tokens)


def test_each_piece_has_the_tokens_that_it_is_made_of(bytewise: Tokenizer) -> None:
    events = spoken(bytewise, [*bytewise.encode("a月b").ids, END])

    assert [(event.text, [one.logprob for one in event.logprobs]) for event in events] == [
        ("a", [0.0]),
        ("月", [-1.0, -2.0, -3.0]),
        ("b", [-4.0]),
    ]
    first = events[0].logprobs[0]
    assert (first.token, first.bytes) == ("a", [97])
    assert [(one.token, one.logprob, one.bytes) for one in first.top_logprobs] == [
        ("a", 0.0, [97]),
        ("</s>", -50.0, []),
    ]


def test_tokens_that_are_held_back_come_with_the_piece_that_they_end_up_in(bytewise: Tokenizer) -> None:
    events = spoken(bytewise, bytewise.encode("abcdX").ids, stops=("bcdef",))

    assert [(event.text, len(event.logprobs)) for event in events] == [("a", 1), ("bcdX", 4)]


@pytest.mark.parametrize("ends", ["stop", "end", "length"])
def test_those_of_a_stop_sequence_and_the_end_token_are_not_told(bytewise: Tokenizer, ends: str) -> None:
    text = "ab" + {"stop": "STOP", "end": "", "length": "cd"}[ends]
    ids = [*bytewise.encode(text).ids, *([END] if ends == "end" else [])]
    events = spoken(bytewise, ids, stops=("STOP",), most=4 if ends == "length" else 100)

    expected = {"stop": "ab", "end": "ab", "length": "abcd"}[ends]
    assert text_of(events) == expected
    assert bytes_of(told(events)) == expected.encode()


def test_a_character_that_the_end_cuts_has_tokens_and_no_text(bytewise: Tokenizer) -> None:
    events = spoken(bytewise, bytewise.encode("a月").ids, most=3)

    assert [(event.text, len(event.logprobs)) for event in events] == [("a", 1), ("", 2)]
    assert bytes_of(told(events)) == "a月".encode()[:3]


TAGS = ReasoningTags("<think>", "</think>")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>hm, 月</think>\n\nmoon", "moon"),
        ("moon", "moon"),
        ("<thin moon", "<thin moon"),
        ("<think>hm", ""),
        ("<think>hm</think>\n", ""),
        ("<think>hm</think>\nmoon STOP x", "moon "),
    ],
)
def test_tokens_of_the_reasoning_are_not_told(bytewise: Tokenizer, text: str, answer: str) -> None:
    events = spoken(bytewise, bytewise.encode(text).ids, stops=("STOP",), reasoning=TAGS)

    assert text_of(events) == answer
    assert bytes_of(told(events)) == answer.encode()
    assert all(isinstance(event, Reasoning) or event.text for event in events)


def test_any_text_with_any_stop_sequences_has_the_tokens_that_it_is_made_of(bytewise: Tokenizer) -> None:
    chance = random.Random(5)
    for _ in range(200):
        text = "".join(chance.choices("ab月\U0001f319", k=20))
        stops = tuple("".join(chance.choices("ab月", k=chance.randint(1, 3))) for _ in range(2))
        events = spoken(bytewise, bytewise.encode(text).ids, stops)

        whole = told(events)
        assert bytes_of(whole) == text_of(events).encode()
        assert [one.logprob for one in whole] == [-float(number) for number in range(len(whole))]
        assert all(event.text for event in events)


def test_who_does_not_ask_is_told_nothing(bytewise: Tokenizer) -> None:
    events: list[Any] = []
    output = TextOutput(
        SimpleNamespace(publish=events.append),  # type: ignore[arg-type]  # as above
        bytewise,
        prompt_tokens=1,
        max_tokens=9,
        eos={END},
        stops=[],
    )
    output.put(0)
    output.finish()

    assert [event.logprobs for event in events] == [None]
