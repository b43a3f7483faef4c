"""What a step moves between the host and the device, and what waits for the device. Each of it stops a GPU."""

from __future__ import annotations

import copy
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from predictor.text.batch import TextBatch
from predictor.text.row import TextRow
from predictor.text.sampling.row_sampling import RowSampling

pytestmark = pytest.mark.slow

VOCABULARY = 2_000  # more than the candidates
LENGTH = 64
READS = ("item", "tolist", "cpu", "numpy", "__int__", "__float__", "__bool__", "__index__")
UPLOADS = ("tensor", "as_tensor", "from_numpy", "asarray", "scalar_tensor")

GREEDY, SAMPLING = {"temperature": 0.0}, {"temperature": 1.0, "top_k": 50, "top_p": 0.9}
PENALIZED = {"temperature": 0.8, "top_k": 50, "repetition_penalty": 1.2}
BATCHES: dict[str, list[dict[str, Any]]] = {
    "greedy": [GREEDY] * 3,
    "sampling": [SAMPLING, {"temperature": 0.5, "top_k": 5}],
    "penalized": [PENALIZED, {**GREEDY, "repetition_penalty": 1.3}],
    "counted": [{**SAMPLING, "frequency_penalty": 0.5}, {**SAMPLING, "presence_penalty": 0.5, "logit_bias": {5: 2.0}}],
    "mixed": [GREEDY, SAMPLING, PENALIZED, GREEDY],
}


@pytest.fixture(scope="module")
def llama() -> Any:
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=LENGTH,
        initializer_range=0.3,
    )
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def join_rows(batch: TextBatch, samplings: list[dict[str, Any]]) -> list[TextRow]:
    rows = []
    for seed, sampling in enumerate(samplings):
        chance = random.Random(seed)
        plain = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}
        prompt = [chance.randrange(VOCABULARY) for _ in range(3 + seed)]
        rows.append(TextRow(prompt, RowSampling(**{**plain, **sampling}, random=chance), lambda _: False))
        batch.join(rows[-1])
    return rows


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Counts reads of tensors by anybody, and what our own code makes tensors of or moves to a device.

    On a CPU the model's own `to` is a change of type or nothing, so it does not count here.
    """
    counts: Counter[str] = Counter()

    def spy(owner: Any, name: str, only_ours: bool) -> None:
        method: Callable[..., Any] = getattr(owner, name)

        def spying(*arguments: Any, **named: Any) -> Any:
            caller = sys._getframe(1).f_globals.get("__name__", "")
            if not only_ours or caller.startswith("predictor."):
                counts[name] += 1
            return method(*arguments, **named)

        patch.setattr(owner, name, spying)

    with monkeypatch.context() as patch:
        for name in READS:
            spy(torch.Tensor, name, only_ours=False)
        for name in ("to", "cuda", "copy_"):
            spy(torch.Tensor, name, only_ours=True)
        for name in UPLOADS:
            spy(torch, name, only_ours=True)
        # A CPU has ways of its own, which copy nothing.
        patch.setattr("predictor.text.sampling.token_choice.likeliest", lambda logits: logits.argmax(-1))
        patch.setattr("predictor.text.sampling.token_choice.largest", torch.topk)
        yield counts


@pytest.mark.parametrize("kind", BATCHES)
def test_a_step_of_the_same_rows_moves_no_more_than_random_numbers_there_and_tokens_back(
    llama: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    batch = TextBatch(llama, slots=16, length=LENGTH)
    rows = join_rows(batch, BATCHES[kind])
    batch.step()
    batch.step()
    steps = 20
    with counted(monkeypatch) as counts:
        for _ in range(steps):
            batch.step()

    assert all(len(row.tokens) == 3 + number + steps + 2 for number, row in enumerate(rows))
    assert counts == {"tolist": steps} | ({} if kind == "greedy" else {"tensor": steps})


def test_a_row_that_its_candidates_do_not_decide_costs_three_small_copies_more(
    llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = TextBatch(llama, slots=16, length=LENGTH)
    join_rows(batch, [{"temperature": 1e6, "top_p": 0.9}, GREEDY])  # all tokens are about as likely
    batch.step()
    batch.step()
    with counted(monkeypatch) as counts:
        batch.step()

    assert counts == {"tolist": 2, "tensor": 3}


@pytest.mark.parametrize("kind", BATCHES)
def test_nothing_in_a_forward_and_a_choice_waits_for_the_device(llama: Any, kind: str) -> None:
    """On torch's device without data, where reading any value raises. Nor does the model copy anything to it."""
    copies: list[str] = []

    class Copies(TorchDispatchMode):  # type: ignore[misc]  # torch is not typed
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = func(*args, **(kwargs or {}))
            tensors = [each for each in (*args, made) if isinstance(each, torch.Tensor) and each.dim()]
            if len({tensor.device.type for tensor in tensors}) > 1:
                copies.append(str(func))
            return made

    batch = TextBatch(copy.deepcopy(llama).to("meta"), slots=16, length=LENGTH)
    join_rows(batch, BATCHES[kind])
    with torch.inference_mode():
        rows, _ = batch._compute()
        batch._take(rows, [1] * len(rows))
        batch._compute()
        with Copies():
            for _ in range(5):
                batch._take(rows, [1] * len(rows))
                _, choice = batch._compute()

    assert choice is not None
    with pytest.raises(NotImplementedError):
        choice.read()
    assert copies == []


def test_a_row_that_asks_for_log_probabilities_costs_two_small_copies_more(
    llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = TextBatch(llama, slots=16, length=LENGTH)
    join_rows(batch, [{**SAMPLING, "top_logprobs": 3}, GREEDY])
    batch.step()
    batch.step()
    with counted(monkeypatch) as counts:
        batch.step()

    assert counts == {"tolist": 3, "tensor": 1}


def test_a_row_that_joins_or_leaves_costs_a_few_copies_once(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = TextBatch(llama, slots=16, length=LENGTH)
    first, *_ = join_rows(batch, BATCHES["mixed"])
    batch.step()
    with counted(monkeypatch) as counts:
        batch.step()
        batch.remove(first)
        batch.step()

    assert counts["tensor"] <= 8, "places, parameters, which rows sample, random numbers; twice"
    assert counts["tolist"] == 2
