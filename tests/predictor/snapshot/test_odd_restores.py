"""Many restores in which something goes wrong at random: each writes the right text in the end, or ends its container.

RESTORES says how many; SEED which ones.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from predictor.snapshot import key
from tests.support.snapshots import pod as pods
from tests.support.snapshots.pod import USER, Pod
from tests.support.snapshots.poet import MODEL, Snapshot, text

pytestmark = pytest.mark.nightly

RESTORES = int(os.environ.get("RESTORES", "200"))
SEED = int(os.environ.get("SEED", "20261126"))

LATEST = 0.5
"""Seconds after the start of a container until which something may go wrong: a restore takes about half of it."""


class OddRestores:
    """What goes wrong, with copies of the images of a snapshot."""

    def __init__(self, snapshot: Snapshot, chance: random.Random) -> None:
        self.folder = snapshot.images.parent
        self.criu = snapshot.criu
        self.copy = self.folder / "odd"
        self._images = snapshot.images
        self._chance = chance
        self.capabilities = ["checkpoint_restore"]
        self.privileged = True
        self.kill: Callable[[Pod], None] = lambda _: None

    def nothing(self) -> None:
        """The restore is left alone."""

    def refused(self) -> None:
        self.capabilities = self._chance.choice([[], ["setpcap"], ["checkpoint_restore"]])
        self.privileged = "checkpoint_restore" not in self.capabilities

    def foreign(self) -> None:
        """The key asks for what this machine has not, and is whole."""
        found = key.read(str(self.copy))
        changed: dict[str, object] = self._chance.choice(
            [
                {"flags": ["telepathy"]},
                {"kernel": [99, 1]},
                {"user": 7},
                {"machine": "s390x"},
                {"files": {"/x": [1, 2]}},
            ]
        )
        key.write(str(self.copy), {**found, **changed})

    def damaged(self) -> None:
        """Up to 64 KiB of any file are inverted, or it is cut off or gone."""
        path = self._chance.choice(sorted(self.copy.iterdir()))
        if self._chance.random() < 0.6:
            path = self.copy / "pages-1.img"
        size = path.stat().st_size
        how = self._chance.random()
        if how < 0.1:
            path.unlink()
        elif how < 0.2:
            os.truncate(path, self._chance.randrange(size))
        else:
            with path.open("r+b") as file:
                start = self._chance.randrange(size)
                file.seek(start)
                content = file.read(self._chance.choice([1, 4096, 65_536]))
                file.seek(start)
                file.write(bytes(byte ^ 0xFF for byte in content))

    def killed(self) -> None:
        """A process of the container gets a signal at a random moment."""
        delay = self._chance.uniform(0.0, LATEST)
        number = self._chance.choice([signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV])
        draw = self._chance.random()

        def kill(pod: Pod) -> None:
            first = pod.first
            time.sleep(delay)  # not a wait for a state: any moment is meant
            found = first.children(recursive=True)
            # A stopped predictor is the liveness probe's business, and not the launcher's.
            found = [process for process in found if number != signal.SIGSTOP or process.name() == "criu"]
            if found:
                found[int(draw * len(found))].send_signal(number)

        self.kill = kill

    def prepare(self) -> None:
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self._images, self.copy)
        for path in [self.copy, *self.copy.iterdir()]:
            os.chown(path, USER, USER)
            path.chmod(0o700 if path.is_dir() else 0o600)

    def run(self) -> Iterator[Pod]:
        environment = {"SNAPSHOT_IMAGES": str(self.copy), "SNAPSHOT_CRIU": str(self.criu)}
        with pods.pod(
            self.folder,
            [sys.executable, "-S", "-m", "predictor.snapshot", *MODEL],
            capabilities=self.capabilities,
            privileged=self.privileged,
            environment=environment,
        ) as pod:
            yield pod


def test_no_odd_restore_writes_a_wrong_text(
    snapshot: Snapshot, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(SEED)
    ends: dict[str, int] = {}
    for number in range(RESTORES):
        odd = OddRestores(snapshot, chance)
        what = chance.choice(["nothing", "refused", "foreign", "damaged", "damaged", "killed", "killed"])
        odd.prepare()
        getattr(odd, what)()
        for pod in odd.run():
            end = outcome(pod, odd, expected)
            ends[f"{what}: {end}"] = ends.get(f"{what}: {end}", 0) + 1
            print(f"{number}: {what}: {end}", flush=True)  # shown by -s, and where it fails
            assert what in ("nothing", "killed") or end == "started as usual", f"{number}: {what}: {pod.log}"
            assert what != "nothing" or end == "restored", f"{number}: {pod.log}"
    with capsys.disabled():
        print("", *(f"{count:4} {end}" for end, count in sorted(ends.items())), sep="\n")


def outcome(pod: Pod, odd: OddRestores, right: str) -> str:
    """How a container has ended, or how it serves. Fails where it writes another text."""
    written = failure = None
    try:
        odd.kill(pod)
        written = text(pod)
    except Exception as error:  # of whatever asks, since the container may end meanwhile
        failure = error
    if failure is not None:
        assert pod.outer.wait(10) in {128 + signal.SIGKILL, 128 + signal.SIGSEGV}, f"{failure}: {pod.log}"
        return "ended"
    assert written == right, pod.log
    return "restored" if "predictor: restored within" in pod.log else "started as usual"
