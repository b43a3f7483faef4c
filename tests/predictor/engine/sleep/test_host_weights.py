"""Weights go to the host and come back as they were. Here the host's memory stands for the device's, too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from predictor.engine.sleep import host_weights
from predictor.engine.sleep.host_weights import HostWeights


class Tied(torch.nn.Module):  # type: ignore[misc]  # torch is not typed
    """Two names of one parameter, a buffer, and a view of part of a parameter as another one."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(5, 3)
        self.head = torch.nn.Linear(3, 5)
        self.head.weight = self.embedding.weight
        self.register_buffer("scale", torch.arange(3.0, dtype=torch.bfloat16))
        self.part = torch.nn.Parameter(self.embedding.weight.data[1:3].T)
        self.nothing = torch.nn.Parameter(torch.empty(0, 4))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        numbers: torch.Tensor = self.head(self.embedding(ids) * self.scale)
        return numbers + self.part.sum()


@pytest.fixture(autouse=True)
def _host_is_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_weights, "on_device", lambda _tensor: True)


@pytest.fixture
def model() -> Tied:
    torch.manual_seed(0)
    return Tied()


def address(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage().data_ptr())


def test_they_lie_elsewhere_meanwhile_and_compute_the_same_afterwards(model: Tied) -> None:
    ids = torch.tensor([0, 4, 2])
    expected, before = model(ids), address(model.head.weight)
    parameters = dict(model.named_parameters())
    weights = HostWeights()

    weights.offload([model])
    on_host = address(model.head.weight)
    assert on_host != before
    weights.restore()

    assert address(model.head.weight) not in (before, on_host)
    assert torch.equal(model(ids), expected)
    now = dict(model.named_parameters())
    assert all(now[name] is parameter for name, parameter in parameters.items()), "hooks and compiled code know them"


def test_what_shared_memory_shares_it_still(model: Tied) -> None:
    weights = HostWeights()
    for _ in range(2):
        weights.offload([model])
        assert address(model.part) == address(model.head.weight)
        weights.restore()

    assert model.head.weight is model.embedding.weight
    assert model.part.stride() == (1, 3)
    with torch.no_grad():
        model.embedding.weight[1, 0] = 7
    assert model.part[0, 0] == 7


def test_the_hosts_memory_is_taken_once(model: Tied) -> None:
    weights = HostWeights()
    places = []
    for _ in range(3):
        weights.offload([model])
        places.append((address(model.head.weight), address(model.scale)))
        weights.restore()

    assert len(set(places)) == 1


def test_numbers_that_changed_while_awake_are_kept(model: Tied) -> None:
    weights = HostWeights()
    weights.offload([model])
    weights.restore()
    model.scale.fill_(2)

    weights.offload([model])
    weights.restore()

    assert model.scale.tolist() == [2, 2, 2]


def test_to_offload_or_restore_twice_changes_nothing(model: Tied) -> None:
    weights = HostWeights()
    weights.offload([model])
    where = address(model.head.weight)
    weights.offload([model])
    assert address(model.head.weight) == where
    weights.restore()
    where = address(model.head.weight)
    weights.restore()
    assert address(model.head.weight) == where


@pytest.mark.parametrize("work", ["offload", "restore"])
def test_want_of_memory_changes_nothing_and_it_can_be_tried_again(
    model: Tied, work: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = torch.tensor([1])
    expected = model(ids)
    weights = HostWeights()
    if work == "restore":
        weights.offload([model])
    places = [address(tensor) for tensor in (model.embedding.weight, model.part, model.scale, model.head.bias)]
    empty = torch.empty
    left = [2]

    def scarce(*size: Any, **options: Any) -> Any:
        if size != (0,):
            left[0] -= 1
            if left[0] < 0:
                raise torch.OutOfMemoryError("out of memory")
        return empty(*size, **options)

    with monkeypatch.context() as scarcity:
        scarcity.setattr(torch, "empty", scarce)
        with pytest.raises(torch.OutOfMemoryError):
            weights.offload([model]) if work == "offload" else weights.restore()

    assert [address(tensor) for tensor in (model.embedding.weight, model.part, model.scale, model.head.bias)] == places
    weights.offload([model])
    weights.restore()
    assert torch.equal(model(ids), expected)


def test_the_parts_of_a_quantized_tensor_are_moved() -> None:
    class Quantized(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.weight = Parts()

        def parameters(self, recurse: bool = True) -> Iterator[Any]:
            yield self.weight

        def buffers(self, recurse: bool = True) -> Iterator[Any]:
            yield from ()

    class Parts:
        def __init__(self) -> None:
            self.numbers, self.scales = torch.ones(4, dtype=torch.int8), torch.ones(2)

        def __tensor_flatten__(self) -> tuple[list[str], None]:
            return ["numbers", "scales"], None

    model = Quantized()
    before = [address(model.weight.numbers), address(model.weight.scales)]
    weights = HostWeights()

    weights.offload([model])

    assert not {address(model.weight.numbers), address(model.weight.scales)} & set(before)


def test_what_is_on_the_host_stays_there(model: Tied, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    where = address(model.head.weight)

    HostWeights().offload([model])

    assert address(model.head.weight) == where
