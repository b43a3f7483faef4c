"""Engine cores around tiny models, for tests that look at each step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING, Any
from unittest import mock

from contract.request import Painting
from contract.texts.sampling import Sampling
from predictor.engine.admission_queue import Admission
from predictor.engine.engine_core import EngineCore
from predictor.engine.generation import Generation
from predictor.engine.scheduled_task import ScheduledTask, SchedulerSnapshot
from predictor.engine.tasks import PictureTask
from tests.support.waiting import SECONDS, eventually

if TYPE_CHECKING:
    from predictor.engine.scheduler import Scheduler
    from predictor.pictures.pipeline import Pipeline
    from predictor.text.checkpoint import Checkpoint


@contextmanager
def held(core: EngineCore, after: int = 0) -> Iterator[None]:
    """The core does no more than `after` steps until the end of the `with`."""
    gate, batch = Event(), core.batch
    step = batch.step
    steps: list[None] = []

    def stepping() -> Any:
        steps.append(None)
        assert len(steps) <= after or gate.wait(SECONDS)
        return step()

    batch.step = stepping  # type: ignore[method-assign]
    try:
        yield
    finally:
        gate.set()
        batch.step = step  # type: ignore[method-assign]


@contextmanager
def recorded_tokens() -> Iterator[list[int]]:
    """The ids of all tokens that are written meanwhile."""
    from predictor.text.output.text_output import TextOutput

    ids: list[int] = []
    put = TextOutput.put

    def recording(self: TextOutput, token: int) -> bool:
        ids.append(token)
        return put(self, token)

    with mock.patch.object(TextOutput, "put", recording):
        yield ids


class _Harness:
    core: EngineCore

    @property
    def admission(self) -> Admission:
        return self.core.admission

    @property
    def scheduler(self) -> Scheduler:
        return self.core.scheduler

    @property
    def snapshot(self) -> SchedulerSnapshot:
        return self.scheduler.snapshot()

    @property
    def idle(self) -> bool:
        """Nothing is left of any task."""
        return self.core.idle

    async def until_idle(self) -> None:
        await eventually(lambda: self.idle)

    def start(self) -> None:
        self.scheduler.start()


class TextHarness(_Harness):
    """A core around a tiny model, without a warm-up. Nothing is written before `start`."""

    def __init__(self, checkpoint: Checkpoint, slots: int, max_waiting: int) -> None:
        from predictor.text.batch import TextBatch
        from predictor.text.engine_core import TextEngineCore

        self.batch = TextBatch(checkpoint.model, slots, 256)
        self.core = TextEngineCore(checkpoint, self.batch, max_waiting)

    def submit(self, prompt: str = "moon", **sampling: Any) -> ScheduledTask:
        """A text of 12 tokens, which hardly ends before."""
        from predictor.text.checkpoint import EncodedPrompt
        from predictor.text.engine_core import ScheduledText

        asked = Sampling(**{"max_tokens": 12, "seed": 1, "temperature": 1.0} | sampling)
        encoded = EncodedPrompt(list(prompt.encode()), None)
        task = ScheduledText(Generation(), asked.max_tokens or 1, prompt=encoded, sampling=asked)
        self.admission.admit(task)
        return task


class PictureHarness(_Harness):
    """A core around a copy of a tiny pipeline, without a warm-up. Nothing is painted before `start`.

    `forwards` has the rows of each call of the denoiser; guidance makes two of a picture. `before_forward` are called
    with the rows, `inspect_forward` with the arguments of each.
    """

    def __init__(self, pipeline: Pipeline, slots: int, max_waiting: int) -> None:
        from predictor.pictures.engine_core import PictureEngineCore

        self.pipeline = copy.deepcopy(pipeline)
        self.forwards: list[int] = []
        self.before_forward: list[Callable[[int], None]] = []
        self.inspect_forward: list[Callable[..., None]] = []
        forward: Callable[..., Any] = self.pipeline.denoiser.forward

        def spy(*arguments: Any, **more: Any) -> Any:
            rows = len(arguments[0] if arguments else more["hidden_states"])
            for call in self.before_forward:
                call(rows)
            for inspect in self.inspect_forward:
                inspect(*arguments, **more)
            self.forwards.append(rows)
            return forward(*arguments, **more)

        self.pipeline.denoiser.forward = spy
        self.core = PictureEngineCore(self.pipeline, slots, max_waiting)

    async def submit(
        self, prompt: str = "a cat", *, previews: int = 0, seconds: float | None = None, **painting: Any
    ) -> Generation:
        asked = Painting(**{"seed": 1} | painting)
        return await self.core.submit(PictureTask(prompt, asked, previews, seconds))
