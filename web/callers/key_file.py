"""The file of the callers' keys and shares.

One line a caller: its name, the hash of its key, and what it may take where that is another share than everybody's:
`NAME sha256:HEX concurrency=2 cost_per_minute=600`. The hash or the share may be missing. A caller's
webhooks are signed with the `webhook_secret=whsec_…` of one of its lines. Empty lines and those that
begin with # count for nothing. A caller may have several keys, which is how one key takes the place of another. A
deployment keeps the file in a Secret, which is mounted as a folder: an update swaps a link there.

The hash is a single SHA-256 and none that is slow on purpose. Slow hashes protect passwords, which can be guessed; a
key has 256 random bits, and a slow hash of each request's key would let anybody keep the server busy.
"""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
import time
from dataclasses import replace
from pathlib import Path

from web.callers.caller import NAME_TEXT, is_caller_name
from web.callers.share import Share, parse_share
from web.setting_values import signing_key

log = logging.getLogger(__name__)

CHECK_SECONDS = 2.0
"""How often it is looked whether the file has changed, at most. A key that is taken out is good for so long."""

FILE_BYTES = 1_048_576
"""Largest file that is read: about 10,000 keys."""

KEY_PREFIX = "shangcai_"
"""So that scanners for leaked secrets know a key when they see one."""

WEBHOOK_SECRET = "webhook_secret="  # noqa: S105 - its name

_ENTRY = re.compile(r"(\S+)(?:[ \t]+sha256:([0-9a-f]{64}))?((?:[ \t]+[a-z_]+=\S+)*)")


class KeyFileError(Exception):
    """What is wrong with the file, in one line."""


class KeyFile:
    """Raises a KeyFileError if the file is not good at the start. One that goes bad later changes nothing, and the log
    says so."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version = self._stat()
        self._callers, self._shares, self._signing_keys = self._read()
        self._checked = time.monotonic()

    def caller(self, key: str) -> str | None:
        """Whose key this is."""
        self._reload()
        # Found by its hash: the time of that depends on hashes, from which no key follows, and not on keys.
        return self._callers.get(key_hash(key))

    def share(self, caller: str, of_all: Share) -> Share:
        """What this caller may take: of what is not said of it, as much as all others."""
        self._reload()
        found = self._shares.get(caller)
        return replace(of_all, **found) if found else of_all

    def signing_key(self, caller: str) -> bytes | None:
        """What this caller's webhooks are signed with, if there is anything."""
        self._reload()
        return self._signing_keys.get(caller)

    def _reload(self) -> None:
        now = time.monotonic()
        if now - self._checked < CHECK_SECONDS:
            return
        self._checked = now
        version = self._stat()
        if version == self._version:
            return
        self._version = version
        try:
            self._callers, self._shares, self._signing_keys = self._read()
        except KeyFileError as error:
            log.error("the keys of before stay good: %s", error)
        else:
            log.info("%s was read again: it has %d keys", self._path, len(self._callers))

    def _stat(self) -> tuple[int, int, int] | None:
        """What changes with the file; None where there is none."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    def _read(self) -> tuple[dict[str, str], dict[str, dict[str, float]], dict[str, bytes]]:
        """The caller of each hash, and what is said of each caller's share and webhooks."""
        try:
            with self._path.open("rb") as file:
                content = file.read(FILE_BYTES + 1)
        except OSError as error:
            raise KeyFileError(f"{self._path}: {error.strerror}") from None
        if len(content) > FILE_BYTES:
            raise KeyFileError(f"{self._path}: has more than {FILE_BYTES} bytes")
        callers: dict[str, str] = {}
        shares: dict[str, dict[str, float]] = {}
        signing_keys: dict[str, bytes] = {}
        for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            entry = _ENTRY.fullmatch(line.strip())  # never shown: somebody may have put the key itself there
            if entry is None or not (entry[2] or entry[3]):
                form = "a name, sha256: with 64 hex digits, and perhaps a share such as concurrency=2"
                raise KeyFileError(f"{self._path}: line {number}: must be {form}")
            name, digest, words = entry[1], entry[2], entry[3].split()
            share = [word for word in words if not word.startswith(WEBHOOK_SECRET)]
            if not is_caller_name(name):
                raise KeyFileError(f"{self._path}: line {number}: a name must be {NAME_TEXT}")
            if digest and callers.setdefault(digest, name) != name:
                raise KeyFileError(f"{self._path}: line {number}: {callers[digest]} has the same key")
            try:
                if share and shares.setdefault(name, parse_share(share)) != parse_share(share):
                    raise ValueError("the caller has another share in a line before")
                for secret in (word.removeprefix(WEBHOOK_SECRET) for word in words if word not in share):
                    if signing_keys.setdefault(name, key := _signing_key(secret)) != key:
                        raise ValueError("the caller has another webhook_secret in a line before")
            except ValueError as error:
                raise KeyFileError(f"{self._path}: line {number}: {error}") from None
        return callers, shares, signing_keys


def _signing_key(secret: str) -> bytes:
    try:
        return signing_key(secret)
    except ValueError as error:
        raise ValueError(f"webhook_secret {error}") from None


def key_hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def make_key() -> str:
    return KEY_PREFIX + secrets.token_urlsafe(32)


def entry(name: str, key: str) -> str:
    """The line of a file that gives this caller this key."""
    return f"{name} sha256:{key_hash(key)}"
