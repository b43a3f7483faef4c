"""Which GGUF file a model is, if it is one, and the folder that is served in its place."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from predictor.errors import ModelError, first_line
from predictor.loading.cache_folders import cache_folders
from predictor.loading.gguf.conversions import converted
from predictor.loading.gguf.header import is_gguf, read_header, split_refusal

log = logging.getLogger(__name__)

_INDEXES = ("config.json", "model_index.json")
_ON_HUB = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)/((?:\w[\w.-]*/)*\w[\w.-]*\.gguf)", re.ASCII)
_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)


def file_on_hub(model: str) -> tuple[str, str] | None:
    """The hub id and the file in it that `OWNER/NAME/FILE.gguf` names; None for another name, and for a part of a model
    raises ModelError."""
    found = _ON_HUB.fullmatch(model)
    if found and _PART.search(model):
        raise ModelError(split_refusal(model))
    return (found[1], found[2]) if found else None


def local_file(model: str) -> Path | None:
    """The GGUF file at this path, or the only one in this folder, which has no config; None where there is none.

    Raises ModelError for several.
    """
    if os.path.isfile(model):
        found = [Path(model)] if is_gguf(model) else []
    elif os.path.isdir(model) and not any(os.path.isfile(os.path.join(model, index)) for index in _INDEXES):
        found = sorted(path for path in Path(model).iterdir() if path.name.lower().endswith(".gguf"))
    else:
        return None
    if parts := [path for path in found if _PART.search(path.name)]:
        raise ModelError(split_refusal(parts[0]))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ModelError(f"the folder {model} holds several models, {names}: give one, as in {found[0]}")
    return found[0] if found else None


@contextmanager
def plain_source(
    model: str, revision: str | None, cache_folder: str, report: Callable[[str], None]
) -> Iterator[tuple[str, str | None]]:
    """What transformers reads, a folder or a hub id, and the revision of that; the folder stays while the context is
    open. Of a GGUF file it is the conversion, which is made where it is not kept yet. Raises ModelError."""
    file = local_file(model)
    if file is None and not os.path.exists(model) and (named := file_on_hub(model)):
        report("fetching the GGUF file")
        file = _fetch(*named, revision)
    if file is None:
        yield model, revision
        return
    report("reading the GGUF file's header")
    with converted(read_header(file), cache_folders(model, cache_folder), report) as folder:
        yield str(folder), None


def _fetch(repository: str, file: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    try:
        return Path(hf_hub_download(repository, file, revision=revision))
    except Exception as error:
        log.debug("fetching %s of %s failed", file, repository, exc_info=True)
        raise ModelError(f"cannot fetch {file} of {repository}: {first_line(error)}") from error
