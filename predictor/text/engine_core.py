"""Texts of a loaded model: from a task to its row in the batch."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from contract.models.description import FieldDefaults, ModelDescription, ModelLimits
from contract.openai.error_codes import CONTEXT_LENGTH
from contract.problems import FieldError, ProblemError, field_problem
from contract.texts.sampling import Sampling
from predictor.engine.base import shutting_down
from predictor.engine.engine_core import EngineCore
from predictor.engine.generation import Generation
from predictor.engine.scheduled_task import ScheduledTask
from predictor.engine.tasks import OfferedTools, Structure, TextTask
from predictor.loading.fingerprint import fingerprint
from predictor.text.batch import TextBatch
from predictor.text.checkpoint import Checkpoint, EncodedPrompt
from predictor.text.output.text_output import TextOutput
from predictor.text.output.token_bytes import TokenBytes
from predictor.text.output.tool_calls import CallIds, ToolCallSplitter
from predictor.text.row import TextRow
from predictor.text.sampling.row_sampling import RowSampling
from predictor.text.structure.compiler import CompiledStructure, StructureCompiler
from predictor.text.structure.tool_rules import tool_rules

if TYPE_CHECKING:
    import torch

DEFAULT_TOKENS = 512
"""max_tokens where neither the request nor the model's generation config says."""

THINKING_TOKENS = 4_096
"""The same where the model reasons first, which counts, too."""

GREEDY_BELOW = 1e-4
"""Lower temperatures would overflow the logits that they divide."""


@dataclass(slots=True, eq=False, kw_only=True)
class ScheduledText(ScheduledTask):
    """A text to write after `prompt`; `work` is the most tokens that it may have."""

    prompt: EncodedPrompt
    sampling: Sampling
    cache_salt: str | None = None
    structure: CompiledStructure | None = None
    tools: OfferedTools | None = None


class TextEngineCore(EngineCore):
    """Prompt and text together have at most as many tokens as a row of `batch` has room for. `enable_thinking`: whether
    the model reasons before it answers, where the task does not say."""

    batch: TextBatch
    warm_up_tokens = 2
    """The first comes of the prompt, and the second is decoded."""

    def __init__(
        self, checkpoint: Checkpoint, batch: TextBatch, max_waiting: int, *, enable_thinking: bool = False
    ) -> None:
        super().__init__(batch, max_waiting)
        self.checkpoint = checkpoint
        self._enable_thinking = enable_thinking
        self.length = batch.length
        # One thread: a tokenizer that is reconfigured while another thread encodes with it raises "Already borrowed"
        # (huggingface/tokenizers#537, huggingface/transformers#47085).
        self._encoder = ThreadPoolExecutor(1, "tokenizer")
        self.structures = StructureCompiler(checkpoint)

    @property
    def device(self) -> torch.device:
        return self.checkpoint.device

    async def warm_up(self) -> None:
        task = TextTask(({"role": "user", "content": "a"},), Sampling(max_tokens=self.warm_up_tokens))
        await (await self.submit(task)).complete()

    async def submit(self, task: Any) -> Generation:
        assert isinstance(task, TextTask)
        with self.admission.arriving():
            return await self._submit(task)

    async def _submit(self, task: TextTask) -> Generation:
        loop = asyncio.get_running_loop()
        deadline = None if task.seconds is None else time.monotonic() + task.seconds
        try:
            variables = self._variables(task)
            encoding = loop.run_in_executor(
                self._encoder, self.checkpoint.encode, task.prompt, variables, task.tools, task.field
            )
        except RuntimeError:  # no futures after a shutdown
            raise shutting_down() from None
        prompt = await encoding
        if len(prompt.ids) >= self.length:
            field = "prompt" if isinstance(task.prompt, str) else task.field
            detail = f"has {len(prompt.ids)} tokens; a context of {self.length} is served, the answer included"
            raise field_problem([FieldError(field=field, detail=detail, code=CONTEXT_LENGTH)])
        self._check_biases(task.sampling)
        asked = _structure(task, prompt)
        structure = None if asked is None else await self.structures.compile(asked, prompt.reasoning)
        thinks = prompt.reasoning is not None and (prompt.reasoning.begun or self._thinking(task))
        default = self._defaults.max_new_tokens or (THINKING_TOKENS if thinks else DEFAULT_TOKENS)
        max_tokens = min(task.sampling.max_tokens or default, self.length - len(prompt.ids))
        generation = Generation()
        self.admission.admit(
            ScheduledText(
                generation,
                max_tokens,
                deadline,
                task.caller,
                prompt=prompt,
                sampling=task.sampling,
                cache_salt=task.cache_salt,
                structure=structure,
                tools=task.tools,
            )
        )
        return generation

    def _check_biases(self, sampling: Sampling) -> None:
        vocabulary = self.checkpoint.model.config.get_text_config().vocab_size
        foreign = [token for token in sampling.logit_bias or () if int(token) >= vocabulary]
        if foreign:
            detail = f"must be one of the model's tokens, which are 0 to {vocabulary - 1}"
            raise field_problem([FieldError(field=f"logit_bias.{token}", detail=detail) for token in foreign])

    def _thinking(self, task: TextTask) -> bool:
        return self._enable_thinking if task.thinking is None else task.thinking

    def _variables(self, task: TextTask) -> dict[str, Any]:
        """Of the chat template, which calls the switch as Qwen's does, or as DeepSeek's and Granite's do."""
        thinking = self._thinking(task)
        return {"enable_thinking": thinking, "thinking": thinking, **task.template}

    def make_row(self, task: ScheduledText) -> tuple[TextRow, TextOutput]:
        """The request's sampling parameters, and the model's own defaults where it has none."""
        defaults, asked = self._defaults, task.sampling
        narrowing = (asked.temperature, asked.top_p, asked.top_k, asked.min_p)
        samples = bool(defaults.do_sample) or any(one is not None for one in narrowing)
        temperature = asked.temperature if asked.temperature is not None else (defaults.temperature or 1.0)
        constraint = None if task.structure is None else task.structure.begin()
        seed = secrets.randbits(64) if asked.seed is None else asked.seed
        output = TextOutput(
            task.generation,
            self.checkpoint.tokenizer.backend_tokenizer,
            prompt_tokens=len(task.prompt.ids),
            max_tokens=int(task.work),
            eos=self.checkpoint.end_tokens,
            stops=asked.stop or [],
            reasoning=task.prompt.reasoning,
            calls=_calls(task, seed),
            is_complete=(lambda: False) if constraint is None else constraint.is_complete,
            token_bytes=None if asked.top_logprobs is None else self._token_bytes,
        )
        sampling = RowSampling(
            temperature=temperature if samples and temperature >= GREEDY_BELOW else 0.0,
            top_k=max(asked.top_k if asked.top_k is not None else (defaults.top_k or 0), 0),
            top_p=asked.top_p if asked.top_p is not None else (defaults.top_p or 1.0),
            min_p=asked.min_p if asked.min_p is not None else (defaults.min_p or 0.0),
            repetition_penalty=asked.repetition_penalty or defaults.repetition_penalty or 1.0,
            random=random.Random(seed),
            constraint=constraint,
            frequency_penalty=asked.frequency_penalty or 0.0,
            presence_penalty=asked.presence_penalty or 0.0,
            logit_bias={int(token): bias for token, bias in (asked.logit_bias or {}).items()},
            top_logprobs=asked.top_logprobs,
        )
        scope = None if task.cache_salt is None else (task.caller, task.cache_salt)
        row = TextRow(
            list(task.prompt.ids),
            sampling,
            output.put,
            output.is_last,
            scope=scope,
            note_reuse=output.note_reuse,
            note_likelihood=output.note_likelihood,
        )
        return row, output

    @cached_property
    def _token_bytes(self) -> TokenBytes:
        return TokenBytes(self.checkpoint.tokenizer.backend_tokenizer)

    def make_probe(self) -> TextRow:
        return TextRow([0], RowSampling.greedy(), lambda _token: True)

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(
            {"model": self.checkpoint.model},
            batch=type(self.batch).__name__,
            decodes=type(self.batch.decode_model).__name__,
            drafts=self.batch.drafts,
            length=self.length,
            prefill_tokens=self.batch.prefill_tokens,
            defaults=self._defaults.to_dict(),
            template=self.checkpoint.tokenizer.chat_template,
            vocabulary=len(self.checkpoint.tokenizer),
            thinking=self._enable_thinking,
        )

    @property
    def description(self) -> ModelDescription:
        defaults = self._defaults
        return ModelDescription(
            conversations=self.checkpoint.tokenizer.chat_template is not None,
            limits=ModelLimits(context_tokens=self.length),
            defaults=FieldDefaults(
                max_tokens=min(defaults.max_new_tokens or DEFAULT_TOKENS, self.length),
                temperature=(defaults.temperature or 1.0) if defaults.do_sample else 0.0,
                top_p=defaults.top_p or 1.0,
            ),
        )

    @property
    def _defaults(self) -> Any:
        """transformers' GenerationConfig."""
        return self.checkpoint.model.generation_config

    def close(self, problem: ProblemError | None = None) -> None:
        super().close(problem)
        self.structures.close()
        self._encoder.shutdown(wait=False)  # what it encodes at the moment is refused by the closed admission


def _structure(task: TextTask, prompt: EncodedPrompt) -> Structure | None:
    """Calls of functions are held to their format, and their arguments to the schemas of those."""
    if task.tools is None or prompt.tools is None:
        return task.structure
    return Structure(tool_rules(prompt.tools, task.tools), "tools")


def _calls(task: ScheduledText, seed: int) -> ToolCallSplitter | None:
    if task.tools is None or task.prompt.tools is None:
        return None
    return ToolCallSplitter(task.prompt.tools, CallIds(seed, task.prompt.ids), several=task.tools.several)
