"""A causal language model on its device, and its tokenizer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.problems import invalid_field
from predictor.cpu.threads import limit_threads
from predictor.engine.tasks import Message, OfferedTools
from predictor.errors import ModelError, first_line
from predictor.loading.tokenizer_file import load_tokenizer
from predictor.loading.weights import placement, read_weights, stored_types
from predictor.plan_settings import LoadFormat, Quantization
from predictor.text.output.reasoning import ReasoningTags, reasoning_tags
from predictor.text.output.tool_format import ToolFormat, takes_tools, tool_format
from predictor.text.rope_scaling import scaled_context

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """Token ids, at least one; between which tags the model may reason before it answers; and how it writes the calls
    of functions that it was offered."""

    ids: list[int]
    reasoning: ReasoningTags | None
    tools: ToolFormat | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A model ready to run on `device`. `context` is the most tokens that it can attend to."""

    model: Any
    tokenizer: PreTrainedTokenizerFast
    device: torch.device
    context: int

    @cached_property
    def end_tokens(self) -> frozenset[int]:
        """Ids that end a text: those of the generation config, of the tokenizer and of the model's config, because a
        fine-tune for chats often names its own in one of them alone.

        Words in the model's config do not count: it has those of its class where its file names none.
        """
        config = self.model.config.get_text_config()
        special = {id for id, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        ends = _ids(self.model.generation_config.eos_token_id) | _ids(self.tokenizer.eos_token_id)
        return frozenset(ends | (_ids(getattr(config, "eos_token_id", None)) & special))

    @cached_property
    def tool_format(self) -> ToolFormat:
        """Raises a ProblemError where the model's chat template takes no tools, or calls are not read here."""
        if not takes_tools(self.tokenizer):
            raise invalid_field("tools", "are not taken by this model: its chat template has no place for them")
        form = tool_format(self.tokenizer)
        if form is None:
            detail = "are not served with this model: its chat template writes calls in a format that is not read here"
            raise invalid_field("tools", detail)
        return form

    def encode(
        self,
        prompt: str | tuple[Message, ...],
        variables: Mapping[str, Any] | None = None,
        tools: OfferedTools | None = None,
        field: str = "messages",
    ) -> EncodedPrompt:
        """A plain text, or a conversation in the model's chat template, which reads further `variables` and `tools`.

        Raises a ProblemError when the template refuses the conversation, or would leave out part of it; `field` is what
        the client calls the conversation.
        """
        tokenizer = self.tokenizer
        form = None if tools is None else self.tool_format
        text = ""
        if isinstance(prompt, str):
            ids = tokenizer(prompt)["input_ids"]
        elif _with_tools(prompt) and "tool_calls" not in str(tokenizer.chat_template or ""):
            raise invalid_field(field, "may hold no turns of tools: the model's chat template would leave them out")
        elif tokenizer.chat_template is None:
            # A base model knows no roles, so it continues the turns as plain text.
            ids = tokenizer("\n".join(message["content"] for message in prompt))["input_ids"]
        else:
            try:
                text = tokenizer.apply_chat_template(
                    list(prompt),
                    tools=None if tools is None else list(tools.described),
                    add_generation_prompt=True,
                    tokenize=False,
                    **(variables or {}),
                )
            except Exception as error:  # a template is a program, and fails in any way at what it does not expect
                raise invalid_field(field, f"the model's chat template refuses this: {error}") from None
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if not ids:  # some tokenizers drop every character of a text, and a model needs at least one token
            ids = [tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id]
        # A plain text is continued as it is, tags and all.
        return EncodedPrompt(list(ids), None if isinstance(prompt, str) else reasoning_tags(tokenizer, text), form)


def _ids(ids: int | list[int] | None) -> set[int]:
    return {ids} if isinstance(ids, int) else set(ids or ())


def _with_tools(turns: tuple[Message, ...]) -> bool:
    return any(turn["role"] == "tool" or "tool_calls" in turn for turn in turns)


def load_checkpoint(
    source: str,
    device: str,
    dtype: str,
    report: Callable[[str], None],
    load_format: LoadFormat = "auto",
    *,
    revision: str | None = None,
    quantize: Quantization | None = None,
    pack_weights: bool = False,
) -> Checkpoint:
    """Load from a folder, or from a hub id at `revision`: safetensors only, no remote code. Raises ModelError with one
    line. `device`, `dtype`, `load_format`, `quantize` and `pack_weights` are as in EngineSettings.

    torch and transformers are imported here and not with the module, because the port is open before that.
    """
    report("importing torch")
    import torch  # noqa: F401  the longest import by far, so it is a phase of its own

    from predictor.imports.lean_imports import lean_imports

    limit_threads()
    report("importing transformers")
    with lean_imports():
        return _load(source, revision, device, dtype, report, load_format, quantize, pack_weights)


def _load(
    source: str,
    revision: str | None,
    device: str,
    dtype: str,
    report: Callable[[str], None],
    load_format: LoadFormat,
    quantize: Quantization | None,
    pack_weights: bool,
) -> Checkpoint:
    import torch
    from transformers.models.auto.configuration_auto import AutoConfig
    from transformers.models.auto.modeling_auto import AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    from predictor.cpu.packed_linear import pack_linear_layers
    from predictor.cpu.stored_embedding import keep_stored_embedding
    from predictor.loading.device import choose_device, served_dtype
    from predictor.loading.quantization import weight_format

    transformers_logging.disable_progress_bar()
    if not log.isEnabledFor(logging.DEBUG):
        transformers_logging.set_verbosity_error()  # errors become one line below
        logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)  # it logs each of its retries
    device = choose_device(device)
    try:
        report("loading the tokenizer")
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
        stored = config.dtype  # None where only the weights say it
        form = weight_format(source, revision, config, device, dtype, quantize)
        tokenizer = load_tokenizer(source, revision)
        if not tokenizer.is_fast:
            raise ModelError("it has no tokenizer.json, and slow tokenizers are not served")
        report("loading the weights")
        served = served_dtype(dtype, stored, device, config)
        options: dict[str, Any] = {
            "config": config,
            "dtype": served,
            "use_safetensors": True,
            "trust_remote_code": False,
            "ignore_mismatched_sizes": True,
            "output_loading_info": True,
            **placement(device),
            **form.options,
        }
        weights = read_weights(source, device, load_format, config) if form.plain else None
        packs = pack_weights and form.plain and device == "cpu"
        try:
            with stored_types() if packs else nullcontext():
                model, info = _read_model(source, revision, weights, options)
        except ImportError:
            text = config.get_text_config()
            if text is config or type(text) not in AutoModelForCausalLM._model_mapping:
                raise
            # A model of several kinds needs a package for pictures or sound that is not installed; its texts do not.
            log.debug("%s is loaded without what is not for texts", source, exc_info=True)
            options |= {"config": text, "key_mapping": {r"^model\.language_model\.": "model."}}
            model, info = _read_model(source, revision, weights, options)
        _check_weights(info)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        if not form.kept:  # what is quantized lies where it is to lie, and may refuse to be moved
            model.to(device)
            wanted = "auto" if form.plain else served  # what was dequantized is in another type than the rest
            if stored is None and dtype == "auto":
                wanted = served_dtype(dtype, model.dtype, device, config)
            if packs:
                wanted = served
                pack_linear_layers(model, getattr(torch, served), exact=True)
                keep_stored_embedding(model, getattr(torch, served))
            if wanted != "auto":
                model.to(getattr(torch, wanted))
    except Exception as error:
        log.debug("loading %s failed", source, exc_info=True)
        raise ModelError(f"cannot load {source}: {first_line(error)}") from error
    if device == "cpu":
        limit_threads(parameters)
    context = scaled_context(model.config.get_text_config())
    return Checkpoint(model.eval(), tokenizer, torch.device(device), context or 2**20)


def _read_model(source: str, revision: str | None, weights: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A model of the `config` among the options of from_pretrained, and what its loading tells. `weights` are its
    tensors where they have been read already."""
    from transformers.generation.configuration_utils import GenerationConfig
    from transformers.models.auto.modeling_auto import AutoModelForCausalLM

    if weights is None:
        model, info = AutoModelForCausalLM.from_pretrained(source, revision=revision, **options)
    else:
        made = AutoModelForCausalLM._model_mapping[type(options["config"])]
        model, info = made.from_pretrained(None, state_dict=weights, **options)
        if (Path(source) / "generation_config.json").is_file():
            model.generation_config = GenerationConfig.from_pretrained(source)
    return model, info


def _check_weights(info: dict[str, Any]) -> None:
    """transformers fills tensors that it does not find with random numbers, which would be served as noise."""
    wrong = {"missing": sorted(info["missing_keys"]), "of the wrong shape": sorted(info["mismatched_keys"])}
    for what, tensors in wrong.items():
        if tensors:
            first = tensors[0] if isinstance(tensors[0], str) else tensors[0][0]
            raise ModelError(f"{len(tensors)} of its tensors are {what}, {first} among them")
