"""Texts of a random model that are held to a structure, in the running batch."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.problems import ProblemError
from contract.request import TextPrompt
from predictor.engine.engine_settings import EngineSettings
from predictor.engine.events import Token
from predictor.engine.generation import Completion
from predictor.engine.tasks import Lark, Structure, TextTask
from predictor.protocols.conversation import text_task
from predictor.text.output.reasoning import ReasoningTags
from predictor.text.structure.compiler import StructureCompiler
from predictor.text.structure.constraint import StructureConstraint
from predictor.text.transformers_engine import TransformersEngine
from tests.support.engine_cores import held
from tests.support.texts.schemas import is_json_of, random_schema
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def eight(tiny_model: Path) -> Iterator[TransformersEngine]:
    """Eight slots, and more places in the queue than a test needs."""
    engine = TransformersEngine(EngineSettings(model=str(tiny_model), max_concurrency=8, max_waiting=2_000))
    engine.load(lambda _phase: None)
    yield engine
    assert engine.alive, "the engine survived every test"
    engine.close()


def task(**fields: Any) -> TextTask:
    defaults = {"prompt": "moon", "max_tokens": 200, "temperature": 1.0, "seed": 1}
    return text_task(TextPrompt.model_validate(defaults | fields))


def schema_format(schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, **more}}


async def write(engine: TransformersEngine, **fields: Any) -> Completion:
    return await (await engine.submit(task(**fields))).complete()


@pytest.mark.parametrize("count", [60, pytest.param(1_000, marks=pytest.mark.nightly)])
async def test_texts_of_random_schemas_parse_and_fulfil_them(eight: TransformersEngine, count: int) -> None:
    schemas = [random_schema(seed) for seed in range(count)]

    at_once = asyncio.Semaphore(32)

    async def text_of(seed: int, schema: dict[str, Any]) -> Completion:
        async with at_once:
            return await write(eight, seed=seed, response_format=schema_format(schema, strict=seed % 2 == 0))

    texts = await asyncio.gather(*(text_of(seed, schema) for seed, schema in enumerate(schemas)))

    whole = [(text, schema) for text, schema in zip(texts, schemas, strict=True) if text.end.finish_reason == "stop"]
    assert len(whole) > 0.9 * count  # the others have come to max_tokens
    for text, schema in whole:
        assert is_json_of(text.text, schema), text


async def test_the_same_seed_writes_the_same_text_alone_and_beside_others(eight: TransformersEngine) -> None:
    structures: list[dict[str, Any]] = [
        {"response_format": schema_format(random_schema(7))},
        {"guided_regex": "[a-z ]{5,30}"},
        {"guided_choice": ["hello", "hello moon", "sun"]},
        {},
    ]
    asked = [{"seed": seed, "max_tokens": 40, **structures[seed % 4]} for seed in range(16)]
    alone = [await write(eight, **one) for one in asked]

    together = await asyncio.gather(*(write(eight, **one) for one in asked))

    assert [(one.text, one.end) for one in together] == [(one.text, one.end) for one in alone]


async def test_a_regular_expression_and_a_choice(eight: TransformersEngine) -> None:
    for seed in range(8):
        matched = await write(eight, seed=seed, guided_regex=r"\d{3}-(hello|moon) ?月{1,2}")
        assert re.fullmatch(r"\d{3}-(hello|moon) ?月{1,2}", matched.text)
        assert matched.end.finish_reason == "stop"
    chosen = {(await write(eight, seed=seed, guided_choice=["yes", "no"])).text for seed in range(8)}
    assert chosen == {"yes", "no"}


async def test_a_text_ends_with_its_structure(eight: TransformersEngine) -> None:
    """Without a token for the end: nothing else could follow."""
    completion = await write(eight, guided_choice=["hello"], temperature=0, max_tokens=5)

    tokens = len(eight.core.checkpoint.tokenizer("hello")["input_ids"])
    assert completion.text == "hello"
    assert completion.end.finish_reason == "stop"
    assert tokens <= completion.end.completion_tokens <= 5


async def test_max_tokens_and_stop_sequences_still_end_it(eight: TransformersEngine) -> None:
    cut = await write(eight, guided_regex="a{50}", max_tokens=3)
    assert (cut.text, cut.end.finish_reason) == ("aaa", "length")

    stopped = await write(eight, guided_regex="a{5}b{5}", stop=["bb"])
    assert (stopped.text, stopped.end.finish_reason) == ("aaaaa", "stop")


async def test_an_object_of_any_kind(eight: TransformersEngine) -> None:
    texts = [await write(eight, seed=seed, response_format={"type": "json_object"}) for seed in range(12)]

    whole = [json.loads(text.text) for text in texts if text.end.finish_reason == "stop"]
    assert whole
    assert all(isinstance(value, dict) for value in whole)


@pytest.mark.parametrize("begun", [True, False])
async def test_only_the_answer_is_held_to_it(
    eight: TransformersEngine, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    """Letters in the place of tags: a random model would hardly come to the end of its reasoning."""
    tags = ReasoningTags("(", "o", begun=begun)
    monkeypatch.setattr("predictor.text.checkpoint.reasoning_tags", lambda *_: tags)
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "additionalProperties": False}

    texts = [await write(eight, seed=seed, response_format=schema_format(schema)) for seed in range(16)]

    whole = [text for text in texts if text.end.finish_reason == "stop"]
    assert whole
    assert all(is_json_of(text.text, schema) for text in whole)
    assert all(not text.text for text in texts if text not in whole)  # it was cut while it reasoned
    assert {bool(text.reasoning) for text in texts} == ({True} if begun else {True, False})
    # No reasoning is free of its end.
    assert not any("o" in text.reasoning for text in texts)


def _first(engine: TransformersEngine, text: str) -> int:
    number: int = engine.core.checkpoint.tokenizer(text)["input_ids"][0]
    return number


async def test_rules_of_a_task(eight: TransformersEngine) -> None:
    rules = 'answer: "<call>" call "</call>"\ncall: %json {"type": "boolean"}'
    asked = TextTask("moon", task(max_tokens=30).sampling, structure=Structure(Lark(rules), "tools"))

    completion = await (await eight.submit(asked)).complete()

    assert re.fullmatch("<call>(true|false)</call>", completion.text)


@pytest.mark.parametrize("member", ["guided_regex", "response_format.json_schema.schema"])
async def test_what_cannot_be_compiled_is_refused_before_it_waits(eight: TransformersEngine, member: str) -> None:
    structure = {"guided_regex": "("} if member == "guided_regex" else {"response_format": schema_format({"not": {}})}

    with pytest.raises(ProblemError) as caught:
        await eight.submit(task(**structure))

    assert [error.field for error in caught.value.problem.errors or ()] == [member]
    assert caught.value.kind.status == 400


async def test_a_structure_that_fails_in_the_text_ends_that_text_alone(
    eight: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [{"seed": seed, "max_tokens": 60} for seed in range(4)]
    alone = [(await write(eight, **one)).text for one in others]
    accept = StructureConstraint.accept
    accepted: list[int] = []

    def failing(self: StructureConstraint, token: int) -> None:
        accepted.append(token)
        accept(self, token if len(accepted) < 5 else _first(eight, "!"))

    monkeypatch.setattr(StructureConstraint, "accept", failing)
    failed = asyncio.ensure_future(write(eight, guided_regex="[a-z]{100}"))
    together = await asyncio.gather(*(write(eight, **one) for one in others))

    with pytest.raises(ProblemError, match=r"^guided_regex: the text cannot go on") as caught:
        await failed
    assert caught.value.kind.status == 400
    assert len(accepted) == 5
    assert [text.text for text in together] == alone


async def test_words_that_the_vocabulary_lacks_end_the_text(
    eight: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the embedded poet's lacks most letters."""
    from predictor.text.structure import compiler
    from predictor.text.structure.vocabulary import Vocabulary, vocabulary

    def without_q(*arguments: Any) -> Vocabulary:
        known = vocabulary(*arguments)
        tokens = [b"\xff" + token if b"q" in token else token for token in known.tokens]
        return Vocabulary(tokens, known.ends)

    monkeypatch.setattr(compiler, "vocabulary", without_q)
    monkeypatch.setattr(eight.core, "structures", StructureCompiler(eight.core.checkpoint))

    with pytest.raises(ProblemError, match=r"^guided_choice: the text cannot go on"):
        await write(eight, guided_choice=["aaaaq", "aaaa"[:3] + "q"])
    with pytest.raises(ProblemError, match=r"^guided_choice: allows nothing that the model's vocabulary can write$"):
        await write(eight, guided_choice=["q"])
    eight.core.structures.close()


async def test_a_step_that_is_tried_again_takes_its_token_once(
    eight: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [{"seed": seed, "response_format": schema_format(random_schema(seed))} for seed in (3, 4, 5)]
    alone = [(await write(eight, **one)).text for one in asked]
    model = eight.core.checkpoint.model
    forward = model.forward
    calls: list[None] = []

    def failing(*arguments: Any, **more: Any) -> Any:
        calls.append(None)
        found = forward(*arguments, **more)
        if len(calls) in (3, 6):
            raise ValueError("a device that fails once")
        return found

    monkeypatch.setattr(model, "forward", failing)
    together = await asyncio.gather(*(write(eight, **one) for one in asked))

    assert len(calls) > 6
    assert [text.text for text in together] == alone


async def test_who_leaves_frees_the_slot(eight: TransformersEngine) -> None:
    with held(eight.core, after=3):
        generation = await eight.submit(task(guided_regex="[a-z]{150}"))
        async for event in generation:
            if isinstance(event, Token):
                break
        generation.close()

    await eventually(lambda: eight.core.idle)
    assert (await write(eight, guided_choice=["hello"])).text == "hello"


async def test_a_model_without_an_end_ends_where_nothing_may_follow(
    eight: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = eight.core.checkpoint
    monkeypatch.setitem(vars(checkpoint), "end_tokens", frozenset())
    monkeypatch.setattr(eight.core, "structures", StructureCompiler(checkpoint))

    texts = [await write(eight, seed=seed, guided_choice=["hello", "moon"]) for seed in range(4)]
    schema = random_schema(1)
    texts_of_schema = [await write(eight, seed=seed, response_format=schema_format(schema)) for seed in range(2)]

    assert {text.text for text in texts} <= {"hello", "moon"}
    assert all(text.end.finish_reason == "stop" for text in texts)
    assert all(is_json_of(text.text, schema) for text in texts_of_schema if text.end.finish_reason == "stop")
    eight.core.structures.close()
