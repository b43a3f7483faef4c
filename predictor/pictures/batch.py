"""The running batch of pictures: each is a whole run of its pipeline, and their denoising steps are computed together.

A run is a greenlet. Where its pipeline calls the denoiser, it pauses; once all are paused, calls of the same form
become one forward, and each run goes on with its part of the answer. So a picture joins and leaves between any two
steps, whatever the pipeline, its scheduler, its number of steps or its guidance, and all of it happens on one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from greenlet import GreenletExit, getcurrent, greenlet
from PIL import Image

from predictor.pictures.denoiser_call import DenoiserCall
from predictor.pictures.parameters import DiffusionParameters
from predictor.pictures.pipeline import Pipeline

GATHER_SECONDS = 0.003
"""Pictures that are asked for at the same time come within this: one that is a step behind the others costs all of them
a step."""


@dataclass(slots=True, eq=False)
class PictureRow:
    """One picture in the batch. `on_step` takes the steps done and the latents; `picture` is None until the end."""

    parameters: DiffusionParameters
    on_step: Callable[[int, torch.Tensor], None]
    picture: Image.Image | None = None
    steps: int = 0
    run: greenlet | None = field(default=None, repr=False)
    call: DenoiserCall | None = field(default=None, repr=False)  # the one that the run is paused at

    @property
    def done(self) -> bool:
        return self.picture is not None

    @property
    def so_far(self) -> str:
        return f"{self.steps} of {self.parameters.steps} steps at {self.parameters.width}x{self.parameters.height}"


class PictureBatch:
    """Up to `slots` pictures. A step that raises loses at most the run that it raised in, which starts again."""

    gather_seconds = GATHER_SECONDS

    def __init__(self, pipeline: Pipeline, slots: int) -> None:
        self.slots = slots
        self.running: list[PictureRow] = []
        self.forward_seconds = 0.0  # of the last step
        self._pipeline = pipeline
        self._forward = pipeline.denoiser.forward
        pipeline.denoiser.forward = self._pause

    def __len__(self) -> int:
        return len(self.running)

    def join(self, row: PictureRow) -> None:
        row.run = row.call = None
        row.steps = 0
        self.running.append(row)

    def remove(self, row: PictureRow) -> None:
        self.running.remove(row)
        run, row.run, row.call = row.run, None, None
        if run:
            run.throw(GreenletExit)  # unwinds the pipeline where it is paused

    def step(self) -> list[PictureRow]:
        """One denoising step of every picture; the rows that are done by it."""
        # Whether gradients are computed is a state of the thread, which overlapping runs would restore in the wrong
        # order.
        with torch.no_grad():
            active = [row for row in self.running if not row.done]
            for row in active:
                if row.run is None:
                    row.run = greenlet(self._run)
                    self._resume(row, row)
            self.forward_seconds = 0.0
            for rows in _group([row for row in active if row.call is not None]):
                begun = time.monotonic()
                first, *others = [row.call for row in rows if row.call]
                answers = first.compute_with(others, self.compute)
                if self._pipeline.device.type == "cuda":
                    torch.cuda.synchronize(self._pipeline.device)  # without it, only the launch would be timed
                self.forward_seconds += time.monotonic() - begun
                for row, answer in zip(rows, answers, strict=True):
                    self._resume(row, answer)
        return [row for row in self.running if row.done]

    @property
    def computing(self) -> list[PictureRow]:
        return [row for row in self.running if row.steps]

    def reduce_memory(self) -> bool:
        return self._pipeline.reduce_memory()

    def close(self) -> None:
        """Unwind all runs, which only this thread can, and restore the denoiser."""
        try:
            for row in list(self.running):
                self.remove(row)
        finally:
            self._pipeline.denoiser.forward = self._forward

    def _run(self, row: PictureRow) -> None:
        def on_step(step: int, latents: torch.Tensor) -> None:
            row.steps = step
            row.on_step(step, latents)

        row.picture = self._pipeline.run(row.parameters, on_step)

    def _resume(self, row: PictureRow, answer: Any) -> None:
        """Let a run go on until it is paused again, or ends."""
        assert row.run is not None
        row.call = None
        try:
            row.call = row.run.switch(answer)
        except BaseException:
            row.run = None  # `steps` stays: an error says how far the picture has come
            raise
        if row.run.dead:
            row.run = None

    def _pause(self, *args: Any, **kwargs: Any) -> Any:
        """In place of the denoiser's forward: hand the call to `step`, and return the answer."""
        # Not kept in an attribute: the main greenlet of a thread is freed with the thread, whoever refers to it.
        parent = getcurrent().parent
        return self._forward(*args, **kwargs) if parent is None else parent.switch(DenoiserCall(args, kwargs))

    def compute(self, *args: Any, **kwargs: Any) -> Any:
        hook = getattr(self._pipeline.denoiser, "_hf_hook", None)
        if hook is not None:  # accelerate (1.15) moves the denoiser off the GPU to decode another picture
            args, kwargs = hook.pre_forward(self._pipeline.denoiser, *args, **kwargs)
        return self._forward(*args, **kwargs)


def _group(rows: list[PictureRow]) -> list[list[PictureRow]]:
    """Groups of rows whose calls fit together."""
    groups: list[list[PictureRow]] = []
    for row in rows:
        for group in groups:
            if group[0].call and row.call and group[0].call.fits(row.call):
                group.append(row)
                break
        else:
            groups.append([row])
    return groups
