"""Where a model comes from: a folder, a hub id or KServe's mount point."""

from __future__ import annotations

import re
from pathlib import Path

from predictor.engine import ModelError

MOUNT_POINT = "/mnt/models"
"""Where KServe's storage initializer puts the model."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)


def check_source(model: str) -> None:
    """Raise ModelError for what can be seen to be wrong before anything heavy is imported."""
    folder = Path(model)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(f"the folder {model} holds no model: there is no config.json in it")
        if not any(folder.glob("*.safetensors")):
            raise ModelError(f"the folder {model} holds no *.safetensors; other weight formats are not loaded")
    elif folder.exists():
        raise ModelError(f"{model} is a file; give the folder that holds config.json and *.safetensors")
    elif not _HUB_ID.fullmatch(model):
        raise ModelError(f"there is no folder {model if model.isprintable() else repr(model)}")
