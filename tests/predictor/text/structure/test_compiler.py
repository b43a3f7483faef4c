"""Compiled structures: what is refused and how it is named, what is kept, and what bounds the work."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from contract import problems
from contract.problems import ProblemError
from contract.request import TextPrompt
from predictor.engine.tasks import Choice, JsonSchema, Regex, Structure
from predictor.protocols.structure import structure_of
from predictor.text.structure import compiler as compiling
from predictor.text.structure.compiler import StructureCompiler
from tests.predictor.text.structure.test_vocabulary import byte_level
from tests.support.waiting import SECONDS, eventually

SCHEMA = "response_format.json_schema.schema"
SOON = compiling.COMPILE_SECONDS / 2
"""Seconds of computing, which are as many on a machine that does other things besides."""


class BytesCheckpoint:
    """What is asked of a checkpoint: a byte-level tokenizer with one end."""

    end_tokens = frozenset({259})

    def __init__(self) -> None:
        self.tokenizer = SimpleNamespace(backend_tokenizer=byte_level())
        self.model = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: SimpleNamespace(vocab_size=261)))


@pytest.fixture
def compiler() -> Iterator[StructureCompiler]:
    checkpoint: Any = BytesCheckpoint()
    made = StructureCompiler(checkpoint)
    yield made
    made.close()


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The grammars that are compiled."""
    grammars: list[str] = []
    compile = StructureCompiler.compile_grammar

    def recording(self: StructureCompiler, grammar: str) -> Any:
        grammars.append(grammar)
        return compile(self, grammar)

    monkeypatch.setattr(StructureCompiler, "compile_grammar", recording)
    return grammars


def number_of(letter: str) -> int:
    number = byte_level().token_to_id(letter)
    assert number is not None
    return number


def schema_of(**schema: Any) -> Structure:
    return Structure(JsonSchema(schema), SCHEMA)


async def refused(compiler: StructureCompiler, structure: Structure) -> str:
    with pytest.raises(ProblemError) as caught:
        await compiler.compile(structure, None)
    assert caught.value.kind is problems.INVALID_FIELD
    [error] = caught.value.problem.errors or []
    assert error.field == structure.field
    assert "\n" not in error.detail
    assert len(error.detail) < 300
    return error.detail


@pytest.mark.parametrize(
    ("schema", "detail"),
    [
        ({"not": {"type": "string"}}, "has a keyword that is not supported: not"),
        (
            {"properties": {"a": {"items": {"uniqueItems": True, "contains": {}}}}},
            "has keywords that are not supported: contains, uniqueItems",
        ),
        ({"if": {}, "then": {}}, "has keywords that are not supported: if, then"),
        ({"$ref": "#/$defs/none"}, "has a $ref that leads nowhere: /$defs/none"),
        (
            {"$ref": "https://example.com/schema.json"},
            "may name only schemas within itself by $ref, and standard ones; not https://example.com/schema.json",
        ),
        ({"$ref": "file:///etc/hostname"}, "may name only schemas within itself by $ref"),
        ({"$ref": "#"}, "allows nothing that the model's vocabulary can write"),
        ({"type": "string", "format": "iri"}, "has a format that is not supported: iri"),
        ({"type": "string", "pattern": "(?=a)b"}, "has a regular expression with what is not supported: look-around"),
        ({"type": "string", "pattern": r"a\b"}, r"has a regular expression with what is not supported: \b"),
        ({"type": "string", "pattern": "("}, "has a regular expression that cannot be read: unclosed group"),
        ({"oneOf": [{}, {"type": "object"}]}, "has a oneOf whose schemas are not told apart; use anyOf"),
        ({"oneOf": [{"const": 1}, {"const": 2}]}, "has a oneOf whose schemas are not told apart; use anyOf"),
        ({"type": "text"}, "cannot be used: Invalid type: text"),
        ({"type": "string", "minLength": "1"}, "cannot be used: Expected positive integer for 'minLength'"),
        ({"enum": []}, "cannot be used: Unsatisfiable schema"),
        (
            {"type": "object", "properties": {"a": False}, "required": ["a"]},
            "cannot be used: Unsatisfiable schema: required property",
        ),
        ({"type": "object", "unevaluatedProperties": False}, "has a keyword that is not supported"),
    ],
)
async def test_a_schema_that_is_not_supported_is_refused_by_its_keyword(
    compiler: StructureCompiler, schema: dict[str, Any], detail: str
) -> None:
    assert (await refused(compiler, schema_of(**schema))).startswith(detail)


def tagged(tag: str) -> dict[str, Any]:
    return {"type": "object", "properties": {"k": {"const": tag}}, "required": ["k"]}


@pytest.mark.parametrize(
    "schemas", [[{"const": "a"}, {"const": "b"}], [{"const": 1}, {"const": "a"}], [tagged("a"), tagged("b")]]
)
async def test_of_schemas_that_exclude_each_other_one_is_taken(
    compiler: StructureCompiler, schemas: list[dict[str, Any]]
) -> None:
    await compiler.compile(schema_of(oneOf=schemas), None)


@pytest.mark.parametrize(
    ("pattern", "detail"),
    [
        ("(?=a)b", "has a regular expression with what is not supported: look-around"),
        (r"(a)\1", "has a regular expression with what is not supported: backreferences are not supported"),
        ("(", "has a regular expression that cannot be read: unclosed group"),
        ("a\\", ""),
        ("[z-a]", "has a regular expression that cannot be read: invalid character class range"),
    ],
)
async def test_a_regular_expression_that_is_not_supported_is_refused(
    compiler: StructureCompiler, pattern: str, detail: str
) -> None:
    assert (await refused(compiler, Structure(Regex(pattern), "guided_regex"))).startswith(detail)


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


BOMBS: dict[str, dict[str, Any]] = {
    "multiple": {"type": "integer", "multipleOf": 1_000_003},
    "multiples": {"allOf": [{"type": "integer", "multipleOf": number} for number in (97, 89, 83)]},
    "decimals": {"type": "number", "multipleOf": 0.1000003},
    "depth": nested(300),
    "optional": {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(2_000)}},
    "alternatives": {
        "anyOf": [{"type": "object", "properties": {"a": {"type": "string", "minLength": n}}} for n in range(800)]
    },
    "products": {"allOf": [{"anyOf": [{"properties": {f"{i}-{j}": {}}} for j in range(6)]} for i in range(8)]},
    "intersections": {"allOf": [{"type": "string", "pattern": f".*{letter}.*"} for letter in "abcdefghijkl"]},
}


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "COMPILE_SECONDS", SECONDS)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("name", BOMBS)
async def test_a_schema_that_would_cost_too_much_is_refused_soon(compiler: StructureCompiler, name: str) -> None:
    await compiler.compile(schema_of(), None)
    begun = time.process_time()

    detail = await refused(compiler, schema_of(**BOMBS[name]))

    assert "cannot be read" not in detail
    assert time.process_time() - begun < SOON


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    "pattern",
    ["(a|aa){1,500}", "([a-z]{1,1000}){1,1000}", "[ab]*a[ab]{18}", r"(\w{1,50},){1,50}", "((((a{9}){9}){9}){9}){9}"],
)
async def test_a_regular_expression_that_is_large_when_it_is_written_out_compiles_soon(
    compiler: StructureCompiler, pattern: str
) -> None:
    begun = time.process_time()

    await compiler.compile(Structure(Regex(pattern), "guided_regex"), None)

    assert time.process_time() - begun < SOON


async def test_a_structure_is_compiled_once(compiler: StructureCompiler, compiled: list[str]) -> None:
    same = {"type": "object", "properties": {"a": {"type": "string"}}}

    together = [compiler.compile(schema_of(**same), None) for _ in range(5)]
    await asyncio.gather(*together, compiler.compile(schema_of(type="string"), None))
    await compiler.compile(schema_of(**same), None)

    assert len(compiled) == 2


async def test_those_that_were_used_last_are_kept(
    compiler: StructureCompiler, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "KEPT", 2)

    for option in "abacab":
        await compiler.compile(Structure(Choice((option,)), "guided_choice"), None)

    assert [grammar.strip()[-2] for grammar in compiled] == ["a", "b", "c", "b"]


async def test_what_is_refused_is_not_kept(compiler: StructureCompiler, compiled: list[str]) -> None:
    for _ in range(2):
        await refused(compiler, schema_of(**{"not": {}}))

    assert len(compiled) == 2


@pytest.fixture
def begun() -> list[str]:
    """The grammars that have a thread, which waits for `held_threads`."""
    return []


@pytest.fixture
def held_threads(monkeypatch: pytest.MonkeyPatch, begun: list[str]) -> Iterator[Event]:
    """Nothing is compiled before it is set."""
    gate = Event()
    compile = StructureCompiler.compile_grammar

    def waiting(self: StructureCompiler, grammar: str) -> Any:
        begun.append(grammar)
        assert gate.wait(SECONDS)
        return compile(self, grammar)

    monkeypatch.setattr(StructureCompiler, "compile_grammar", waiting)
    yield gate
    gate.set()


async def test_only_so_many_are_compiled_at_once(
    compiler: StructureCompiler, held_threads: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "COMPILING", 3)
    work = [asyncio.ensure_future(compiler.compile(schema_of(const=number), None)) for number in range(3)]
    await asyncio.sleep(0)

    with pytest.raises(ProblemError) as caught:
        await compiler.compile(schema_of(const=3), None)

    assert caught.value.kind is problems.OVERLOADED
    assert caught.value.problem.retry_after == 1
    again = asyncio.ensure_future(compiler.compile(schema_of(const=0), None))  # is being compiled already
    held_threads.set()
    await asyncio.gather(*work, again)
    await compiler.compile(schema_of(const=3), None)


async def test_who_waits_too_long_is_refused(
    compiler: StructureCompiler, held_threads: Event, begun: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = asyncio.ensure_future(compiler.compile(schema_of(), None))
    await eventually(lambda: begun, "it has a thread")
    monkeypatch.setattr(compiling, "COMPILE_SECONDS", 0.2)

    assert await refused(compiler, schema_of()) == "takes more than 0.2 s to compile: make it simpler"
    held_threads.set()
    await first


async def test_who_waits_for_others_is_to_come_again_and_finds_it_compiled(
    compiler: StructureCompiler, held_threads: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = [asyncio.ensure_future(compiler.compile(schema_of(const=number), None)) for number in range(2)]
    await asyncio.sleep(0)
    monkeypatch.setattr(compiling, "COMPILE_SECONDS", 0.01)

    with pytest.raises(ProblemError) as caught:
        await compiler.compile(schema_of(const=2), None)

    assert caught.value.kind is problems.OVERLOADED
    assert caught.value.problem.retry_after == 1
    held_threads.set()
    await asyncio.gather(*slow)
    monkeypatch.setattr(compiling, "COMPILE_SECONDS", SECONDS)
    assert (await compiler.compile(schema_of(const=2), None)).begin().is_complete() is False


async def test_who_leaves_does_not_take_it_from_the_others(compiler: StructureCompiler, held_threads: Event) -> None:
    leaves, stays = (asyncio.ensure_future(compiler.compile(schema_of(), None)) for _ in range(2))
    await asyncio.sleep(0)
    leaves.cancel()
    await eventually(leaves.done)
    held_threads.set()

    assert (await stays).begin().is_complete() is False


async def test_after_its_end_nothing_is_compiled(compiler: StructureCompiler) -> None:
    compiler.close()

    with pytest.raises(ProblemError) as caught:
        await compiler.compile(schema_of(), None)

    assert caught.value.kind is problems.UNAVAILABLE


async def test_each_text_has_its_own_place_in_the_structure(compiler: StructureCompiler) -> None:
    structure = await compiler.compile(Structure(Choice(("ab", "cd")), "guided_choice"), None)
    one, other = structure.begin(), structure.begin()

    one.accept(number_of("a"))
    one.accept(number_of("b"))

    assert one.is_complete()
    assert not other.is_complete()
    other.accept(number_of("c"))
    assert torch_bits(other.mask()) == {number_of("d")}
    assert torch_bits(other.mask()) == {number_of("d")}  # it may be asked again


async def test_a_token_that_may_not_come_is_a_problem(compiler: StructureCompiler) -> None:
    text = (await compiler.compile(Structure(Choice(("ab",)), "guided_choice"), None)).begin()

    with pytest.raises(ProblemError, match=r"^guided_choice: the text cannot go on"):
        text.accept(number_of("x"))


def torch_bits(mask: Any) -> set[int]:
    words = mask.tolist()
    return {32 * at + bit for at, word in enumerate(words) for bit in range(32) if word >> bit & 1}


@pytest.mark.parametrize(
    ("fields", "form", "field"),
    [
        ({}, None, None),
        ({"response_format": {"type": "text"}}, None, None),
        ({"response_format": {"type": "json_object"}}, JsonSchema({"type": "object"}), "response_format"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "null"}}}},
            JsonSchema({"type": "null"}),
            SCHEMA,
        ),
        ({"guided_regex": "a+"}, Regex("a+"), "guided_regex"),
        ({"guided_choice": ["a", "b"]}, Choice(("a", "b")), "guided_choice"),
    ],
)
def test_requests_say_what_structure_they_want(fields: dict[str, Any], form: Any, field: str | None) -> None:
    found = structure_of(TextPrompt(prompt="x", **fields))

    assert found == (None if form is None else Structure(form, field or ""))


def test_the_library_is_imported_with_the_first_structure() -> None:
    code = "import sys, predictor.text.engine_core; sys.exit('llguidance' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=SECONDS).returncode == 0
