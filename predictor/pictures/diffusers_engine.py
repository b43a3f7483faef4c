"""Any diffusers text-to-image pipeline, as many pictures at once as fit and as it pays."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from contract.problems import ProblemError, invalid_field
from contract.request import Painting
from predictor.engine.admission import Admission, ScheduledTask
from predictor.engine.batched import BatchedEngine
from predictor.engine.events import PictureFinished, Preview, Progress
from predictor.engine.generation import Generation
from predictor.engine.tasks import PictureTask, Task
from predictor.errors import ModelError

if TYPE_CHECKING:
    import torch

    from predictor.pictures.batch import PictureRow
    from predictor.pictures.latent_preview import LatentPreview
    from predictor.pictures.pipeline import DiffusionParameters

log = logging.getLogger(__name__)

WARM_UP_STEPS = 4
"""Denoising steps of the first picture: readiness waits for it."""


class DiffusersEngine(BatchedEngine):
    """Loads from a folder or a hub id: safetensors only, no remote code. The arguments are those of TransformersEngine,
    and `slots`, where they are known.

    Every picture of a request is a job of its own: its pictures may be made beside others, or one after the other.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str,
        dtype: str,
        max_concurrency: int,
        max_waiting: int,
        memory: int | None = None,
        slots: int | None = None,
    ) -> None:
        self._source = model
        self._device = device
        self._dtype = dtype
        self._max_concurrency = max_concurrency
        self._max_waiting = max_waiting
        self._memory = memory
        self._slots = slots

    # Loading

    def load(self, report: Callable[[str], None]) -> None:
        report("importing torch")
        import torch  # noqa: F401  by far the longest of all imports, and so a phase of its own

        from predictor.loading.device_memory import memory_share
        from predictor.pictures.batch import PictureBatch, PictureScheduler
        from predictor.pictures.latent_preview import LatentPreview
        from predictor.pictures.pipeline import load_pipeline

        self._pipeline = load_pipeline(self._source, self._device, self._dtype, report)
        memory = memory_share(self._pipeline.device, self._memory)
        slots = self._slots or self._measured_slots(memory, report)
        self._sketch = LatentPreview(self._pipeline.pipe)
        self._admission = Admission(slots, self._max_waiting)
        self._cook = PictureScheduler(PictureBatch(self._pipeline, slots), self._admission, self._begin)
        report("warming up")
        self._cook.start()
        asyncio.run(self._warm_up())

    def _measured_slots(self, memory: int, report: Callable[[str], None]) -> int:
        from predictor.pictures.capacity import plan_pictures

        report("measuring slots")
        try:
            plan = plan_pictures(self._pipeline, self._max_concurrency, memory)
        except ModelError:
            raise
        except Exception as error:
            log.debug("the first picture failed", exc_info=True)
            raise ModelError(f"{self._source} cannot make a picture: {type(error).__name__}: {error}") from error
        log.info("%s", plan)
        return plan.slots

    async def _warm_up(self) -> None:
        """One picture of few steps, which is also what the sketch learns from at first."""
        try:
            await (await self.submit(PictureTask("a", Painting(seed=0, steps=WARM_UP_STEPS)))).pictures()
        except ProblemError as error:
            raise ModelError(f"{self._source} cannot generate: {error}") from error

    # Accepting

    async def submit(self, task: Task) -> Generation:
        assert isinstance(task, PictureTask)
        asked = task.painting
        if (asked.n or 1) > self.places:  # waiting would not help
            raise invalid_field("n", f"this server has {self.places} places in all")
        first = secrets.randbits(32) if asked.seed is None else asked.seed
        recipes = [
            self._pipeline.recipe(
                task.prompt,
                seed=(first + number) % 2**63,
                size=asked.size,
                steps=asked.steps,
                guidance=asked.guidance,
                negative_prompt=asked.negative_prompt,
            )
            for number in range(asked.n or 1)
        ]
        deadline = None if task.seconds is None else time.monotonic() + task.seconds
        generation = Generation(parts=len(recipes))
        for number, recipe in enumerate(recipes):
            work = recipe.width * recipe.height * recipe.steps
            job = ScheduledPicture(generation, work, deadline, recipe=recipe, number=number, previews=task.previews)
            try:
                self._admission.admit(job)
            except ProblemError:
                generation.close()  # all or nothing
                raise
        return generation

    # Generating

    def _begin(self, job: ScheduledPicture) -> tuple[PictureRow, PictureOutput]:
        from predictor.pictures.batch import PictureRow

        painter = PictureOutput(job, self._sketch, self._pipeline.understood(job.recipe.prompt))
        row = PictureRow(job.recipe, painter.on_step)
        painter.row = row
        return row, painter


@dataclass(slots=True, eq=False, kw_only=True)
class ScheduledPicture(ScheduledTask):
    """One picture of a request; its `work` is in pixels times steps."""

    recipe: DiffusionParameters
    number: int
    previews: int

    @property
    def cost(self) -> float:
        """In denoising steps of a megapixel."""
        return self.work / 1_000_000


class PictureOutput:
    """Tells the client how its picture comes on."""

    row: PictureRow

    def __init__(self, job: ScheduledPicture, sketch: LatentPreview, understood: list[str] | None) -> None:
        self._job = job
        self._sketch = sketch
        self._understood = understood
        of, previews = job.recipe.steps, job.previews
        self._previewed_at = {round(of * number / (previews + 1)) for number in range(1, previews + 1)} - {0, of}
        self._told = 0
        self._latents: torch.Tensor | None = None

    def on_step(self, step: int, latents: torch.Tensor) -> None:
        recipe, generation = self._job.recipe, self._job.generation
        self._latents = latents
        if step <= self._told:  # a picture that begins anew, after a failed step, is not to be seen going back
            return
        self._told = step
        generation.publish(Progress(self._job.number, step, recipe.steps))
        if step in self._previewed_at:
            image = self._sketch.draw(latents, (recipe.width, recipe.height))
            if image is not None:
                generation.publish(Preview(self._job.number, step, image))

    def finish(self) -> PictureFinished:
        recipe, picture = self._job.recipe, self.row.picture
        assert picture is not None
        assert self._latents is not None
        if not self._sketch.learned:  # from the warm-up: nobody's previews depend on what somebody else has asked for
            self._sketch.learn(self._latents, picture)
        return PictureFinished(self._job.number, picture, recipe.seed, recipe.steps, self._understood)
