"""Any transformers causal language model, one generation at a time, on a thread of its own.

torch and transformers are imported by `load`, not by this module: the port is open before either is.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from contract import problems
from contract.limits import MAX_TOKENS
from contract.problems import ProblemError, invalid_field
from contract.request import Sampling
from predictor.engine import Finished, Generation, Message, ModelError, Started, TextEngine, TextTask
from predictor.jobs import Job, JobQueue
from predictor.writer import Writer

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerFast

log = logging.getLogger(__name__)

MAX_WAITING = 64
"""Most accepted tasks that wait for the running one; one more is refused."""

STALL_SECONDS = 120.0
"""A step that takes longer than this is taken for a stuck device."""

GREEDY_BELOW = 1e-4
"""A lower temperature counts as 0: it would hardly differ, and the logits divided by it could be infinite."""

DEFAULT_TOKENS = 512
"""max_tokens where neither the request nor the model's generation config says."""


class TransformersEngine(TextEngine):
    """Loads from a folder or a hub id: safetensors only, no remote code.

    `device` is a torch device or "auto" (CUDA where there is one). `dtype` is a torch dtype's name or "auto": float32
    on a CPU, else what the checkpoint holds.
    """

    def __init__(
        self, model: str, *, device: str = "auto", dtype: str = "auto", max_waiting: int = MAX_WAITING
    ) -> None:
        self.model: Any
        self._source = model
        self._device = device
        self._dtype = dtype
        self._jobs = JobQueue(max_waiting)
        self._cook = threading.Thread(target=self._serve, name="engine", daemon=True)
        # One thread, because a Rust tokenizer that is reconfigured while another thread encodes with it raises.
        self._encoder = ThreadPoolExecutor(1, "tokenizer")
        self._beat_at: float | None = None  # when the running generation last moved; None between generations
        self._service_s = 1.0  # smoothed time of one generation

    # Loading

    def load(self, report: Callable[[str], None]) -> None:
        report("importing torch")
        import torch

        report("importing transformers")
        import transformers
        from transformers import AutoModelForCausalLM, AutoTokenizer

        transformers.utils.logging.disable_progress_bar()
        if not log.isEnabledFor(logging.DEBUG):
            transformers.utils.logging.set_verbosity_error()  # what is wrong is said below, in one line
        device = self._device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = self._dtype
        if dtype == "auto" and device == "cpu":
            dtype = "float32"
        try:
            report("loading the tokenizer")
            self.tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(
                self._source, trust_remote_code=False
            )
            if not self.tokenizer.is_fast:
                raise ModelError("it has no tokenizer.json, and slow tokenizers are not served")
            report("loading the weights")
            self.model, info = AutoModelForCausalLM.from_pretrained(
                self._source,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
            self._check_weights(info)
            self.model.to(device)
        except Exception as error:
            log.debug("loading %s failed", self._source, exc_info=True)
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise ModelError(f"cannot load {self._source}: {reason}") from error
        self.model.eval()
        self.device = torch.device(device)
        self.context = int(getattr(self.model.config.get_text_config(), "max_position_embeddings", 0) or 2**20)
        report("warming up")
        self._cook.start()
        self._warm_up()

    def _check_weights(self, info: dict[str, Any]) -> None:
        """transformers makes up the tensors that it does not find, and would serve noise."""
        wrong = {"missing": sorted(info["missing_keys"]), "of the wrong shape": sorted(info["mismatched_keys"])}
        for what, tensors in wrong.items():
            if tensors:
                first = tensors[0] if isinstance(tensors[0], str) else tensors[0][0]
                raise ModelError(f"{len(tensors)} of its tensors are {what}, {first} among them")

    def _warm_up(self) -> None:
        """Run one short generation, so that lazily built kernels and caches are not the first user's wait."""
        asyncio.run(self._generate_once())

    async def _generate_once(self) -> None:
        try:
            await (await self.submit(TextTask(({"role": "user", "content": "a"},), Sampling(max_tokens=2)))).complete()
        except ProblemError as error:
            raise ModelError(f"{self._source} cannot generate: {error}") from error

    # Accepting

    async def submit(self, task: TextTask) -> Generation:
        loop = asyncio.get_running_loop()
        prompt = await loop.run_in_executor(self._encoder, self._encode, task.prompt)
        if len(prompt) >= self.context:
            raise invalid_field(
                "prompt" if isinstance(task.prompt, str) else "messages",
                f"has {len(prompt)} tokens; the model's context holds {self.context}, the answer included",
            )
        job = Job(Generation(), prompt, task.sampling)
        if not self._jobs.put(job):
            raise ProblemError(
                problems.OVERLOADED,
                f"{self._jobs.places} requests are waiting already.",
                retry_after=self._jobs.places * self._service_s,
            )
        return job.generation

    def _encode(self, prompt: str | tuple[Message, ...]) -> list[int]:
        if isinstance(prompt, str):
            ids = self.tokenizer(prompt)["input_ids"]
        elif self.tokenizer.chat_template is None:
            # A base model knows no roles: it continues what was said.
            ids = self.tokenizer("\n".join(message["content"] for message in prompt))["input_ids"]
        else:
            from jinja2 import TemplateError

            try:
                ids = self.tokenizer.apply_chat_template(list(prompt), add_generation_prompt=True, return_dict=False)
            except TemplateError as error:
                raise invalid_field("messages", f"the model's chat template refuses them: {error}") from None
        if ids:
            return list(ids)
        # Some tokenizers drop every character of a text; a model needs something to begin from.
        return [self.tokenizer.bos_token_id if self.tokenizer.bos_token_id is not None else self.tokenizer.eos_token_id]

    # Generating

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._beat_at = begun = time.perf_counter()
            job.generation.publish(Started(begun - job.accepted_at))
            try:
                job.generation.publish(self._generate(job))
                self._service_s += 0.2 * (time.perf_counter() - begun - self._service_s)
            except Exception:
                log.exception("a generation failed")
                job.generation.publish(
                    ProblemError(problems.INTERNAL, "The model failed on this request; the server's log says why.")
                )
            finally:
                self._beat_at = None

    def _generate(self, job: Job) -> Finished:
        import torch
        from transformers import StoppingCriteriaList

        config = self._generation_config(job)
        torch.manual_seed(secrets.randbits(63) if job.sampling.seed is None else job.sampling.seed)
        writer = Writer(job, config, self.tokenizer.backend_tokenizer, self._beat)
        ids = torch.tensor([job.prompt], device=self.device)
        with torch.inference_mode():
            self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                generation_config=config,
                streamer=writer,
                stopping_criteria=StoppingCriteriaList([writer]),
            )
        return writer.finish()

    def _generation_config(self, job: Job) -> GenerationConfig:
        """The model's own defaults, with what the request asks for laid over them."""
        sampling = job.sampling
        config: GenerationConfig = copy.deepcopy(self.model.generation_config)
        wanted = sampling.max_tokens or config.max_new_tokens or DEFAULT_TOKENS
        config.max_new_tokens = min(wanted, MAX_TOKENS, self.context - len(job.prompt))
        config.max_length = None
        config.num_beams = config.num_return_sequences = 1
        if config.pad_token_id is None:  # one sequence is never padded, but generate warns without
            config.pad_token_id = self.tokenizer.eos_token_id
        if sampling.temperature is not None or sampling.top_p is not None:
            config.do_sample = sampling.temperature is None or sampling.temperature >= GREEDY_BELOW
            config.temperature = sampling.temperature if sampling.temperature is not None else config.temperature
            config.top_p = sampling.top_p if sampling.top_p is not None else config.top_p
        if not config.do_sample:  # generate warns of sampling parameters it is not going to use
            config.temperature = config.top_p = config.top_k = None
        return config

    def _beat(self) -> None:
        self._beat_at = time.perf_counter()

    @property
    def alive(self) -> bool:
        beat_at = self._beat_at
        stalled = beat_at is not None and time.perf_counter() - beat_at > STALL_SECONDS
        return self._cook.is_alive() and not stalled

    def close(self) -> None:
        self._encoder.shutdown(wait=False, cancel_futures=True)
        for job in self._jobs.close():
            job.generation.publish(ProblemError(problems.UNAVAILABLE, "The server is shutting down."))
