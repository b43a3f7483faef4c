"""The real engine on a tiny random model."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.problems import ProblemError
from contract.request import GenerationRequest
from contract.texts.sampling import Sampling
from predictor.engine.engine_settings import EngineSettings
from predictor.engine.events import Started, TextFinished, Token
from predictor.engine.generation import Completion
from predictor.engine.tasks import Message, TextTask
from predictor.errors import ModelError
from predictor.text.output.reasoning import ReasoningTags
from predictor.text.transformers_engine import TransformersEngine
from tests.support.engine_cores import recorded_tokens

pytestmark = pytest.mark.slow


async def write(engine: TransformersEngine, prompt: str | tuple[Message, ...] = "moon", **sampling: Any) -> Completion:
    return await (await engine.submit(TextTask(prompt, Sampling(**{"max_tokens": 20} | sampling)))).complete()


def chat(*contents: str, role: str = "user") -> tuple[Message, ...]:
    return tuple(Message(role=role, content=content) for content in contents)


async def spoken(engine: TransformersEngine, **sampling: Any) -> tuple[list[str], list[int], TextFinished]:
    """The pieces of a generation, and the token ids they came from."""
    with recorded_tokens() as ids:
        generation = await engine.submit(TextTask("moon", Sampling(**sampling)))
        events = [event async for event in generation]
    first, *pieces, last = events
    assert isinstance(first, Started)
    assert isinstance(last, TextFinished)
    assert all(isinstance(piece, Token) and piece.text for piece in pieces)
    return [piece.text for piece in pieces if isinstance(piece, Token)], ids, last


async def test_the_same_seed_writes_the_same_text(loaded: TransformersEngine) -> None:
    first = await write(loaded, seed=7, temperature=1.0)
    await write(loaded, seed=8, temperature=1.0)

    assert (await write(loaded, seed=7, temperature=1.0)).text == first.text


async def test_different_seeds_and_none_write_different_texts(loaded: TransformersEngine) -> None:
    texts = [(await write(loaded, seed=seed, temperature=1.0)).text for seed in range(5)]
    texts += [(await write(loaded, temperature=1.0)).text for _ in range(2)]

    assert len(set(texts)) == 7


@pytest.mark.parametrize("seed", [0, 2**63 - 1])
async def test_the_smallest_and_the_largest_seed_work(loaded: TransformersEngine, seed: int) -> None:
    assert (await write(loaded, seed=seed)).end.completion_tokens > 0


async def test_at_temperature_0_the_seed_does_not_matter(loaded: TransformersEngine) -> None:
    texts = {(await write(loaded, seed=seed, temperature=0.0)).text for seed in range(3)}

    assert len(texts) == 1


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 1e-300},
        {"temperature": 1e-40},
        {"temperature": 1e-5},
        {"temperature": 2.0},
        {"top_p": 1e-300},
        {"top_p": 1.0},
        {"temperature": 0.0, "top_p": 0.5},
        {"temperature": 1e-40, "top_p": 1e-40},
    ],
)
async def test_every_allowed_sampling_works_and_transformers_warns_of_nothing(
    loaded: TransformersEngine, transformers_log: pytest.LogCaptureFixture, sampling: Any
) -> None:
    assert (await write(loaded, **sampling)).end.completion_tokens > 0
    assert transformers_log.text == ""


async def test_a_prompt_of_kserve_that_is_too_long_is_called_so(loaded: TransformersEngine) -> None:
    from predictor.protocols.kserve_text import TextModel

    task = TextModel("poet", loaded).task(GenerationRequest(prompt="x" * 300))

    with pytest.raises(ProblemError, match=r"^prompt: has \d+ tokens; a context of 256 is served"):
        await loaded.submit(task)


@pytest.fixture
def transformers_log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Its warnings, which it keeps to itself and the engine silences while it loads."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_warning()
    logging.enable_propagation()
    yield caplog
    logging.disable_propagation()
    logging.set_verbosity(verbosity)


@pytest.mark.parametrize("limit", [1, 2, 17])
async def test_max_tokens_is_exact(loaded: TransformersEngine, limit: int) -> None:
    completion = await write(loaded, max_tokens=limit, temperature=0.0)

    assert completion.end.finish_reason == "length"
    assert completion.end.completion_tokens == limit


async def test_without_max_tokens_the_context_is_the_limit(loaded: TransformersEngine) -> None:
    completion = await write(loaded, max_tokens=None, temperature=0.0)

    assert completion.end.prompt_tokens + completion.end.completion_tokens == loaded.core.length


async def test_the_end_of_sequence_token_stops(loaded: TransformersEngine) -> None:
    ends = [(await write(loaded, seed=seed, max_tokens=250, temperature=2.0)).end for seed in range(20)]

    stopped = [end for end in ends if end.finish_reason == "stop"]
    assert stopped, "a random model ends by chance"
    assert all(end.completion_tokens < 250 for end in stopped)


async def test_pieces_joined_are_what_the_tokens_decode_to(loaded: TransformersEngine) -> None:
    for seed in range(10):
        pieces, ids, end = await spoken(loaded, seed=seed, temperature=2.0, max_tokens=100)

        text = loaded.core.checkpoint.tokenizer.decode(ids, skip_special_tokens=True)
        assert "".join(pieces) == text.rstrip("\N{REPLACEMENT CHARACTER}")
        assert end.completion_tokens == len(ids)


async def test_a_stop_sequence_over_token_boundaries_ends_the_text_before_it(loaded: TransformersEngine) -> None:
    pieces, _, end = await spoken(loaded, seed=1, temperature=1.0, max_tokens=60)
    text = "".join(pieces)
    middle = len("".join(pieces[: len(pieces) // 2]))
    stop = text[middle - 2 : middle + 2]

    completion = await write(loaded, seed=1, temperature=1.0, max_tokens=60, stop=[stop])

    assert completion.text == text[: text.index(stop)]
    assert completion.end.finish_reason == "stop"
    assert completion.end.completion_tokens < end.completion_tokens


async def test_a_stop_sequence_that_never_comes_changes_nothing(loaded: TransformersEngine) -> None:
    plain = await write(loaded, seed=1, temperature=1.0)

    stopping = await write(loaded, seed=1, temperature=1.0, stop=["\0\0\0", plain.text + "!"])

    assert stopping.text == plain.text


async def test_a_prompt_over_the_context_is_refused_by_its_length(loaded: TransformersEngine) -> None:
    with pytest.raises(ProblemError) as refused:
        await write(loaded, "x" * 300)

    assert refused.value.kind.status == 400
    assert str(refused.value) == "prompt: has 300 tokens; a context of 256 is served, the answer included"
    assert [error.code for error in refused.value.problem.errors or ()] == ["context_length_exceeded"]
    with pytest.raises(ProblemError, match="messages: has 300 tokens"):
        await write(loaded, chat("x" * 300))


async def test_a_prompt_of_any_length_is_refused_by_its_tokens(loaded: TransformersEngine) -> None:
    with pytest.raises(ProblemError, match=r"prompt: has \d+ tokens"):
        await write(loaded, "诗" * 100_000)


async def test_the_context_alone_limits_max_tokens(loaded: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    admitted: list[Any] = []
    monkeypatch.setattr(loaded.core, "length", 100_000)
    monkeypatch.setattr(loaded.core.admission, "admit", admitted.append)
    for wanted in (5_000, 99_000, 10**30):
        await loaded.submit(TextTask("x" * 2_000, Sampling(max_tokens=wanted)))
    assert [task.work for task in admitted] == [5_000, 98_000, 98_000]


async def test_a_prompt_that_leaves_room_for_one_token_gets_one(loaded: TransformersEngine) -> None:
    completion = await write(loaded, "x" * 255, temperature=0.0)

    assert completion.end == TextFinished("length", 255, 1)


@pytest.mark.parametrize(
    "prompt", ["床前明月光", "\U0001f319\u200d\U0001f468", "e\u0301", "\0", "\ufffd", "</s>", "<s>" * 9]
)
async def test_any_text_is_a_prompt(loaded: TransformersEngine, prompt: str) -> None:
    assert (await write(loaded, prompt)).end.prompt_tokens > 0


async def test_without_a_chat_template_the_turns_are_lines(loaded: TransformersEngine) -> None:
    together = await write(loaded, chat("hello", "moon"), seed=1)

    assert together == await same_but_queue(loaded, "hello\nmoon", together, seed=1)


async def same_but_queue(engine: TransformersEngine, prompt: str, as_queued: Completion, **sampling: Any) -> Completion:
    completion = await write(engine, prompt, **sampling)
    return Completion(completion.text, as_queued.queue_s, completion.end, completion.first_token_at)


async def test_a_chat_template_writes_the_prompt(loaded: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    )
    monkeypatch.setattr(loaded.core.checkpoint.tokenizer, "chat_template", template)

    templated = await write(loaded, chat("moon"), seed=1)

    assert templated == await same_but_queue(loaded, "[user]moon>", templated, seed=1)


async def test_a_chat_template_that_refuses_is_a_problem_of_the_messages(
    loaded: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}moon"
    monkeypatch.setattr(loaded.core.checkpoint.tokenizer, "chat_template", template)

    with pytest.raises(ProblemError) as refused:
        await write(loaded, chat("Be brief.", role="system"))

    assert refused.value.kind.status == 400
    assert str(refused.value) == "messages: the model's chat template refuses this: System role not supported"
    assert (await write(loaded, chat("moon"))).end.completion_tokens > 0


async def test_a_chat_template_that_breaks_is_a_problem_of_the_messages(
    loaded: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded.core.checkpoint.tokenizer, "chat_template", "{{ messages[0].content + 1 }}")

    with pytest.raises(ProblemError, match=r"^messages: the model's chat template refuses this: ") as refused:
        await write(loaded, chat("moon"))

    assert refused.value.kind.status == 400


QWEN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n"
    "</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{{ extra }}"
)
"""As Qwen3's, in short."""
QWEN_THINKS = QWEN.replace("{% endif %}{{ extra }}", "{% else %}<think>\n{% endif %}")
"""As that of Qwen3's later versions, which begin the reasoning themselves."""
MOON = "<|im_start|>user\nmoon<|im_end|>\n<|im_start|>assistant\n"
SILENT = f"{MOON}<think>\n\n</think>\n\n"


@pytest.mark.parametrize(
    ("default", "task", "prompt"),
    [
        (False, {}, SILENT),
        (False, {"thinking": True}, MOON),
        (True, {}, MOON),
        (True, {"thinking": False}, SILENT),
        (False, {"thinking": True, "template": {"enable_thinking": True, "extra": "!"}}, f"{MOON}!"),
    ],
)
async def test_a_model_reasons_where_the_task_or_else_the_deployment_says_so(
    text_harness: Any, monkeypatch: pytest.MonkeyPatch, default: bool, task: dict[str, Any], prompt: str
) -> None:
    core = text_harness().core
    monkeypatch.setattr(core, "_enable_thinking", default)
    monkeypatch.setattr(core.checkpoint.tokenizer, "chat_template", QWEN)
    admitted: list[Any] = []
    monkeypatch.setattr(core.admission, "admit", admitted.append)

    await core.submit(TextTask(chat("moon"), Sampling(), **task))

    [scheduled] = admitted
    assert core.checkpoint.tokenizer.decode(scheduled.prompt.ids) == prompt
    assert scheduled.prompt.reasoning == ReasoningTags("<think>", "</think>")


async def test_a_model_that_reasons_for_ever_has_no_answer(
    loaded: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded.core.checkpoint.tokenizer, "chat_template", QWEN_THINKS)

    for thinking in (False, True):
        task = TextTask(chat("moon"), Sampling(max_tokens=20, seed=1, temperature=1.0), thinking=thinking)
        completion = await (await loaded.submit(task)).complete()
        said, thought = completion.text, completion.reasoning
        assert (bool(said), bool(thought)) == (not thinking, thinking)
        assert completion.end.finish_reason == "length"


async def test_a_plain_text_is_continued_with_its_tags(
    loaded: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded.core.checkpoint.tokenizer, "chat_template", QWEN_THINKS)

    completion = await write(loaded, "moon <think>", seed=1, temperature=1.0)

    assert completion.text
    assert not completion.reasoning


CALL: Message = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "id": "1", "function": {"name": "rain", "arguments": {"city": "x"}}}],
}
ANSWER: Message = {"role": "tool", "content": "wet", "tool_call_id": "1"}


async def test_turns_of_tools_go_through_a_template_that_knows_them(
    loaded: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% for c in m.tool_calls or [] %}"
        "{{ c.function.name }}({{ c.function.arguments.city }}){% endfor %}{% endfor %}"
    )
    monkeypatch.setattr(loaded.core.checkpoint.tokenizer, "chat_template", template)

    templated = await write(loaded, (*chat("moon"), CALL, ANSWER), seed=1)

    assert templated == await same_but_queue(loaded, "[user]moon[assistant]rain(x)[tool]wet", templated, seed=1)


@pytest.mark.parametrize("template", [None, "{% for m in messages %}{{ m.content }}{% endfor %}"])
async def test_turns_of_tools_that_a_template_would_leave_out_are_refused(
    loaded: TransformersEngine, monkeypatch: pytest.MonkeyPatch, template: str | None
) -> None:
    monkeypatch.setattr(loaded.core.checkpoint.tokenizer, "chat_template", template)

    for turn in (CALL, ANSWER):
        with pytest.raises(ProblemError, match=r"^messages: may hold no turns of tools"):
            await write(loaded, (*chat("moon"), turn))


def test_loading_names_its_phases(tiny_model: Path) -> None:
    phases: list[str] = []
    engine = TransformersEngine(EngineSettings(model=str(tiny_model)))
    assert not engine.alive

    engine.load(phases.append)

    assert phases == [
        "importing torch",
        "importing transformers",
        "loading the tokenizer",
        "loading the weights",
        "checking the batch",
        "measuring slots",
        "warming up",
    ]
    assert engine.alive
    assert not engine.strained
    engine.close()


LEAN_COMPILED = """
import sys

from predictor.text.batch import TextBatch
from predictor.text.checkpoint import load_checkpoint
from predictor.text.transformers_engine import compile_decoding

checkpoint = load_checkpoint(sys.argv[1], "cpu", "auto", lambda phase: None)  # with lean imports
batch = TextBatch(checkpoint.model, slots=4, length=64)
compile_decoding(batch, sys.argv[2])

import random
import torch
from predictor.text.row import TextRow
from predictor.text.sampling.row_sampling import RowSampling

def write(model):
    batch.decode_model = model
    rows = []
    for length in (3, 9, 4):
        sampling = RowSampling.greedy()
        rows.append(TextRow(list(range(length)), sampling, lambda _: False))
        batch.join(rows[-1])
        for _ in range(6):
            batch.step()
    for row in rows:
        batch.remove(row)
    return [row.tokens for row in rows]

compiled = batch.decode_model
assert isinstance(compiled, torch._dynamo.OptimizedModule)
assert write(compiled) == write(checkpoint.model)
assert torch._dynamo.utils.counters["frames"]["ok"] > 0, "the decode step was compiled"
print("the same tokens")
"""


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.nightly)])
def test_a_compiled_decode_step_writes_the_same_after_a_start_with_lean_imports(tiny_model: Path, backend: str) -> None:
    if backend == "inductor" and not shutil.which("g++"):
        pytest.skip("needs a C++ compiler")

    done = subprocess.run(
        [sys.executable, "-c", LEAN_COMPILED, str(tiny_model), backend], capture_output=True, text=True, timeout=600
    )

    assert done.stdout == "the same tokens\n", done.stderr


def test_compiling_without_a_compiler_says_so_in_a_line(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    engine = TransformersEngine(EngineSettings(model=str(tiny_model), compile=True))

    with pytest.raises(ModelError, match=r"^--compile needs a C\+\+ compiler, and there is no no-such-compiler$"):
        engine.load(lambda _phase: None)
