"""The running batch of pictures: each is a whole run of its pipeline, and their denoising steps are computed together.

A run is a greenlet. Where its pipeline calls the denoiser or the decoder, it pauses; once all are paused, calls of the
same form become one forward, and each run goes on with its part of the answer. So a picture joins and leaves between
any two steps, whatever the pipeline, its scheduler, its number of steps or its guidance, and all of it happens on one
thread. What a run raises is that picture's own failure; what a forward of the denoiser raises is a failure of all.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from greenlet import GreenletExit, getcurrent, greenlet
from PIL import Image

from predictor.engine.batch import Batch
from predictor.engine.memory.memory_pressure import is_device_error
from predictor.pictures.decoder import DecoderCall
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
    failure: Exception | None = None
    run: greenlet | None = field(default=None, repr=False)
    call: DenoiserCall | DecoderCall | None = field(default=None, repr=False)  # the one that the run is paused at

    @property
    def ended(self) -> bool:
        return self.picture is not None or self.failure is not None

    @property
    def so_far(self) -> str:
        return (
            f"{self.steps} of {self.parameters.taken_steps} steps at {self.parameters.width}x{self.parameters.height}"
        )


class PictureBatch(Batch):
    """Up to `slots` pictures. A suspended one keeps its run, paused where it is, and so its steps."""

    gather_seconds = GATHER_SECONDS

    def __init__(self, pipeline: Pipeline, slots: int) -> None:
        self.slots = slots
        self.running: list[PictureRow] = []
        self.forward_seconds = 0.0  # of the last step
        self._pipeline = pipeline
        self._forward = pipeline.denoiser.forward
        pipeline.denoiser.forward = self._denoise

    def __len__(self) -> int:
        return len(self.running)

    def join(self, row: PictureRow) -> None:
        if row.run is None:
            row.steps = 0
        self.running.append(row)

    def suspend(self, row: PictureRow) -> None:
        self.running.remove(row)

    def remove(self, row: PictureRow) -> None:
        if row in self.running:
            self.running.remove(row)
        run, row.run, row.call = row.run, None, None
        if run:
            with torch.no_grad():  # as in `step`, to which the pipeline would set the thread back
                run.throw(GreenletExit)  # unwinds the pipeline where it is paused

    def step(self) -> list[PictureRow]:
        """One denoising step of every picture; the rows that end with it."""
        # Whether gradients are computed is a state of the thread, which overlapping runs would restore in the wrong
        # order.
        with torch.no_grad():
            for row in self.running:
                if row.run is None and not row.ended:
                    row.run = greenlet(self._run)
                    self._resume(row, row)
            self.forward_seconds = 0.0
            for calls in _group(self.running):
                self.heartbeat()
                begun = time.monotonic()
                first, *others = calls.values()
                answers = first.compute_with(others, self.compute)
                if self._pipeline.device.type == "cuda":
                    torch.cuda.synchronize(self._pipeline.device)  # without it, only the launch would be timed
                self.forward_seconds += time.monotonic() - begun
                for row, answer in zip(calls, answers, strict=True):
                    self._resume(row, answer)
            waiting = {row.call: row for row in self.running if isinstance(row.call, DecoderCall) and not row.ended}
            for group in self._pipeline.decoder.groups(list(waiting)):
                self._decode([waiting[call] for call in group], group)
        return [row for row in self.running if row.ended]

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

        row.picture = self._pipeline.run(row.parameters, on_step, self._pause)

    def _resume(self, row: PictureRow, answer: Any) -> None:
        """Let a run go on until it is paused at the denoiser, or ends."""
        assert row.run is not None
        self.heartbeat()
        row.call = None
        try:
            row.call = row.run.switch(answer)
        except Exception as error:
            if is_device_error(error):  # which may come of any call before it
                raise
            row.failure = error
        finally:
            if row.run.dead:
                row.run = None  # `steps` stays: an error says how far the picture has come
        if isinstance(row.call, DecoderCall) and not self._pipeline.decoder.may_wait(row.call):
            self._decode([row], [row.call])

    def _decode(self, rows: list[PictureRow], calls: list[DecoderCall]) -> None:
        """Together, or one by one where that fails: what fails then is one picture's own."""
        self.heartbeat()
        answers: list[Any] = []
        try:
            answers = self._pipeline.decoder.compute_group(calls)
        except Exception as error:
            if is_device_error(error):
                raise
            if len(rows) == 1:
                rows[0].failure = error  # the run stays paused at the call
                return
        for number, row in enumerate(rows):
            if answers:
                self._resume(row, answers[number])
            else:
                self._decode([row], [calls[number]])

    def _denoise(self, *args: Any, **kwargs: Any) -> Any:
        """In place of the denoiser's forward."""
        outside = getcurrent().parent is None
        return self._forward(*args, **kwargs) if outside else self._pause(DenoiserCall(args, kwargs))

    @staticmethod
    def _pause(call: DenoiserCall | DecoderCall) -> Any:
        """In a run: hand a call to `step`, and return the answer."""
        # Not kept in an attribute: the main greenlet of a thread is freed with the thread, whoever refers to it.
        parent = getcurrent().parent
        assert parent is not None
        return parent.switch(call)

    def compute(self, *args: Any, **kwargs: Any) -> Any:
        hook = getattr(self._pipeline.denoiser, "_hf_hook", None)
        if hook is not None:  # accelerate (1.15) moves the denoiser off the GPU to decode another picture
            args, kwargs = hook.pre_forward(self._pipeline.denoiser, *args, **kwargs)
        return self._forward(*args, **kwargs)


def _group(rows: list[PictureRow]) -> list[dict[PictureRow, DenoiserCall]]:
    """Groups of rows that wait for the denoiser with calls that fit together."""
    groups: list[dict[PictureRow, DenoiserCall]] = []
    for row in rows:
        if not isinstance(row.call, DenoiserCall):
            continue
        for group in groups:
            if next(iter(group.values())).fits(row.call):
                group[row] = row.call
                break
        else:
            groups.append({row: row.call})
    return groups
