"""The fields of a request, and what the engine makes of them."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from contract.problems import ProblemError
from contract.texts.sampling import Sampling
from predictor.engine.generation import Completion
from predictor.engine.tasks import TextTask
from predictor.text.transformers_engine import TransformersEngine

pytestmark = pytest.mark.slow


async def write(engine: TransformersEngine, prompt: str = "moon", **sampling: Any) -> Completion:
    asked = {"max_tokens": 20, "seed": 3, "temperature": 1.0} | sampling
    task = TextTask(prompt, Sampling(**{name: value for name, value in asked.items() if value is not None}))
    return await (await engine.submit(task)).complete()


async def test_top_k_and_min_p_take_the_place_of_the_models_own(
    loaded: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, greedy = (await write(loaded)).text, (await write(loaded, temperature=0.0)).text
    assert plain != greedy
    assert (await write(loaded, top_k=1)).text == (await write(loaded, min_p=1.0)).text == greedy

    defaults = loaded.core.checkpoint.model.generation_config
    monkeypatch.setattr(defaults, "top_k", 1)
    monkeypatch.setattr(defaults, "min_p", 1.0)
    assert (await write(loaded)).text == greedy
    for top_k in (0, -1, 2**31 - 1):
        assert (await write(loaded, top_k=top_k, min_p=0.0)).text == plain


async def test_one_of_them_alone_has_the_text_sampled(
    loaded: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded.core.checkpoint.model.generation_config, "do_sample", False)
    greedy = (await write(loaded, temperature=None)).text

    assert (await write(loaded, temperature=None, top_k=0)).text != greedy


async def test_the_repetition_penalty_takes_the_place_of_the_models_own(
    loaded: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = (await write(loaded)).text
    penalized = (await write(loaded, repetition_penalty=8.0)).text
    assert penalized != plain

    monkeypatch.setattr(loaded.core.checkpoint.model.generation_config, "repetition_penalty", 8.0)
    assert (await write(loaded)).text == penalized
    assert (await write(loaded, repetition_penalty=1.0)).text == plain


async def test_openais_penalties_and_biases_change_the_text(loaded: TransformersEngine) -> None:
    fields: list[dict[str, Any]] = [
        {},
        {"frequency_penalty": 2.0},
        {"presence_penalty": -2.0},
        {"logit_bias": {str(token): 5.0 for token in range(9, 12)}},
    ]
    texts = {(await write(loaded, temperature=0.0, max_tokens=60, **each)).text for each in fields}

    assert len(texts) == len(fields)


async def test_a_bias_of_what_is_no_token_is_refused_by_name(loaded: TransformersEngine) -> None:
    vocabulary = loaded.core.checkpoint.model.config.vocab_size
    with pytest.raises(ProblemError) as refused:
        await write(loaded, logit_bias={"5": 1.0, str(vocabulary): 1.0, "999999999": -1.0})

    assert [error.field for error in refused.value.problem.errors or ()] == [
        f"logit_bias.{vocabulary}",
        "logit_bias.999999999",
    ]
    assert f"0 to {vocabulary - 1}" in str(refused.value)
    await write(loaded, logit_bias={str(vocabulary - 1): 1.0})


async def test_log_probabilities_are_of_all_of_the_text(loaded: TransformersEngine) -> None:
    completion = await write(loaded, top_logprobs=4)

    assert completion.logprobs is not None
    assert all(len(one.top_logprobs) == 4 for one in completion.logprobs)
    whole = b"".join(bytes(one.bytes) for one in completion.logprobs)
    assert whole.decode(errors="replace").rstrip("\N{REPLACEMENT CHARACTER}") == completion.text
    assert (await write(loaded)).logprobs is None
    assert (await write(loaded)).text == completion.text


async def test_the_same_seed_writes_the_same_text_with_any_of_them_alone_and_in_a_batch(start_engine: Any) -> None:
    engine = await start_engine(max_concurrency=6, max_waiting=100)
    chance = random.Random(0)
    fields: list[dict[str, Any]] = [
        {},
        {"top_k": 7},
        {"min_p": 0.1},
        {"repetition_penalty": 1.4},
        {"frequency_penalty": 0.8},
        {"presence_penalty": -1.0},
        {"logit_bias": {"5": 3.0, "9": -100.0}},
        {"top_logprobs": 3},
    ]
    asked = [
        {name: value for one in chance.sample(fields, 3) for name, value in one.items()} | {"seed": seed}
        for seed in range(18)
    ]

    alone = [(await write(engine, **each)).text for each in asked]
    together = await asyncio.gather(*(write(engine, **each) for each in asked))

    assert [one.text for one in together] == alone
