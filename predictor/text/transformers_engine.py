"""Any transformers causal language model, as many texts at once as fit."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from contract.limits import MAX_TOKENS
from contract.problems import ProblemError, invalid_field
from contract.request import Sampling
from predictor.engine.admission import Admission, ScheduledTask
from predictor.engine.base import shutting_down
from predictor.engine.batched import BatchedEngine
from predictor.engine.generation import Generation
from predictor.engine.tasks import Task, TextTask
from predictor.errors import ModelError
from predictor.limits import MAX_CONCURRENCY, MAX_LENGTH, MAX_WAITING
from predictor.settings import LoadFormat
from predictor.text.checkpoint import load_checkpoint

if TYPE_CHECKING:
    from predictor.text.batch import Row
    from predictor.text.output import TextOutput

log = logging.getLogger(__name__)

DEFAULT_TOKENS = 512
"""max_tokens where neither the request nor the model's generation config says."""

GREEDY_BELOW = 1e-4
"""Temperatures below this would overflow the logits they divide."""


@dataclass(slots=True, eq=False, kw_only=True)
class ScheduledText(ScheduledTask):
    """A text to write; its `work` is the most tokens it may come to."""

    prompt: list[int]
    sampling: Sampling


class TransformersEngine(BatchedEngine):
    """Loads from a folder or a hub id: safetensors only, no remote code.

    `device` is a torch device or "auto" (CUDA where there is one). `dtype` is a torch dtype's name or "auto": float32
    on a CPU, else what the checkpoint holds. `memory` is in bytes; all the device has when None.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str = "auto",
        dtype: str = "auto",
        max_concurrency: int = MAX_CONCURRENCY,
        max_waiting: int = MAX_WAITING,
        max_length: int = MAX_LENGTH,
        memory: int | None = None,
        load_format: LoadFormat = "auto",
    ) -> None:
        self._source = model
        self._device = device
        self._dtype = dtype
        self._max_concurrency = max_concurrency
        self._max_waiting = max_waiting
        self._max_length = max_length
        self._memory = memory
        self._load_format = load_format
        # One thread, because a Rust tokenizer that is reconfigured while another thread encodes with it raises.
        self._encoder = ThreadPoolExecutor(1, "tokenizer")

    # Loading

    def load(self, report: Callable[[str], None]) -> None:
        self._checkpoint = load_checkpoint(self._source, self._device, self._dtype, report, self._load_format)
        report("checking the batch")
        from predictor.engine.scheduler import Scheduler
        from predictor.loading.device_memory import memory_share
        from predictor.text.batch import Batch
        from predictor.text.batch_check import why_not_batched
        from predictor.text.capacity import plan_slots
        from predictor.text.solo_batch import SoloBatch

        model = self._checkpoint.model
        obstacle = why_not_batched(model)
        if obstacle:
            log.warning("one text at a time, because %s cannot be batched: %s", self._source, obstacle)
        report("measuring slots")
        most = 1 if obstacle else self._max_concurrency
        self.length = min(self._checkpoint.context, self._max_length)
        memory = memory_share(self._checkpoint.device, self._memory)
        plan = plan_slots(self._checkpoint, self.length, most, memory)
        log.info("%s", plan)
        self._admission = Admission(plan.slots, self._max_waiting)
        batch = SoloBatch(model, self.length) if obstacle else Batch(model, plan.slots, self.length)
        self._cook = Scheduler(batch, self._admission, self._begin)
        report("warming up")
        self._cook.start()
        asyncio.run(self._warm_up())

    async def _warm_up(self) -> None:
        """Run one short text, so that lazily built kernels and caches are not the first user's wait."""
        try:
            await (await self.submit(TextTask(({"role": "user", "content": "a"},), Sampling(max_tokens=2)))).complete()
        except ProblemError as error:
            raise ModelError(f"{self._source} cannot generate: {error}") from error

    # Accepting

    async def submit(self, task: Task) -> Generation:
        assert isinstance(task, TextTask)
        loop = asyncio.get_running_loop()
        try:
            encoding = loop.run_in_executor(self._encoder, self._checkpoint.encode, task.prompt)
        except RuntimeError:  # no futures after a shutdown
            raise shutting_down() from None
        prompt = await encoding
        if len(prompt) >= self.length:
            raise invalid_field(
                "prompt" if isinstance(task.prompt, str) else "messages",
                f"has {len(prompt)} tokens; a context of {self.length} is served, the answer included",
            )
        wanted = task.sampling.max_tokens or self._defaults.max_new_tokens or DEFAULT_TOKENS
        most = min(wanted, MAX_TOKENS, self.length - len(prompt))
        deadline = None if task.seconds is None else time.monotonic() + task.seconds
        generation = Generation()
        self._admission.admit(ScheduledText(generation, most, deadline, prompt=prompt, sampling=task.sampling))
        return generation

    # Generating

    def _begin(self, job: ScheduledText) -> tuple[Row, TextOutput]:
        """The row of a job: the model's own defaults, with what the request asks for laid over them."""
        from predictor.text.batch import Row
        from predictor.text.output import TextOutput
        from predictor.text.sampler import RowSampling

        defaults, asked = self._defaults, job.sampling
        samples = bool(defaults.do_sample) or asked.temperature is not None or asked.top_p is not None
        temperature = asked.temperature if asked.temperature is not None else (defaults.temperature or 1.0)
        eos = defaults.eos_token_id
        writer = TextOutput(
            job.generation,
            self._checkpoint.tokenizer.backend_tokenizer,
            prompt=len(job.prompt),
            most=int(job.work),
            eos={eos} if isinstance(eos, int) else set(eos or ()),
            stops=asked.stop or [],
        )
        sampling = RowSampling(
            temperature=temperature if samples and temperature >= GREEDY_BELOW else 0.0,
            top_k=defaults.top_k or 0,
            top_p=asked.top_p if asked.top_p is not None else (defaults.top_p or 1.0),
            min_p=defaults.min_p or 0.0,
            repetition_penalty=defaults.repetition_penalty or 1.0,
            random=random.Random(secrets.randbits(64) if asked.seed is None else asked.seed),
            seen=set(job.prompt),
        )
        return Row(list(job.prompt), sampling, writer.put), writer

    @property
    def _defaults(self) -> Any:
        return self._checkpoint.model.generation_config

    def close(self) -> None:
        super().close()
        self._encoder.shutdown(wait=False)  # what it has in hand ends, and is refused by what is closed above
