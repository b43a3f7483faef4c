"""A start that meets a device which its predecessor still holds, or that fails for a moment."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import predictor.text.batch_check
import predictor.text.capacity
from predictor.engine.batched import RETRY_SECONDS
from predictor.engine.engine_settings import EngineSettings
from predictor.errors import ModelError
from predictor.plan_command import print_plan
from predictor.text.batch import TextBatch
from predictor.text.batch_check import why_not_batched
from predictor.text.single_text_batch import SoloBatch
from predictor.text.transformers_engine import TransformersEngine

pytestmark = pytest.mark.slow

FAILURES: list[Callable[[], Exception]] = [
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has …"),
    lambda: torch.AcceleratorError("CUDA error: unspecified launch failure"),
    lambda: RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(…)`"),
    lambda: RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
    lambda: MemoryError(),
]


MODEL = SimpleNamespace(config=SimpleNamespace(get_text_config=SimpleNamespace))


@pytest.fixture(autouse=True)
def little_garbage() -> Iterator[None]:
    """Collecting it takes long with all that is imported, and is done after each failure."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What a start has slept between its attempts, had it not been for the test."""
    slept: list[float] = []
    monkeypatch.setattr("predictor.engine.batched.time", SimpleNamespace(sleep=slept.append))
    return slept


def failing(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, *errors: Exception) -> list[Exception]:
    """Let the first calls of a function raise these; those that it has not raised yet."""
    left = list(errors)
    function = getattr(owner, name)

    def fails(*args: Any, **kwargs: Any) -> Any:
        if left:
            raise left.pop(0)
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, fails)
    return left


@pytest.fixture
def engine(tiny_model: Path) -> Iterator[TransformersEngine]:
    engine = TransformersEngine(EngineSettings(model=str(tiny_model), max_concurrency=3))
    yield engine
    engine.close()


@pytest.mark.parametrize("failure", FAILURES)
def test_a_device_that_fails_during_the_check_is_no_verdict(
    monkeypatch: pytest.MonkeyPatch, failure: Callable[[], Exception]
) -> None:
    error = failure()
    failing(monkeypatch, predictor.text.batch_check, "_distance_in_batch", error)

    with pytest.raises(type(error)) as raised:
        why_not_batched(MODEL)

    assert raised.value is error


@pytest.mark.parametrize("error", [TypeError("no position_ids"), ValueError("a mask"), RuntimeError("shapes differ")])
def test_what_an_architecture_raises_is_a_verdict(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    failing(monkeypatch, predictor.text.batch_check, "_distance_in_batch", error)

    assert why_not_batched(MODEL) == str(error)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (predictor.text.batch_check, "_distance_in_batch"),
        (predictor.text.capacity, "measure_cost"),
        (TextBatch, "step"),  # that of the check, then that of the warm-up
        (torch.nn.Module, "to"),
    ],
)
@pytest.mark.parametrize("failures", [1, 2])
def test_a_start_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    engine: TransformersEngine,
    owner: Any,
    name: str,
    failures: int,
) -> None:
    left = failing(monkeypatch, owner, name, *(make() for make in FAILURES[:failures]))

    engine.load(lambda _phase: None)

    assert left == []
    assert not isinstance(engine.core.batch, SoloBatch)
    assert engine.core.batch.slots == 3
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == failures
    assert warnings[0].endswith("CUDA out of memory. Tried to allocate 2.00 GiB.")


def test_a_warm_up_without_memory_is_tried_again(monkeypatch: pytest.MonkeyPatch, engine: TransformersEngine) -> None:
    monkeypatch.setattr("predictor.text.batch_check.why_not_batched", lambda *_: None)
    left = failing(monkeypatch, TextBatch, "step", FAILURES[0]())

    engine.load(lambda _phase: None)

    assert left == []
    assert engine.alive


def test_a_device_that_goes_on_failing_ends_the_start_in_one_line(
    monkeypatch: pytest.MonkeyPatch, engine: TransformersEngine, pauses: list[float]
) -> None:
    failing(monkeypatch, predictor.text.batch_check, "_distance_in_batch", *(FAILURES[0]() for _ in range(9)))

    with pytest.raises(ModelError) as failed:
        engine.load(lambda _phase: None)

    assert str(failed.value) == (
        f"cannot load {engine.settings.model}: the device failed 3 times, the last time with: "
        "CUDA out of memory. Tried to allocate 2.00 GiB."
    )
    assert not engine.alive
    assert pauses == [RETRY_SECONDS, RETRY_SECONDS]


def test_nothing_is_kept_of_an_attempt_that_failed(monkeypatch: pytest.MonkeyPatch, engine: TransformersEngine) -> None:
    models: list[weakref.ref[Any]] = []
    distance = predictor.text.batch_check._distance_in_batch

    def fails_first(model: Any) -> Any:
        assert [each for each in models if each() is not None] == []
        models.append(weakref.ref(model))
        if len(models) == 1:
            raise FAILURES[0]()
        return distance(model)

    monkeypatch.setattr(predictor.text.batch_check, "_distance_in_batch", fails_first)

    engine.load(lambda _phase: None)

    assert len(models) == 2


def test_a_plan_says_in_one_line_that_the_device_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_model: Path
) -> None:
    failing(monkeypatch, predictor.text.batch_check, "_distance_in_batch", FAILURES[0]())

    assert print_plan(["--model", str(tiny_model)]) == 1

    assert capsys.readouterr().err == "predictor: CUDA out of memory. Tried to allocate 2.00 GiB.\n"


class _Gpu:
    """One of 24 GiB, of which others hold so many in turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *held: float) -> None:
        self.held = list(held)
        self.seconds = 0.0
        monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
        monkeypatch.setattr("torch.cuda.memory_reserved", lambda _device: 4 * 2**30)
        monkeypatch.setattr("torch.cuda.mem_get_info", self.memory)
        monkeypatch.setattr("predictor.engine.memory.memory_pressure.time.monotonic", lambda: self.seconds)
        monkeypatch.setattr("predictor.engine.memory.memory_pressure.time.sleep", self.sleep)

    def memory(self, _device: Any) -> tuple[int, int]:
        held = self.held.pop(0) if len(self.held) > 1 else self.held[0]
        return int((20 - held) * 2**30), 24 * 2**30

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.mark.parametrize(
    ("held", "wanted", "waits"),
    [
        ([0], None, (0, 0)),
        ([2], None, (0, 0)),  # within the margin that stays free anyway
        ([12, 12, 8, 1], None, (0.5, 1)),  # the predecessor goes
        ([12, 8], None, (3, 4)),  # somebody stays
        ([12], 12 * 2**30, (0, 0)),  # and leaves what was promised
        ([14, 13, 11], 13 * 2**30, (0.25, 1)),
        ([20 - step / 10 for step in range(150)] + [5], None, (29, 31)),  # for ever a little less
    ],
)
def test_a_start_waits_while_others_give_memory_back(
    monkeypatch: pytest.MonkeyPatch, held: list[float], wanted: int | None, waits: tuple[float, float]
) -> None:
    from predictor.engine.memory.memory_pressure import wait_for_memory

    gpu = _Gpu(monkeypatch, *held)

    wait_for_memory(wanted)

    assert waits[0] <= gpu.seconds <= waits[1]


def test_slots_are_measured_when_others_have_given_their_memory_back(
    monkeypatch: pytest.MonkeyPatch, engine: TransformersEngine
) -> None:
    waited: list[Any] = []
    monkeypatch.setattr("predictor.engine.memory.memory_pressure.wait_for_memory", lambda *args: waited.append(args))

    engine.load(lambda _phase: None)

    assert waited == [(None, torch.device("cpu"))]
