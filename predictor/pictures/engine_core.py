"""Pictures of a loaded pipeline: from a task to the rows in the batch, and their events."""

from __future__ import annotations

import asyncio
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from contract.limits import PROMPT_CHARS
from contract.models.description import ModelDescription
from contract.problems import ProblemError, invalid_field
from contract.request import Painting
from predictor.engine.engine_core import EngineCore
from predictor.engine.events import PictureFinished, Preview, Progress
from predictor.engine.generation import Generation
from predictor.engine.scheduled_task import ScheduledTask
from predictor.engine.tasks import PictureTask
from predictor.loading.fingerprint import fingerprint
from predictor.pictures.batch import PictureBatch, PictureRow
from predictor.pictures.inputs.source import read_source
from predictor.pictures.latent_preview import LatentPreview
from predictor.pictures.parameters import DiffusionParameters, SourcePicture
from predictor.pictures.pipeline import Pipeline

WARM_UP_STEPS = 4
"""Denoising steps of the first picture: readiness waits for it."""

_decoding = ThreadPoolExecutor(1, "decoding")


@dataclass(slots=True, eq=False, kw_only=True)
class ScheduledPicture(ScheduledTask):
    """One picture of a request; `work` is in pixels times steps."""

    parameters: DiffusionParameters
    number: int
    previews: int

    @property
    def cost(self) -> float:
        """In denoising steps of a megapixel."""
        return self.work / 1_000_000


class PictureEngineCore(EngineCore):
    """Each picture of a request is a scheduled task of its own: they may run side by side, or one after the other."""

    batch: PictureBatch

    def __init__(self, pipeline: Pipeline, slots: int, max_waiting: int, preview: LatentPreview | None = None) -> None:
        super().__init__(PictureBatch(pipeline, slots), max_waiting)
        self.pipeline = pipeline
        self.preview = preview or LatentPreview(pipeline.pipe)

    @property
    def device(self) -> torch.device:
        return self.pipeline.device

    async def warm_up(self) -> None:
        """One picture of few steps, from which previews are learned, too."""
        await (await self.submit(PictureTask("a", Painting(seed=0, steps=WARM_UP_STEPS)))).pictures()

    def make_probe(self) -> PictureRow:
        return PictureRow(self.pipeline.parameters("a", seed=0, steps=WARM_UP_STEPS), lambda _step, _latents: None)

    async def submit(self, task: Any) -> Generation:
        assert isinstance(task, PictureTask)
        asked = task.painting
        for field, prompt in (("prompt", task.prompt), ("negative_prompt", asked.negative_prompt or "")):
            if (
                len(prompt) > PROMPT_CHARS
            ):  # a pipeline cuts off what its text encoder has no room for, and never refuses
                raise invalid_field(field, f"may have at most {PROMPT_CHARS} characters where a picture is made")
        deadline = None if task.seconds is None else time.monotonic() + task.seconds
        source = await self._source(asked)
        count = asked.n or 1
        if count > self.max_scheduled:  # waiting would not help
            raise invalid_field("n", f"this server has {self.max_scheduled} places in all")
        first_seed = secrets.randbits(32) if asked.seed is None else asked.seed
        pictures = [
            self.pipeline.parameters(
                task.prompt,
                seed=(first_seed + number) % 2**63,
                size=asked.size,
                source=source,
                strength=asked.strength,
                steps=asked.steps,
                guidance=asked.guidance,
                negative_prompt=asked.negative_prompt,
            )
            for number in range(count)
        ]
        generation = Generation(parts=count)
        for number, parameters in enumerate(pictures):
            work = parameters.width * parameters.height * parameters.taken_steps
            picture = ScheduledPicture(
                generation, work, deadline, task.caller, parameters=parameters, number=number, previews=task.previews
            )
            try:
                self.admission.admit(picture)
            except ProblemError:
                generation.close()  # all or none: those that were admitted are removed from the queue
                raise
        return generation

    async def _source(self, asked: Painting) -> SourcePicture | None:
        """The picture that a request begins with, decoded on a thread of its own, one at a time: a large one takes
        some 200 MB meanwhile. Raises a ProblemError that names the field which is wrong."""
        if asked.image is None:
            return None
        self.pipeline.from_source(masked=asked.mask is not None)  # raises where it cannot
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(_decoding, read_source, asked, self.pipeline.sizes)

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint({"denoiser": self.pipeline.denoiser, **self.pipeline.models}, **self.pipeline.facts)

    @property
    def description(self) -> ModelDescription:
        return self.pipeline.description

    def make_row(self, task: ScheduledPicture) -> tuple[PictureRow, PictureOutput]:
        output = PictureOutput(task, self.preview, self.pipeline.understood(task.parameters.prompt))
        return output.row, output


class PictureOutput:
    """Publishes the steps, the previews and the end of one picture."""

    def __init__(self, task: ScheduledPicture, preview: LatentPreview, understood: list[str] | None) -> None:
        self.row = PictureRow(task.parameters, self._on_step)
        self._task = task
        self._preview = preview
        self._understood = understood
        steps, previews = task.parameters.taken_steps, task.previews
        self._previewed_at = {round(steps * number / (previews + 1)) for number in range(1, previews + 1)} - {0, steps}
        self._published_step = 0
        self._latents: torch.Tensor | None = None

    def _on_step(self, step: int, latents: torch.Tensor) -> None:
        parameters, generation = self._task.parameters, self._task.generation
        self._latents = latents
        if step <= self._published_step:  # a picture that starts again after a failed step must not appear to go back
            return
        self._published_step = step
        generation.publish(Progress(self._task.number, step, parameters.taken_steps))
        if step in self._previewed_at:
            image = self._preview.draw(latents, (parameters.width, parameters.height))
            if image is not None:
                generation.publish(Preview(self._task.number, step, image))

    def finish(self) -> PictureFinished:
        parameters, picture = self._task.parameters, self.row.picture
        assert picture is not None
        assert self._latents is not None
        if not self._preview.learned:  # only from the warm-up: previews must not depend on the requests of others
            self._preview.learn(self._latents, picture)
        return PictureFinished(self._task.number, picture, parameters.seed, parameters.taken_steps, self._understood)
