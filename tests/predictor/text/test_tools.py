"""Functions offered to a real engine with a random model: what it calls is held to its format and schema."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contract.problems import ProblemError
from contract.request import TextPrompt
from contract.texts.tools import ToolCall
from predictor.engine.engine_settings import EngineSettings
from predictor.engine.generation import Completion
from predictor.protocols.conversation import text_task
from predictor.text.transformers_engine import TransformersEngine
from tests.support.texts.tool_model import RAIN, TEMPLATE, TRIP, save_tool_model, tool

StartEngine = Callable[..., Awaitable[TransformersEngine]]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TransformersEngine]:
    folder = save_tool_model(tmp_path_factory.mktemp("tools"))
    engine = TransformersEngine(EngineSettings(model=str(folder), max_length=2048))
    engine.load(lambda _phase: None)
    yield engine
    engine.close()


async def write(engine: TransformersEngine, **fields: Any) -> Completion:
    asked = {"prompt": "moon", "tools": [TRIP, RAIN], "seed": 1, "temperature": 1.0, "max_tokens": 200} | fields
    return await (await engine.submit(text_task(TextPrompt.model_validate(asked)))).complete()


@contextmanager
def leaning(engine: TransformersEngine, token: str) -> Iterator[None]:
    """The model writes this token wherever it may."""
    checkpoint = engine.core.checkpoint
    number = checkpoint.tokenizer.convert_tokens_to_ids(token)

    def lean(_module: Any, _inputs: Any, logits: Any) -> Any:
        logits[..., number] += 100.0
        return logits

    hook = checkpoint.model.get_output_embeddings().register_forward_hook(lean)
    try:
        yield
    finally:
        hook.remove()


def check(call: ToolCall) -> None:
    arguments = json.loads(call.function.arguments)
    assert arguments.pop("city") in ("杭州", "苏州")
    if call.function.name == "trip":
        assert arguments.pop("days") in range(1, 10)
    assert (call.function.name in ("trip", "rain"), arguments) == (True, {})


@pytest.mark.parametrize("seed", range(8))
async def test_what_is_required_is_called(engine: TransformersEngine, seed: int) -> None:
    completion = await write(engine, tool_choice="required", parallel_tool_calls=False, seed=seed)

    [call] = completion.tool_calls
    check(call)
    assert (completion.text, completion.end.finish_reason) == ("", "tool_calls")


async def test_the_named_function_is_called(engine: TransformersEngine) -> None:
    for name in ("trip", "rain"):
        choice = {"type": "function", "function": {"name": name}}
        completion = await write(engine, tool_choice=choice)

        assert [call.function.name for call in completion.tool_calls] == [name]


async def test_several_calls_at_once(engine: TransformersEngine) -> None:
    found = [await write(engine, tool_choice="required", seed=seed) for seed in range(8)]

    assert max(len(completion.tool_calls) for completion in found) > 1
    for completion in found:
        if completion.end.finish_reason == "tool_calls":
            for call in completion.tool_calls:
                check(call)
        assert len({call.id for call in completion.tool_calls}) == len(completion.tool_calls)


async def test_a_text_that_may_call_writes_words_or_calls(engine: TransformersEngine) -> None:
    found = [await write(engine, seed=seed, max_tokens=400) for seed in range(12)]

    assert any(completion.text for completion in found)
    for completion in found:
        assert "<tool_call>" not in completion.text
        if completion.end.finish_reason == "tool_calls":
            for call in completion.tool_calls:
                check(call)


async def test_a_call_that_has_begun_is_held_to_its_schema(engine: TransformersEngine) -> None:
    with leaning(engine, "<tool_call>"):
        [call] = (await write(engine, parallel_tool_calls=False)).tool_calls

    check(call)


async def test_log_probabilities_are_those_of_the_words(engine: TransformersEngine) -> None:
    """None of calls, whose tokens are no text of the answer."""
    called = await write(engine, tool_choice="required", parallel_tool_calls=False, top_logprobs=0)
    assert (called.tool_calls != (), called.logprobs) == (True, None)

    for seed in range(6):
        found = await write(engine, seed=seed, max_tokens=60, top_logprobs=0)
        told = b"".join(bytes(one.bytes) for one in found.logprobs or ())
        assert told.decode(errors="replace").startswith(found.text)


async def test_the_same_seed_gives_the_same_ids(engine: TransformersEngine) -> None:
    first, again, other = [
        await write(engine, tool_choice="required", parallel_tool_calls=False, seed=seed) for seed in (1, 1, 2)
    ]

    assert first.tool_calls == again.tool_calls
    assert first.tool_calls[0].id != other.tool_calls[0].id


async def test_arguments_that_are_cut_have_the_length_as_their_reason(engine: TransformersEngine) -> None:
    completion = await write(engine, tool_choice="required", tools=[tool("any", text={"type": "string"})])

    [call] = completion.tool_calls
    assert call.function.arguments.startswith('{"text": "')
    assert completion.end.finish_reason == "length"


async def test_a_function_without_parameters_takes_an_object(engine: TransformersEngine) -> None:
    tools = [{"type": "function", "function": {"name": "ping"}}]
    completion = await write(engine, tool_choice="required", parallel_tool_calls=False, tools=tools)

    assert completion.tool_calls[0].function.arguments.startswith("{")


async def test_tools_that_may_not_be_called_are_not_told(engine: TransformersEngine) -> None:
    plain, none = await write(engine, tools=None), await write(engine, tool_choice="none")

    assert none.end.prompt_tokens == plain.end.prompt_tokens
    assert none.text == plain.text


async def test_a_schema_that_cannot_be_held_to_is_refused(engine: TransformersEngine) -> None:
    for bad in ({"type": "string", "format": "no-such-format"}, {"type": "number", "multipleOf": 1000003}):
        for choice in ("auto", {"type": "function", "function": {"name": "f"}}):
            with pytest.raises(ProblemError, match=r"^tools\.1\.function\.parameters: "):
                await write(engine, tools=[RAIN, tool("f", x=bad), TRIP], tool_choice=choice)


async def test_special_tokens_as_tags(start_engine: StartEngine, tmp_path: Path) -> None:
    engine = await start_engine(save_tool_model(tmp_path, special=True), max_length=2048)

    for choice in ("required", "auto"):
        with leaning(engine, "<tool_call>"):
            completion = await write(engine, tool_choice=choice, parallel_tool_calls=False)
        check(completion.tool_calls[0])


async def test_plain_json_is_a_call_where_the_template_says_so(start_engine: StartEngine, tmp_path: Path) -> None:
    """Llama 3's, which takes one call in a turn."""
    template = TEMPLATE.replace("<tool_call>\n", "").replace("\n</tool_call>", "").replace('arguments"', 'parameters"')
    template = template.replace("{%- for c", "{{- raise_exception('one') if (m.tool_calls or [])[1:] }}{%- for c")
    engine = await start_engine(save_tool_model(tmp_path, template=template), max_length=2048)

    [call] = (await write(engine, tool_choice="required")).tool_calls
    check(call)
    with leaning(engine, "{"):
        [call] = (await write(engine)).tool_calls
    check(call)


@pytest.mark.parametrize(
    ("template", "detail"),
    [
        (None, "are not taken by this model: its chat template has no place for them"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "are not taken by this model"),
        ("{{ tools }}{% for m in messages %}{{ m.content }}{% endfor %}", "writes calls in a format that is not read"),
    ],
)
async def test_a_model_that_takes_none_says_so(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch, template: str | None, detail: str
) -> None:
    checkpoint = replace(engine.core.checkpoint)  # which has seen no template yet
    monkeypatch.setattr(checkpoint.tokenizer, "chat_template", template)
    offered = text_task(TextPrompt.model_validate({"prompt": "moon", "tools": [TRIP]}))
    none = text_task(TextPrompt.model_validate({"prompt": "moon", "tools": [TRIP], "tool_choice": "none"}))

    with pytest.raises(ProblemError) as refused:
        checkpoint.encode(offered.prompt, tools=offered.tools)
    assert str(refused.value).startswith("tools: ")
    assert detail in str(refused.value)
    assert checkpoint.encode(none.prompt, tools=none.tools).tools is None
