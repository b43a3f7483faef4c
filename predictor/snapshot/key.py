"""What a snapshot is for: written beside its images at the dump, compared before a restore.

A checksum of each image is part of it. It finds damage, as of a disk, and no intent: whoever can change an image can
change the checksum. Imports little, because each start waits for it.
"""

from __future__ import annotations

import json
import os
import zlib

FILE = "key.json"

CHUNK_BYTES = 2**20

NAMES = frozenset(("user", "machine", "kernel", "flags", "meeting_point", "files", "checksums"))

Json = dict[str, object]


class Mismatch(Exception):
    """This snapshot is not for this machine, user or image, or is damaged; why, in one line."""


def describe(images: str, meeting_point: str, files: list[str]) -> Json:
    """The key of the images in a folder, for a process of this user that has these files open or mapped."""
    return {
        "user": os.geteuid(),
        "machine": os.uname().machine,
        "kernel": list(_version(os.uname().release)),
        "flags": sorted(cpu_flags()),
        "meeting_point": meeting_point,
        "files": {path: _stamp(path) for path in sorted(files)},
        "checksums": {name: checksum(os.path.join(images, name)) for name in sorted(os.listdir(images))},
    }


def write(images: str, key: Json) -> None:
    """Put the key beside its images."""
    text = json.dumps(key, indent=1)
    with open(os.path.join(images, FILE), "w") as file:
        file.write(f"{zlib.crc32(text.encode()):08x}\n{text}")


def read(images: str) -> Json:
    """The key beside these images. Raises a Mismatch where there is none, or a damaged one."""
    try:
        with open(os.path.join(images, FILE), "rb") as file:
            stated, text = file.read().split(b"\n", 1)
        if int(stated, 16) != zlib.crc32(text):
            raise Mismatch("its key is damaged")
        key: Json = json.loads(text)
        if not key.keys() >= NAMES:
            raise Mismatch("its key is damaged")
    except OSError as error:
        raise Mismatch(f"there is no key in {images}: {error.strerror}") from None
    except ValueError:
        raise Mismatch("its key is damaged") from None
    return key


def check_machine(key: Json) -> None:
    """Compare all but the images, within milliseconds. Raises a Mismatch."""
    if key["user"] != os.geteuid():
        raise Mismatch(f"it is for the user {key['user']}, and this is {os.geteuid()}")
    system = os.uname()
    if key["machine"] != system.machine:
        raise Mismatch(f"it is for {key['machine']}, and this is {system.machine}")
    kernel: list[int] = key["kernel"]  # type: ignore[assignment]
    if _version(system.release) < tuple(kernel):
        raise Mismatch(f"it needs Linux {kernel[0]}.{kernel[1]}, and this is {system.release}")
    flags: list[str] = key["flags"]  # type: ignore[assignment]
    if missing := set(flags) - cpu_flags():
        raise Mismatch(f"this CPU lacks {' '.join(sorted(missing)[:5])}")
    files: dict[str, list[int] | None] = key["files"]  # type: ignore[assignment]
    for path, stamp in files.items():
        if _stamp(path) != stamp:
            raise Mismatch(f"{path} is another one")


def check_images(images: str, key: Json) -> None:
    """Read all images. Raises a Mismatch for a damaged one, as soon as it is found."""
    sums: dict[str, int] = key["checksums"]  # type: ignore[assignment]
    for name, stated in sums.items():
        try:
            found = checksum(os.path.join(images, name))
        except OSError as error:
            raise Mismatch(f"the image {name} cannot be read: {error.strerror}") from None
        if found != stated:
            raise Mismatch(f"the image {name} is damaged")


def checksum(path: str) -> int:
    """CRC-32 of a file: some gigabytes a second, and other threads run meanwhile."""
    sum_ = 0
    chunk = bytearray(CHUNK_BYTES)
    with open(path, "rb", buffering=0) as file, memoryview(chunk) as view:
        while count := file.readinto(chunk):
            sum_ = zlib.crc32(view[:count], sum_)
    return sum_


def cpu_flags() -> set[str]:
    """What the CPU can do, as Linux calls it; empty where it does not say."""
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() in ("flags", "Features"):
                    return set(value.split())
    except OSError:
        pass
    return set()


def _stamp(path: str) -> list[int] | None:
    """Size and second of the last change, which layers of an image keep; None where there is no such file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return [found.st_size, int(found.st_mtime)]


def _version(release: str) -> tuple[int, int]:
    major, minor = release.split(".")[:2]
    return int(major), int("".join(digit for digit in minor if digit.isdecimal()) or 0)
