"""The images that criu writes: what must not be in them, and what is changed in them."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterable
from pathlib import Path

_BOUNDING_SET = 12
"""Number of the field cap_bnd in CRIU's creds.proto: two unsigned numbers of 32 bits, one after the other."""

_ALL = 2**32 - 1
_ALL_HIGH = 2**9 - 1
"""Linux has 41 capabilities, the last of which is CHECKPOINT_RESTORE."""


def find(images: Path, texts: Iterable[str]) -> list[str]:
    """Those of the texts that are in any image."""
    left = {text: text.encode() for text in texts if text}
    found = []
    for path in sorted(images.iterdir()):
        if not path.stat().st_size:
            continue
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            for text in [text for text, encoded in left.items() if mapped.find(encoded) >= 0]:
                found.append(text)
                del left[text]
    return found


def fill_bounding_set(images: Path, bounding_set: int) -> None:
    """Have a restore drop nothing of the container's bounding set, which it may not without CAP_SETPCAP. `bounding_set`
    is that of the dumped process. Raises RuntimeError where it is not found."""
    low, high = bounding_set & _ALL, bounding_set >> 32
    before = encoded(low) + encoded(high)
    after = encoded(_ALL) + encoded(high | _ALL_HIGH)
    if before == after:
        return
    if len(before) != len(after):
        raise RuntimeError(f"the bounding set {bounding_set:x} leaves no room for a full one")
    for path in images.glob("core-*.img"):
        content = path.read_bytes()
        if content.count(before) != 1:
            raise RuntimeError(f"{path.name} does not have the bounding set {bounding_set:x}")
        path.write_bytes(content.replace(before, after))


def bounding_set(status: str) -> int:
    """That of a process, of the text of /proc/PID/status."""
    found = re.search(r"^CapBnd:\s+([0-9a-f]+)$", status, re.MULTILINE)
    return int(found[1], 16) if found else 0


def encoded(value: int) -> bytes:
    """One of the two numbers of the bounding set, as protobuf writes it."""
    written = bytearray([_BOUNDING_SET << 3])
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
