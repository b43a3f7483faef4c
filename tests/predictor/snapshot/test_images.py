"""CRIU's images: what is found in them, and their bounding sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from predictor.snapshot import images

FULL = b"\x60\xff\xff\xff\xff\x0f\x60\xff\x03"
"""Field 12 of 32 and of 9 bits, as protobuf writes it."""


def test_texts_are_found_wherever_they_are(tmp_path: Path) -> None:
    (tmp_path / "empty.img").touch()
    (tmp_path / "pages-1.img").write_bytes(b"x" * 5000 + b"a-secret" + b"y" * 5000)
    (tmp_path / "files.img").write_bytes("家".encode())
    assert images.find(tmp_path, ["a-secret", "家", "another", ""]) == ["家", "a-secret"]


@pytest.mark.parametrize("left", [0x1FFFEFFFFFF, 0x100A80425FB, 0x1FFFFFFFFFF])
def test_a_restore_drops_nothing_of_a_bounding_set(tmp_path: Path, left: int) -> None:
    core = tmp_path / "core-1000.img"
    before = images.encoded(left & 0xFFFFFFFF) + images.encoded(left >> 32)
    core.write_bytes(b"before" + before + b"after")
    images.fill_bounding_set(tmp_path, left)
    assert core.read_bytes() == b"before" + FULL + b"after"


def test_a_bounding_set_that_is_not_there_or_too_small_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "core-1000.img").write_bytes(b"nothing")
    with pytest.raises(RuntimeError, match=r"core-1000\.img does not have the bounding set 100a80425fb"):
        images.fill_bounding_set(tmp_path, 0x100A80425FB)
    with pytest.raises(RuntimeError, match="leaves no room"):
        images.fill_bounding_set(tmp_path, 0x1)


def test_the_bounding_set_of_a_process() -> None:
    assert images.bounding_set("CapEff:\t00\nCapBnd:\t000001fffeffffff\nCapAmb:\t0\n") == 0x1FFFEFFFFFF
    assert images.bounding_set("") == 0
