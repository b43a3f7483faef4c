"""A tokenizer that the Rust library loads from tokenizer.json, where transformers would build the same one in Python.

transformers 5.23 reads the vocabulary into Python and builds a tokenizer of its class from it. For 262,000 tokens that
takes longer than loading the model. Here transformers builds its class with hardly any vocabulary. If the result equals
the file in everything else, it gets the tokenizer that the Rust library has loaded from the file. If not, transformers
builds it from the whole file.
"""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import BPE

log = logging.getLogger(__name__)

LARGE_BYTES = 2**22
"""Size of a tokenizer.json below which transformers is as quick."""

_SETTINGS = (
    *("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"),
    *("fuse_unk", "byte_fallback", "ignore_merges"),
)


_kept: dict[str, tuple[object, Any]] = {}
"""By the model's folder: its files as they were, and the tokenizer."""


def preload_tokenizer(source: str) -> None:
    """Load the tokenizer of a folder for the `load_tokenizer` of processes that are forked from this one. Nothing where
    that fails, and for a hub id, whose files may be others by then."""
    try:
        versions = file_versions(source)
        tokenizer = load_tokenizer(source)
        if tokenizer.chat_template is not None:  # its program is compiled once
            tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
    except Exception as error:
        log.debug("the tokenizer of %s is not loaded beforehand: %s", source, error)
    else:
        keep_tokenizer(source, versions, tokenizer)


def keep_tokenizer(source: str, versions: object, tokenizer: Any) -> None:
    """For the next `load_tokenizer` of this folder, whose files had these versions before it was loaded."""
    _kept[source] = versions, tokenizer


def load_tokenizer(source: str, revision: str | None = None) -> Any:
    """The tokenizer that AutoTokenizer makes of a folder, or of a hub id at `revision`. Raises what it raises."""
    if source in _kept and revision is None:
        versions, tokenizer = _kept.pop(source)
        if versions == file_versions(source):
            return tokenizer
    from transformers.models.auto.tokenization_auto import AutoTokenizer

    file = Path(source) / "tokenizer.json"
    if file.is_file() and file.stat().st_size >= LARGE_BYTES:
        try:
            tokenizer = _completed(file.parent, Tokenizer.from_file(str(file)))
        except Exception:
            log.debug("%s is not loaded by the Rust library", file, exc_info=True)
            tokenizer = None
        if tokenizer is not None:
            return tokenizer
    return AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)


def file_versions(source: str) -> object:
    """What tells the files of a folder from later ones, but for the weights. Raises an OSError without a folder."""
    status = {path.name: path.stat() for path in Path(source).iterdir() if path.suffix != ".safetensors"}
    return {name: (each.st_mtime_ns, each.st_size, each.st_ino) for name, each in status.items()}


def _completed(source: Path, whole: Tokenizer) -> Any:
    """transformers' class for this folder around `whole`; None when transformers would build a different tokenizer."""
    from transformers.models.auto.tokenization_auto import AutoTokenizer

    # transformers repairs Mistral's tokenizers, and only large ones, so a small one proves nothing.
    if not isinstance(whole.model, BPE) or "tral" in json.loads((source / "config.json").read_text())["model_type"]:
        return None
    small = _without_vocabulary(whole)
    with tempfile.TemporaryDirectory() as folder:
        for path in source.iterdir():
            if path.name != "tokenizer.json" and path.suffix != ".safetensors":
                (Path(folder) / path.name).symlink_to(path.resolve())
        small.save(str(Path(folder) / "tokenizer.json"))
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    made = getattr(tokenizer, "_tokenizer", None)
    if not isinstance(made, Tokenizer) or _settings(made) != _settings(small):
        return None
    if repr(made.get_added_tokens_decoder()) != repr(whole.get_added_tokens_decoder()):
        return None
    whole.encode_special_tokens = made.encode_special_tokens
    tokenizer.name_or_path = str(source)
    tokenizer._tokenizer = whole
    return tokenizer


def _without_vocabulary(whole: Tokenizer) -> Tokenizer:
    """A tokenizer with the same parts and added tokens, and without the rest of the vocabulary and the merges."""
    added = whole.get_added_tokens_decoder()
    kept = {token.content: number for number, token in added.items()}
    unknown = whole.model.unk_token
    unknown_id = None if unknown is None else whole.token_to_id(unknown)
    if unknown_id is not None:
        kept[unknown] = unknown_id
    settings = {name: getattr(whole.model, name) for name in _SETTINGS}
    small = Tokenizer(BPE(kept, [], **{name: value for name, value in settings.items() if value is not None}))
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        if getattr(whole, part) is not None:
            setattr(small, part, getattr(whole, part))
    if whole.truncation is not None:
        small.enable_truncation(**whole.truncation)
    if whole.padding is not None:
        small.enable_padding(**whole.padding)
    small.add_tokens([token for _, token in sorted(added.items())])
    return small


def _settings(tokenizer: Tokenizer) -> dict[str, Any]:
    """Everything but the vocabulary and the merges."""
    settings: dict[str, Any] = json.loads(tokenizer.to_str())
    del settings["model"]["vocab"], settings["model"]["merges"]
    return settings
