"""A snapshot of the poet, and what is asked of a pod that has it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tests.support.snapshots.pod import Pod

SECRET = "planted-secret-of-the-build"
BUILD_HOST = "host-that-builds-the-image"
"""Of the environment that the snapshot is made in."""

MODEL = ("--model", "models/poet", "--slots", "4", "--memory", "2Gi")

COMPLETIONS = "/openai/v1/completions"
ASKED = {"model": "poet", "prompt": "写一首关于春雨的诗", "seed": 7, "max_tokens": 40}


def text(pod: Pod, **changed: object) -> str:
    status, answer = pod.ask(COMPLETIONS, {**ASKED, **changed})
    assert status == 200, answer
    written: str = json.loads(answer)["choices"][0]["text"]
    return written


@dataclass
class Snapshot:
    """Of the poet."""

    images: Path
    criu: Path
    log: str

    @property
    def environment(self) -> dict[str, str]:
        return {"SNAPSHOT_IMAGES": str(self.images), "SNAPSHOT_CRIU": str(self.criu)}
