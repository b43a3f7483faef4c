"""The running pictures: each is a whole run of its pipeline, and their denoising steps are computed together.

A run is a greenlet. Where its pipeline calls the denoiser, it is parked; once all are parked, calls of the same shape
become one forward, and each run goes on with its part of the answer. So a picture joins and leaves between any two
steps, whatever the pipeline, its scheduler, its number of steps or its guidance, and all of it happens on one thread.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from greenlet import GreenletExit, getcurrent, greenlet
from PIL import Image
from torch.utils import _pytree as pytree

from predictor.engine.scheduler import Scheduler
from predictor.pictures.pipeline import DiffusionParameters, Pipeline


@dataclass(slots=True, eq=False)
class PictureRow:
    """One picture in the batch. `on_step` is told the steps done and the latents; `picture` is there in the end."""

    recipe: DiffusionParameters
    on_step: Callable[[int, torch.Tensor], None]
    picture: Image.Image | None = None
    steps: int = 0
    run: greenlet | None = field(default=None, repr=False)
    call: _Call | None = field(default=None, repr=False)  # what it is parked at

    @property
    def done(self) -> bool:
        return self.picture is not None

    @property
    def so_far(self) -> str:
        return f"{self.steps} of {self.recipe.steps} steps at {self.recipe.width}x{self.recipe.height}"


class PictureBatch:
    """Up to `capacity` pictures. A step that raises has lost at most the run it raised in, which begins anew."""

    def __init__(self, pipeline: Pipeline, capacity: int) -> None:
        self.capacity = capacity
        self.running: list[PictureRow] = []
        self.forward_seconds = 0.0  # of the last step, and how many pictures were in it
        self.forward_rows = 0
        self._pipeline = pipeline
        self._forward = pipeline.denoiser.forward
        pipeline.denoiser.forward = self._park

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
            run.throw(GreenletExit)  # unwinds the pipeline at the place where it is parked

    def step(self) -> list[PictureRow]:
        """One forward for every picture. The rows that are done by it."""
        # A thread keeps whether gradients are wanted, and runs that overlap put it back in the wrong order.
        with torch.no_grad():
            active = [row for row in self.running if not row.done]
            for row in active:
                if row.run is None:
                    row.run = greenlet(self._run)
                    self._resume(row, row)
            self.forward_rows, self.forward_seconds = 0, 0.0
            for rows in _alike([row for row in active if row.call is not None]):
                begun = time.monotonic()
                answers = self._together([row.call for row in rows if row.call])
                if self._pipeline.device.type == "cuda":
                    torch.cuda.synchronize()  # else it is the launch that is timed
                self.forward_seconds += time.monotonic() - begun
                self.forward_rows += len(rows)
                for row, answer in zip(rows, answers, strict=True):
                    self._resume(row, answer)
        return [row for row in self.running if row.done]

    @property
    def computing(self) -> list[PictureRow]:
        return [row for row in self.running if row.steps]

    def economize(self) -> bool:
        return self._pipeline.economize()

    def close(self) -> None:
        """Give the denoiser back as it was."""
        for row in list(self.running):
            self.remove(row)
        self._pipeline.denoiser.forward = self._forward

    def _run(self, row: PictureRow) -> None:
        def on_step(step: int, latents: torch.Tensor) -> None:
            row.steps = step
            row.on_step(step, latents)

        row.picture = self._pipeline.run(row.recipe, on_step)

    def _resume(self, row: PictureRow, answer: Any) -> None:
        """Let a run go on until it is parked again, or ends."""
        assert row.run is not None
        row.call = None
        try:
            row.call = row.run.switch(answer)
        except BaseException:
            row.run = None  # but not the steps: how far it came is told
            raise
        if row.run.dead:
            row.run = None

    def _park(self, *args: Any, **kwargs: Any) -> Any:
        """In the place of the denoiser's forward: hand the call to the step, and come back with the answer."""
        # Asked for each time, and kept nowhere: a thread that ends frees its main greenlet, whoever still refers to it.
        hub = getcurrent().parent
        return self._forward(*args, **kwargs) if hub is None else hub.switch(_Call(args, kwargs))

    def _together(self, calls: list[_Call]) -> list[Any]:
        if len(calls) == 1:
            return [self._compute(*calls[0].args, **calls[0].kwargs)]
        leaves = [
            torch.cat([call.batched(at) for call in calls]) if at in calls[0].rows_at else leaf
            for at, leaf in enumerate(calls[0].leaves)
        ]
        args, kwargs = pytree.tree_unflatten(leaves, calls[0].spec)
        answer, spec = pytree.tree_flatten(self._compute(*args, **kwargs))
        parts = [leaf.split([call.rows for call in calls]) for leaf in answer]
        return [pytree.tree_unflatten([part[number] for part in parts], spec) for number in range(len(calls))]

    def _compute(self, *args: Any, **kwargs: Any) -> Any:
        hook = getattr(self._pipeline.denoiser, "_hf_hook", None)
        if hook is not None:  # one that has finished meanwhile may have sent the denoiser away to make room
            args, kwargs = hook.pre_forward(self._pipeline.denoiser, *args, **kwargs)
        return self._forward(*args, **kwargs)


GATHER_SECONDS = 0.003
"""Wait of a picture that comes to an idle engine, for others asked for at the same time: one that is a step behind
costs all of them a step."""


class PictureScheduler(Scheduler):
    """Leaves no run parked when it ends: only its own thread can unwind one."""

    def _fill(self) -> None:
        idle = not len(self._batch)
        super()._fill()
        if idle and 0 < len(self._batch) < self.allowed:
            time.sleep(GATHER_SECONDS)
            super()._fill()

    def _run(self) -> None:
        try:
            super()._run()
        finally:
            assert isinstance(self._batch, PictureBatch)
            with contextlib.suppress(Exception):  # the device may be broken
                self._batch.close()


class _Call:
    """A call of the denoiser, taken apart. The tensors at `rows_at` have one entry for each of its `rows`."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.args = args
        self.kwargs = kwargs
        self.leaves, self.spec = pytree.tree_flatten((args, kwargs))
        tensors = [leaf for leaf in self.leaves if isinstance(leaf, torch.Tensor)]
        self.rows = max(tensors, key=lambda tensor: tensor.dim()).shape[0]  # of the latents, whatever they are called
        self.rows_at = {
            at
            for at, leaf in enumerate(self.leaves)
            if isinstance(leaf, torch.Tensor) and (leaf.dim() == 0 or leaf.shape[0] == self.rows)
        }
        # Calls may be computed together if they have the same form, and the same values wherever there are no rows.
        self.form = (
            str(self.spec),
            *(
                (leaf.dtype, tuple(leaf.shape[1:]), at in self.rows_at)
                if isinstance(leaf, torch.Tensor)
                else repr(leaf)
                for at, leaf in enumerate(self.leaves)
            ),
        )

    def batched(self, at: int) -> torch.Tensor:
        """The tensor at a place, with one entry for each row: a timestep is given once for all."""
        leaf: torch.Tensor = self.leaves[at]
        return leaf.expand(self.rows) if leaf.dim() == 0 else leaf

    def fits(self, other: _Call) -> bool:
        return self.form == other.form and all(
            at in self.rows_at or not isinstance(leaf, torch.Tensor) or torch.equal(leaf, other.leaves[at])
            for at, leaf in enumerate(self.leaves)
        )


def _alike(rows: list[PictureRow]) -> list[list[PictureRow]]:
    """Groups of rows whose calls may be computed together."""
    groups: list[list[PictureRow]] = []
    for row in rows:
        for group in groups:
            if group[0].call and row.call and group[0].call.fits(row.call):
                group.append(row)
                break
        else:
            groups.append([row])
    return groups
