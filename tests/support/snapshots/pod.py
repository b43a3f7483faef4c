"""A process as in a container: in pid, mount, network and host name namespaces of its own, as a user of the image, and
with the capabilities of a pod. Needs root."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.support.processes import ROOT
from tests.support.waiting import SECONDS, wait_until

USER = 65532

_ENTER = """
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs /mnt
number=0
for kept in $KEPT; do number=$((number + 1)); mkdir /mnt/$number; mount --bind "$kept" /mnt/$number; done
mount -t tmpfs -o mode=1777 tmpfs /tmp
for closed in $CLOSED; do mount -t tmpfs -o mode=755 tmpfs "$closed"; done
number=0
for kept in $KEPT; do number=$((number + 1)); mkdir -p "$kept"; mount --move /mnt/$number "$kept"; done
hostname "$HOST"
ip link set lo up
cd "$FOLDER"
exec "$@"
"""
"""An empty /tmp, and of the folders that other users may not enter only what is kept."""

_ENTER_IMAGE = """
mount --make-rprivate /
root=$FOLDER
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/dev"
for device in null urandom; do touch "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"; done
mkdir -m 1777 "$root/dev/shm"
hostname "$HOST"
ip link set lo up
exec chroot "$root" "$@"
"""
"""The root folder of an image, read-only, as the root."""

_ASK = """
import json, sys, time, urllib.error, urllib.request
url, body, headers, deadline = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), time.monotonic() + float(sys.argv[4])
while True:
    try:
        request = urllib.request.Request(url, body.encode() or None, {"Content-Type": "application/json", **headers})
        with urllib.request.urlopen(request, timeout=60) as answer:
            status, text = answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read().decode()
    except OSError as error:
        status, text = 0, str(error)
    if status not in (0, 503) or time.monotonic() > deadline:
        print(json.dumps([status, text]))
        break
    time.sleep(0.005)
"""


def obstacle() -> str:
    """Why no such process can be had here, or nothing."""
    needed = ("unshare", "setpriv", "nsenter", "ip", "mount")
    missing = [name for name in needed if shutil.which(name) is None]
    if sys.platform != "linux" or missing:
        return f"needs Linux with {', '.join(missing or needed)}"
    return "needs root" if os.geteuid() else ""


@dataclass
class Pod:
    """`outer` is unshare, `log` what the process has written."""

    outer: subprocess.Popen[bytes]
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    @property
    def first(self) -> psutil.Process:
        """Process 1."""
        found: psutil.Process = wait_until(lambda: psutil.Process(self.outer.pid).children(), "process 1")[0]
        return found

    def ask(
        self, path: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        """Status and text of the answer, on port 8080 of 127.0.0.1 in there, once there is one other than 503."""
        command = ["nsenter", "--target", str(self.first.pid), "--net", sys.executable, "-c", _ASK]
        command += [f"http://127.0.0.1:8080{path}", json.dumps(body) if body else "", json.dumps(headers or {})]
        with subprocess.Popen([*command, str(SECONDS)], stdout=subprocess.PIPE, text=True) as asking:
            wait_until(lambda: asking.poll() is not None or self.outer.poll() is not None, "an answer", 2 * SECONDS)
            asking.kill()
            answer = asking.communicate()[0]
        assert answer, f"the container has ended: {self.log}"
        status, text = json.loads(answer)
        assert status, f"{text}: {self.log}"
        return status, text

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal to process 1, and wait for its exit status."""
        self.first.send_signal(number)
        return self.outer.wait(SECONDS)


@contextmanager
def pod(
    folder: Path,
    command: Sequence[str],
    *,
    capabilities: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    host: str = "pod",
    user: int | None = USER,
    privileged: bool = False,
    image: Path | None = None,
) -> Iterator[Pod]:
    """Run a command of this checkout, which finds `folder` in there; or of an image with this root folder, in its /app.
    `user` None is root with all capabilities."""
    closed, kept = _closed(folder)
    log = folder / f"{host}.log"
    become: list[str] = []
    if user is not None:
        bounds = ",".join(["-all", *(f"+{name}" for name in capabilities)])
        become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--inh-caps=-all"]
        become += [f"--bounding-set={bounds}", *([] if privileged else ["--no-new-privs"])]
    variables = {"PATH": os.environ["PATH"], "HOME": "/tmp", "SNAPSHOT_THREADS": "1", **(environment or {})}
    passed = [f"{name}={value}" for name, value in variables.items()]
    entering = {"KEPT": " ".join(kept), "CLOSED": " ".join(closed), "HOST": host, "FOLDER": str(image or ROOT)}
    script = _ENTER_IMAGE if image else _ENTER
    enter = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--net", "--uts", "sh", "-euc", script, "sh"]
    with log.open("wb") as sink:
        outer = subprocess.Popen(
            [*enter, *become, "env", "-i", *(["-C", "/app"] if image else []), *passed, *command],
            env={**os.environ, **entering},
            stdout=sink,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
    try:
        yield Pod(outer, log)
    finally:
        with suppress(psutil.NoSuchProcess):
            for process in psutil.Process(outer.pid).children():  # process 1, and all of its namespace with it
                process.kill()
        outer.kill()  # --kill-child counts no more for who has changed its user
        outer.wait(SECONDS)


def _closed(folder: Path) -> tuple[list[str], list[str]]:
    """Folders that other users may not enter and that Python or this checkout is in, and what must be kept of them."""
    closed, kept = set(), {str(folder)}
    for needed in (Path(sys.base_prefix), Path(sys.prefix), ROOT):
        for ancestor in [*reversed(needed.parents), needed]:
            if ancestor.stat().st_mode & 0o5 != 0o5:
                closed.add(str(ancestor))
                kept.add(str(needed))
                break
        else:
            if needed.is_relative_to("/tmp"):
                kept.add(str(needed))
    return sorted(closed), sorted(kept)
