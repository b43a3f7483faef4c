"""In which folders a predictor finds and keeps what its next start need not do again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

BESIDE_MODEL = ".shangcai"
"""Name of the folder in the model's own, for what comes with the model: all that read it read them."""

MOUNTED = Path("/mnt/cache")
"""A volume for caches, where a pod has one."""


class CacheFolders(NamedTuple):
    """Those that are looked through, the first one first; and those that are kept in: the first that can be written
    to."""

    read: Sequence[Path]
    kept_in: Sequence[Path]


def cache_folders(model: str, wanted: str, environment: Mapping[str, str] = os.environ) -> CacheFolders:
    """Of a model; the setting `cache_folder` is `wanted`, and empty for none.

    "auto" is MOUNTED where there is one, or the user's folder for caches. In a pod that is gone with the pod, so that
    a model on a volume that can be written to has them beside it.
    """
    if not wanted:
        return CacheFolders((), ())
    beside = [beside_model(model)] if os.path.exists(model) else []
    if wanted != "auto":
        own = [Path(wanted)]
    elif os.path.isdir(MOUNTED):
        own = [MOUNTED / "shangcai"]
    else:
        user = user_cache_folder(environment)
        own = [user] if user else []
        if "KUBERNETES_SERVICE_HOST" in environment:
            return CacheFolders([*beside, *own], [*beside, *own])
    return CacheFolders([*own, *beside], own)


def user_cache_folder(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Ours in the user's folder for caches; None for a user without a home."""
    places = [environment.get("XDG_CACHE_HOME", ""), os.path.expanduser("~/.cache")]
    return next((Path(place) / "shangcai" for place in places if os.path.isabs(place)), None)


def model_folder(model: str | os.PathLike[str]) -> Path:
    """Of a model that is a folder, or a file in one."""
    return Path(model).parent if os.path.isfile(model) else Path(model)


def beside_model(model: str) -> Path:
    """The folder for what goes wherever the model goes."""
    return model_folder(model) / BESIDE_MODEL


def replace_file(file: Path, text: str) -> None:
    """Write the whole file or nothing, whoever else writes it at the same time."""
    with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=f".{file.name}.", delete=False) as written:
        try:
            written.write(text)
            written.close()
            os.chmod(written.name, 0o644)
            os.replace(written.name, file)
        except BaseException:
            os.unlink(written.name)
            raise
