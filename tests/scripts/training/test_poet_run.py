"""The poet's training: a stopped run continues as if it had not been stopped, and growing changes no output."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from scripts.training.poet.model import grow
from scripts.training.poet.optimizers import Muon, orthogonalise
from scripts.training.poet.run import Batch, Run, learning_rate

STEPS = 6


def tiny_model() -> LlamaForCausalLM:
    torch.manual_seed(1)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=16,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=16,
            tie_word_embeddings=True,
            initializer_range=0.2,
        )
    )


class RandomBatches:
    """Two batches a step from a seed. Stops the run after `stop` steps, as a signal would."""

    def __init__(self, stop: int | None = None) -> None:
        self._random = torch.Generator().manual_seed(5)
        self._stop = stop

    def batches(self) -> Iterator[Batch]:
        if self._stop == 0:
            raise KeyboardInterrupt
        if self._stop is not None:
            self._stop -= 1
        for width in (5, 8):
            ids = torch.randint(16, (3, width), generator=self._random)
            yield ids, ids.roll(-1, 1)


def run(model: LlamaForCausalLM, checkpoint: Path) -> Run:
    return Run(model, peak=0.01, steps=STEPS, checkpoint=checkpoint, save_seconds=0)


def test_a_stopped_run_ends_with_the_weights_of_one_that_was_not(tmp_path: Path) -> None:
    whole = tiny_model()
    run(whole, tmp_path / "whole.pt").fit(RandomBatches(), compiled=False)
    stopped = run(tiny_model(), tmp_path / "stopped.pt")
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(RandomBatches(stop=3), compiled=False)

    continued = run(tiny_model(), tmp_path / "stopped.pt")
    assert continued.step == 3
    continued.fit(RandomBatches(), compiled=False)

    assert continued.step == STEPS
    assert continued.seen == STEPS * 3 * (5 + 8)
    for name, weights in whole.state_dict().items():
        assert torch.equal(weights, continued.model.state_dict()[name]), name
    assert not list(tmp_path.glob("*.partial"))


def test_the_learning_rate_rises_to_its_peak_and_ends_near_zero() -> None:
    rates = [learning_rate(step, 1000, 0.01) for step in range(1000)]
    assert max(rates) == 0.01
    assert 0 < rates[0] < 0.001
    assert 0 < rates[-1] < 0.0001


def test_a_grown_model_computes_the_same_and_its_new_layers_learn() -> None:
    small = tiny_model()
    ids = torch.arange(12).reshape(2, 6)
    grown = grow(small, 4)
    assert grown.config.num_hidden_layers == 4
    torch.testing.assert_close(grown(ids).logits, small(ids).logits)
    grown(ids, labels=ids).loss.backward()
    assert grown.model.layers[1].mlp.down_proj.weight.grad.abs().sum() > 0


def test_growing_needs_a_multiple_of_the_layers() -> None:
    with pytest.raises(ValueError, match="multiple of 2, not 3"):
        grow(tiny_model(), 3)


def test_muon_steps_like_that_of_torch() -> None:
    torch.manual_seed(2)
    start = [torch.randn(8, 20), torch.randn(8, 20), torch.randn(20, 8)]
    ours = [torch.nn.Parameter(matrix.clone()) for matrix in start]
    theirs = [torch.nn.Parameter(matrix.clone()) for matrix in start]
    optimizers = [
        Muon(ours, lr=0.1),
        torch.optim.Muon(theirs, lr=0.1, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    ]
    for _ in range(3):
        for mine, reference in zip(ours, theirs, strict=True):
            mine.grad = torch.randn_like(mine)
            reference.grad = mine.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference, atol=0.02, rtol=0)  # theirs rounds to bfloat16


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    torch.manual_seed(3)
    for shape in ((2, 8, 20), (2, 20, 8)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
        assert values.min() > 0.5
        assert values.max() < 1.5
