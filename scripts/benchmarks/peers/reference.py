"""The texts that `generate` writes, greedily, in one batch in a process of its own.

`python -m scripts.benchmarks.peers.reference MODEL DTYPE TOKENS` reads prompts from stdin as JSON and prints texts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from scripts.project import ROOT


def reference_texts(model: Path, dtype: str, prompts: list[str], tokens: int) -> list[str]:
    command = [sys.executable, "-m", "scripts.benchmarks.peers.reference", str(model), dtype, str(tokens)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        input=json.dumps(prompts),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        process_group=0,
    )
    texts: list[str] = json.loads(done.stdout)
    return texts


if __name__ == "__main__":
    os.environ |= {"MODEL": sys.argv[1], "DTYPE": sys.argv[2]}
    from scripts.benchmarks.peers.static_batch import StaticBatch

    asked = [{"prompt": prompt, "max_tokens": int(sys.argv[3])} for prompt in json.load(sys.stdin)]
    print(json.dumps([written["text"] for written in StaticBatch().write(asked)]))
