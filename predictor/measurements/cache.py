"""The folders in which measurements are kept, a file for each model and kind of record.

What is kept is only ever a saving of time: an entry that cannot be read, or is not of this key, is measured anew, and a
folder that cannot be written to is passed over.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from predictor.errors import ModelError
from predictor.loading.cache_folders import BESIDE_MODEL, cache_folders, replace_file
from predictor.measurements.records import Record

log = logging.getLogger(__name__)

ENTRY_BYTES = 65_536
"""Larger files are none of ours."""

ENTRIES = 512
"""Most files of a folder: those of other weights, versions and settings are of no use any more some day."""

_OURS = re.compile(r"(fp|start)_[0-9a-f]{16}-[A-Za-z]+\.json")
"""Names of entries."""

AnyRecord = TypeVar("AnyRecord", bound=Record)


class MeasurementCache:
    """Finds records in any of `folders`, the first one first, and keeps them in the first of `kept_in` that can be
    written to; with `must_keep`, one that cannot raises ModelError."""

    def __init__(self, folders: Sequence[Path] = (), *, kept_in: Sequence[Path] = (), must_keep: bool = False) -> None:
        self._folders = folders
        self._kept_in = kept_in
        self.must_keep = must_keep
        self.kept: list[Path] = []
        """Files that were written."""

    def find(self, record: type[AnyRecord], key: str) -> AnyRecord | None:
        """What was kept under this key; None where there is nothing that can be used."""
        for folder in self._folders:
            file = folder / _file_name(record, key)
            try:
                if file.stat().st_size > ENTRY_BYTES:
                    raise ValueError("it is too large")
                entry = TypeAdapter(dict[str, object]).validate_json(file.read_bytes())
                if entry.get("key") != key:
                    raise ValueError("it is of another key")
                found = record.model_validate(entry.get("values"))
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                reason = "it is none of ours" if isinstance(error, ValidationError) else error
                log.warning("%s is not used: %s", file, reason)
                continue
            with suppress(OSError):
                os.utime(file)  # the oldest are forgotten
            log.info("remembered from %s", file)
            return found
        return None

    def keep(self, record: Record, key: str) -> Path | None:
        """Keep a record for the next start; the file it is in, or None where no folder can be written to."""
        text = json.dumps({"key": key, "values": record.model_dump(mode="json")}, indent=1, sort_keys=True)
        for folder in self._kept_in:
            file = folder / _file_name(type(record), key)
            try:
                folder.mkdir(mode=0o755 if folder.name == BESIDE_MODEL else 0o700, parents=True, exist_ok=True)
                replace_file(file, text + "\n")
                _forget_oldest(folder)
            except OSError as error:
                if self.must_keep:
                    raise ModelError(f"what was measured cannot be kept in {folder}: {error.strerror}") from error
                log.debug("nothing is kept in %s: %s", folder, error)
                continue
            log.info("measured, and kept in %s", file)
            self.kept.append(file)
            return file
        if self._kept_in:
            log.info("what was measured is not kept: no folder can be written to")
        return None


NOWHERE = MeasurementCache()
"""Remembers nothing."""


def measurement_cache(model: str, wanted: str, environment: Mapping[str, str] = os.environ) -> MeasurementCache:
    """Where the measurements of a model are: `wanted` is the setting `cache_folder`, and empty for nowhere."""
    read, kept_in = cache_folders(model, wanted, environment)
    return MeasurementCache(read, kept_in=kept_in) if wanted else NOWHERE


def _file_name(record: type[Record], key: str) -> str:
    return f"{key}-{record.__name__}.json"


def _forget_oldest(folder: Path) -> None:
    """Of our own files: others may have theirs in the folder, too."""
    files = [file for file in folder.iterdir() if _OURS.fullmatch(file.name)]
    if len(files) > ENTRIES:
        files.sort(key=lambda file: file.stat().st_mtime_ns)
        for file in files[: len(files) - ENTRIES]:
            file.unlink(missing_ok=True)
