"""How much of the host's memory is left to a process."""

from __future__ import annotations

from pathlib import Path

import pytest

from predictor.loading import device_memory

GIB = 2**30


@pytest.mark.parametrize(
    ("resident", "free", "left"),
    [(3 * GIB, 20 * GIB, 5 * GIB), (3 * GIB, 2 * GIB, 2 * GIB), (9 * GIB, 20 * GIB, 0), (None, None, 8 * GIB)],
    ids=["its container's limit", "what others leave", "nothing", "no proc"],
)
def test_the_least_of_the_limit_and_of_what_is_free_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, resident: int | None, free: int | None, left: int
) -> None:
    monkeypatch.setattr(device_memory, "available_memory", lambda _device: 8 * GIB)
    if resident is not None and free is not None:
        (tmp_path / "self").mkdir()
        (tmp_path / "self/status").write_text(f"VmHWM:\t 99 kB\nVmRSS:\t {resident // 1024} kB\nRssAnon:\t 1 kB\n")
        (tmp_path / "meminfo").write_text(f"MemTotal:  99 kB\nMemFree:  1 kB\nMemAvailable:  {free // 1024} kB\n")

    assert device_memory.free_host_memory(tmp_path) == left
