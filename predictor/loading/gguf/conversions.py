"""Converted GGUF files: each a folder that transformers reads as any other model, made once and kept.

A folder is written beside its place and renamed, so that it is whole or not there. Two starts at once convert once: a
lock says who does, and ends with its process. Not the path but the content of a file decides which folder is its own.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from predictor.errors import ModelError
from predictor.imports.package_version import package_version
from predictor.loading.cache_folders import CacheFolders
from predictor.loading.gguf.conversion_process import run_conversion, size_of
from predictor.loading.gguf.folder_lock import FolderLock
from predictor.loading.gguf.header import GgufHeader
from predictor.loading.gguf.temporary_folder import temporary_folder
from predictor.loading.phases import CONVERTING, WAITING_FOR_CONVERSION

log = logging.getLogger(__name__)

KEPT = 4
"""Most conversions in a folder: the one that has not been used for longest is forgotten."""

_CODE = 1
"""Of what is written here; another number converts anew."""

_PACKAGES = ("transformers", "tokenizers", "gguf", "safetensors", "torch")

_MANIFEST = "conversion.json"
_FOLDER = "gguf"


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    bytes: int = Field(ge=0)
    sha256: str


class Conversion(BaseModel):
    """What a conversion has written: its files by their names, and how many bytes of memory it took."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    files: dict[str, _File] = Field(min_length=1)
    peak_bytes: int = Field(ge=0)

    @property
    def size(self) -> int:
        return sum(file.bytes for file in self.files.values())


def conversion_key(header: GgufHeader) -> str:
    """The same for the same content, as far as GgufHeader.content_digest tells, and the same libraries."""
    facts: dict[str, object] = {"content": header.content_digest(), "code": _CODE}
    facts |= {name: package_version(name) for name in _PACKAGES}
    with suppress(FileNotFoundError):
        facts["defaults"] = hashlib.sha256(header.generation_config.read_bytes()).hexdigest()
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


@contextmanager
def converted(header: GgufHeader, folders: CacheFolders, report: Callable[[str], None]) -> Iterator[Path]:
    """The folder with the converted file; nobody removes it while the context is open. Raises ModelError."""
    key = conversion_key(header)
    own = _writable(folders)
    for folder in (place / _FOLDER / key for place in folders.read):
        if folder.parent != own and read_conversion(folder):  # came with the model
            log.info("the conversion of %s is in %s", header.path, folder)
            yield folder
            return
    folder = (own or _temporary()) / key
    with _held(header, folder, report):
        with suppress(OSError):
            os.utime(folder / _MANIFEST)  # the oldest are forgotten
        log.info("the conversion of %s is in %s", header.path, folder)
        yield folder


@contextmanager
def _held(header: GgufHeader, folder: Path, report: Callable[[str], None]) -> Iterator[None]:
    """Have the conversion in this folder, and share its lock with others that load it."""
    lock = FolderLock(folder)

    def waiting() -> None:
        report(WAITING_FOR_CONVERSION)

    try:
        lock.share(waiting)
        while read_conversion(folder) is None:
            lock.own(waiting)
            try:
                if read_conversion(folder) is None:  # nobody has converted it meanwhile
                    _clean(folder)
                    _convert(header, folder, report)
            except BaseException:
                lock.remove()
                raise
            lock.share(waiting)
        yield
    finally:
        lock.release()


def read_conversion(folder: Path) -> Conversion | None:
    """What is recorded of a conversion; None where there is none, or files are missing or of another size."""
    try:
        known = Conversion.model_validate_json((folder / _MANIFEST).read_bytes())
        for name, file in known.files.items():
            if (folder / name).stat().st_size != file.bytes:
                raise ValueError(f"{name} is of another size")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = "its record is none of ours" if isinstance(error, ValidationError) else error
        log.warning("the conversion in %s is not used: %s", folder, reason)
        return None
    return known


def _writable(folders: CacheFolders) -> Path | None:
    for place in folders.kept_in:
        try:
            (place / _FOLDER).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            log.debug("nothing is kept in %s: %s", place, error)
            continue
        if os.access(place / _FOLDER, os.W_OK):
            return place / _FOLDER
    return None


def _temporary() -> Path:
    folder = temporary_folder()
    log.warning("there is no cache folder: the converted GGUF file is in %s while this process runs", folder)
    return folder


def _convert(header: GgufHeader, folder: Path, report: Callable[[str], None]) -> None:
    """Put the conversion into `folder`, whose lock is ours, in the place of what is there."""
    shutil.rmtree(folder, ignore_errors=True)
    report(CONVERTING)
    _check_space(header, folder.parent)
    beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        peak = run_conversion(header.path, beside, lambda percent: report(f"{CONVERTING}, {percent} %"))
        files = {path.name: _checked(path) for path in sorted(beside.iterdir())}
        _write(beside / _MANIFEST, Conversion(files=files, peak_bytes=peak).model_dump_json(indent=1) + "\n")
        _sync(beside)
        os.rename(beside, folder)
        _sync(folder.parent)
    except OSError as error:
        raise ModelError(f"{header.path} cannot be converted in {folder.parent}: {error.strerror}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _check_space(header: GgufHeader, place: Path) -> None:
    needed, free = size_of(header), shutil.disk_usage(place).free
    if needed > free:
        raise ModelError(
            f"the conversion of {header.path} takes {needed / 1e6:,.1f} MB in {place}, where {free / 1e6:,.1f} MB are "
            "free: --cache-folder (PREDICTOR_CACHE_FOLDER) can name another folder"
        )


def _checked(path: Path) -> _File:
    """Its size and its hash, once it is on the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        return _File(bytes=os.fstat(file.fileno()).st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


def _write(path: Path, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _clean(coming: Path) -> None:
    """Make room for a conversion whose lock is ours: remove what killed ones have left, and the oldest others."""
    for remains in coming.parent.glob(".*.*"):
        owner = coming.with_name(remains.name.split(".")[1])
        if owner == coming:
            shutil.rmtree(remains, ignore_errors=True)
        else:
            _remove_unless_used(owner, remains)
    known = [manifest for manifest in coming.parent.glob(f"*/{_MANIFEST}") if manifest.parent != coming]
    known.sort(key=lambda manifest: manifest.stat().st_mtime_ns)
    for manifest in known[: max(0, len(known) - KEPT + 1)]:
        log.info("the conversion in %s is forgotten", manifest.parent)
        _remove_unless_used(manifest.parent, manifest.parent)


def _remove_unless_used(owner: Path, folder: Path) -> None:
    """A folder that belongs to the conversion `owner`, and its lock, unless somebody has that."""
    lock = FolderLock(owner)
    if lock.try_to_own():
        (folder / _MANIFEST).unlink(missing_ok=True)  # first, so that nothing in part is ever taken for it
        shutil.rmtree(folder, ignore_errors=True)
        if not owner.exists():
            lock.remove()
    lock.release()
