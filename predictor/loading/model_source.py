"""Where a model comes from: a folder, a hub id or KServe's mount point."""

from __future__ import annotations

import re
from pathlib import Path

from contract.request import Kind
from predictor.errors import ModelError

_INDEX: dict[Kind, str] = {"text": "config.json", "image": "model_index.json"}
"""The file by which a folder with a transformers or a diffusers model is recognised."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)


def check_source(model: str, kind: Kind | None = None, revision: str | None = None) -> Kind:
    """The kind of a model: `kind`, or what its folder shows, or text for a hub id.

    Raises ModelError for a folder without a model in safetensors, for a malformed id, and for a `revision` of anything
    but a hub id: imports nothing heavy.
    """
    folder = Path(model)
    if folder.is_dir():
        if revision is not None:
            raise ModelError(f"--revision is for a hub id, and {model} is a folder: leave it out")
        kind = kind or ("image" if (folder / _INDEX["image"]).is_file() else "text")
        if not (folder / _INDEX[kind]).is_file():
            raise ModelError(f"the folder {model} holds no {kind} model: there is no {_INDEX[kind]} in it")
        if not any(folder.glob("*.safetensors" if kind == "text" else "*/*.safetensors")):
            raise ModelError(f"the folder {model} holds no *.safetensors; other weight formats are not loaded")
    elif folder.exists():
        raise ModelError(f"{model} is a file; give the folder that holds config.json and *.safetensors")
    elif not _HUB_ID.fullmatch(model):
        raise ModelError(f"there is no folder {model if model.isprintable() else repr(model)}")
    return kind or "text"
