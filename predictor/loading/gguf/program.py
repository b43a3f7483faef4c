"""`python -m predictor.loading.gguf.program FILE FOLDER` writes a GGUF file as a folder of safetensors.

It is a process of its own: what it imports and takes of memory is gone once it ends. Its output is lines of a word and
a value: `progress` in percent, `peak` in bytes of memory, or `error` with what is wrong.
"""

from __future__ import annotations

import logging
import os
import resource
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from predictor.errors import ModelError, first_line
from predictor.loading.gguf.header import MOST_NUMBERS, GgufHeader, read_header, skip_texts
from predictor.system_calls import end_with

log = logging.getLogger(__name__)

_KNOWN_SPLITS = {"default", "gpt-2", "smollm"}
"""Ways to split a text of which transformers knows no more than GPT-2's, with the same outcome."""


def main(arguments: Sequence[str]) -> int:
    file, folder, parent = arguments
    end_with(int(parent))
    try:
        convert(Path(file), Path(folder))
    except Exception as error:
        log.debug("converting %s failed", file, exc_info=True)
        _tell("error", " ".join(str(error).split()) if isinstance(error, ModelError) else first_line(error))
        return 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _tell("peak", peak if sys.platform == "darwin" else peak * 1024)
    return 0


def convert(file: Path, folder: Path) -> None:
    """Write the model, its tokenizer and its configs to `folder`. Raises ModelError, and what transformers raises."""
    header = read_header(file)
    check_tensors(header)
    import gguf
    import torch
    from transformers import modeling_gguf_pytorch_utils, modeling_utils
    from transformers.models.auto.configuration_auto import AutoConfig
    from transformers.models.auto.modeling_auto import AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging
    from transformers.utils.quantization_config import GgufConfig

    from predictor.loading.gguf.corrections import check_all_read, correct_config, generation_defaults

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    tokenizer = read_tokenizer(header)
    with tempfile.TemporaryDirectory() as alone:  # transformers would read what else lies beside the file
        (Path(alone) / "model.gguf").symlink_to(file.absolute())
        source = {"pretrained_model_name_or_path": alone, "gguf_file": "model.gguf"}
        # transformers wants accelerate for GGUF, and does not use it then.
        with (
            mock.patch.object(gguf, "GGUFReader", lean_reader()),
            mock.patch.object(modeling_utils, "is_accelerate_available", return_value=True),
            mock.patch.object(modeling_gguf_pytorch_utils, "tqdm", _progress),
        ):
            config = AutoConfig.from_pretrained(**source)
            if type(config) not in AutoModelForCausalLM._model_mapping:
                raise ModelError(f"its architecture {header.architecture} is of no language model")
            correct_config(config, header)
            model, info = AutoModelForCausalLM.from_pretrained(
                **source,
                config=config,
                dtype=getattr(torch, header.dtype),
                quantization_config=GgufConfig(dequantize=True),
                ignore_mismatched_sizes=True,  # they are told below
                output_loading_info=True,
            )
    for what, said in (("missing_keys", "not in it"), ("mismatched_keys", "of another shape")):
        if info[what]:
            raise ModelError(f"{len(info[what])} of the tensors that transformers expects are {said}")
    check_all_read(model, header)
    special = {token.content: id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    known = model.generation_config.eos_token_id
    model.generation_config.update(**generation_defaults(header, special, known))
    if header.generation_config.exists():
        model.generation_config.update(**read_defaults(header.generation_config))
    model.config._name_or_path = ""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def read_defaults(file: Path) -> dict[str, Any]:
    """What a generation config says that is not so anyway. Raises ModelError."""
    from transformers.generation.configuration_utils import GenerationConfig

    try:
        values: dict[str, Any] = GenerationConfig.from_pretrained(file.parent).to_diff_dict()
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} is no generation config: {first_line(error)}") from error
    return values


def check_tensors(header: GgufHeader) -> None:
    """Raises ModelError for what is known to fail: a type of blocks or an architecture, or a file that is cut off."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import _type_traits
    from transformers.integrations.gguf.gguf_config_mapping import GGUF_CONFIG_ARCHS
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    name = header.architecture.replace("moe", "_moe").replace("-", "_")
    if not {header.architecture, name} & {*GGUF_SUPPORTED_ARCHITECTURES, *GGUF_CONFIG_ARCHS}:
        raise ModelError(f"its architecture {header.architecture} is not read from GGUF by transformers")
    plain = {GGMLQuantizationType.F32, GGMLQuantizationType.F16}
    for tensor in header.tensors:
        try:
            kind = GGMLQuantizationType(tensor.type)
        except ValueError:
            raise ModelError(f"the tensor {tensor.name} is of the unknown type {tensor.type}") from None
        if kind not in {*plain, *_type_traits}:
            raise ModelError(f"the tensor {tensor.name} is of the type {kind.name}, which is not read")
        elements, size = GGML_QUANT_SIZES[kind]
        if tensor.offset + tensor.elements // elements * size > header.size:
            raise ModelError(f"it is cut off within the tensor {tensor.name}")


def read_tokenizer(header: GgufHeader) -> Any:
    """As AutoTokenizer makes it of the file, without the class of its architecture: some of these build the tokenizer
    anew when it is read, and know less than the file."""
    from transformers import PreTrainedTokenizerFast
    from transformers.integrations.gguf.gguf_tokenizer_mapping import (
        GGUF_PRE_TOKENIZER_SPLITS,
        convert_gguf_tokenizer,
        get_gguf_tokenizer,
    )

    architecture, parts, options = get_gguf_tokenizer(str(header.path))
    split = parts.get("pre_tokenizer_type")
    if parts.get("tokenizer_type") == "gpt2" and split not in {None, *_KNOWN_SPLITS, *GGUF_PRE_TOKENIZER_SPLITS}:
        _tell("warning", f"transformers does not know how {split} splits texts: some may be read in other tokens")
    built, _ = convert_gguf_tokenizer(architecture, parts)
    return PreTrainedTokenizerFast(tokenizer_object=built, **options)


def lean_reader() -> Any:
    """gguf's reader without the vocabulary, which has been read already: it takes most of the reader's time, twice."""
    from gguf import GGUFReader, GGUFValueType

    class LeanReader(GGUFReader):  # type: ignore[misc]  # not typed
        def _get_field_parts(self, at: int, type: int) -> Any:
            if type != GGUFValueType.ARRAY:
                return super()._get_field_parts(at, type)
            of, count = GGUFValueType(int.from_bytes(self.data[at : at + 4], "little")), self.data[at + 4 : at + 12]
            many = int.from_bytes(count, "little")
            if many <= MOST_NUMBERS:
                return super()._get_field_parts(at, type)
            end = at + 12
            if of == GGUFValueType.STRING:
                end = skip_texts(self.data, end, many, len(self.data))
            else:
                end += many * self.gguf_scalar_to_np[of]().nbytes
            return end - at, [], [], [GGUFValueType(type), of]

    return LeanReader


def _progress(tensors: Sequence[Any], **_: object) -> Iterator[Any]:
    """In the place of tqdm, in steps of 5 %. Reading is nearly all; then the numbers are written."""
    total, done = sum(int(tensor.n_bytes) for tensor in tensors), 0
    for tensor in tensors:
        yield tensor
        before, done = done, done + int(tensor.n_bytes)
        if (percent := done * 18 // total * 5) != before * 18 // total * 5:
            _tell("progress", percent)


def _tell(word: str, value: object) -> None:
    print(word, value, flush=True)


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(status)
