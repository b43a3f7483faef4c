"""How many threads compute, and how they wait: what the libraries are told, and what they do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from predictor.cpu import threads
from predictor.cpu.threads import (
    MANY_POSITIONS,
    SMALL,
    SPIN_TURNS,
    can_switch,
    limit_threads,
    prepare_threads,
    thread_count,
    threads_for,
)

ROOT = Path(__file__).parents[3]
VARIABLES = (
    "OMP_NUM_THREADS",
    "SNAPSHOT_THREADS",
    "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT",
    "KMP_BLOCKTIME",
    "OPENBLAS_NUM_THREADS",
    "TOKENIZERS_PARALLELISM",
)
ASLEEP = {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
SWITCHED = ASLEEP | {"GOMP_SPINCOUNT": SPIN_TURNS}


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that it is put back afterwards
        monkeypatch.delenv(name)


def of_machine(monkeypatch: pytest.MonkeyPatch, cores: int, times: tuple[int, int] | None = (1, 0)) -> None:
    """Let the machine have so many cores, and its kernel count times or not."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(cores)), raising=False)
    monkeypatch.setattr(threads, "times_of_process", lambda: times)
    monkeypatch.setattr(threads, "cpu_quota", lambda _root: None)


def told() -> dict[str, str]:
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


def test_threads_can_be_switched_and_pools_without_use_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    of_machine(monkeypatch, 2)
    prepare_threads()
    assert told() == SWITCHED
    assert can_switch()


@pytest.mark.parametrize(("cores", "times", "asked"), [(1, (1, 0), ""), (4, None, ""), (4, (1, 0), "2")])
def test_threads_sleep_where_they_cannot_be_switched(
    monkeypatch: pytest.MonkeyPatch, cores: int, times: tuple[int, int] | None, asked: str
) -> None:
    """One core, times that are not known, or cores that are left to others."""
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    of_machine(monkeypatch, cores, times)
    prepare_threads()
    assert told() == ASLEEP | {"OMP_NUM_THREADS": asked}
    assert not can_switch()


@pytest.mark.parametrize("name", ASLEEP)
def test_what_the_operator_says_stays(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    of_machine(monkeypatch, 1)
    monkeypatch.setenv(name, "theirs")
    prepare_threads()
    assert told() == ASLEEP | {name: "theirs"}


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_nothing_is_switched_where_the_operator_has_said_how_threads_wait(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    of_machine(monkeypatch, 2)
    monkeypatch.setenv(name, "theirs")
    assert not can_switch()


def test_a_thread_that_spins_would_use_up_a_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_machine(monkeypatch, 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert can_switch()
    monkeypatch.setattr(threads, "cpu_quota", lambda _root: 1.0)
    assert not can_switch()


@pytest.mark.parametrize("name", ["GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_a_librarys_own_way_of_waiting_stays_alone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1000")
    prepare_threads()
    assert "OMP_WAIT_POLICY" not in os.environ


def quota(root: Path, text: str) -> Path:
    """A root folder of a container with this CPU quota, in microseconds of each tenth of a second."""
    for name, content in {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": f"{text} 100000"}.items():
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text(f"{content}\n")
    return root


@pytest.mark.parametrize(
    ("text", "threads"), [("50000", 1), ("150000", 1), ("200000", 2), ("790000", 7), ("900000", 8), ("max", 8)]
)
def test_threads_are_the_cores_that_the_quota_has_whole(tmp_path: Path, text: str, threads: int) -> None:
    assert thread_count(8, root=quota(tmp_path, text)) == threads


def test_a_small_model_has_one(tmp_path: Path) -> None:
    assert thread_count(8, SMALL - 1, tmp_path) == 1
    assert thread_count(8, SMALL, tmp_path) == 8


@pytest.mark.parametrize(("text", "threads"), [("5", 5), ("3,1", 3), ("0", 1), ("many", 1)])
def test_the_operator_says_how_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, threads: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert thread_count(8, SMALL - 1, quota(tmp_path, "200000")) == threads


@pytest.mark.parametrize(
    ("text", "limit", "threads"),
    [("max", "2", 2), ("max", "16", 8), ("100000", "2", 1), ("max", "0", 8), ("max", "", 8), ("max", "many", 8)],
)
def test_a_snapshot_has_no_more_than_its_pods_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, limit: str, threads: int
) -> None:
    monkeypatch.setenv("SNAPSHOT_THREADS", limit)
    root = quota(tmp_path, text)
    assert thread_count(8, root=root) == threads
    assert thread_count(8, SMALL - 1, root) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert thread_count(8, SMALL - 1, root) == 3


FORKED = """if True:
    import os, sys, threading
    from predictor.cpu.threads import SMALL, adopt_threads, limit_threads, prepare_threads

    prepare_threads()
    import torch

    def compute():
        adopt_threads()
        numbers = torch.ones(512, 512)
        numbers @ numbers
        print(len(os.listdir("/proc/self/task")) - before)

    def on_own_thread(work):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    before = len(os.listdir("/proc/self/task"))
    if not os.fork():
        on_own_thread(lambda: limit_threads(SMALL - 1))
        on_own_thread(compute)
        os.environ["OMP_NUM_THREADS"] = "3"
        on_own_thread(limit_threads)
        on_own_thread(compute)
        sys.stdout.flush()
        os._exit(0)
    os.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_in_a_process_that_was_forked_with_torch_imported() -> None:
    """In which each thread computes with the number that was chosen last."""
    environment = {"PATH": os.environ["PATH"], "OMP_WAIT_POLICY": "PASSIVE"}  # or there is a watch beside them
    ended = subprocess.run(
        [sys.executable, "-c", FORKED], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert ended.stdout == "1\n3\n"  # the thread itself, then its two helpers


@pytest.mark.parametrize(("cores", "watched"), [(4, [4]), (1, [])])
def test_how_several_threads_wait_is_watched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cores: int, watched: list[int]
) -> None:
    """Once, and of a small model, too, whose prompts have several."""
    watches: list[int] = []
    of_machine(monkeypatch, cores)
    monkeypatch.setattr(threads, "watch_waiting", watches.append)
    monkeypatch.setattr(threads, "_watched", set())
    monkeypatch.setattr(threads, "_chosen", {})
    monkeypatch.setattr(threads, "_cores", lambda: cores)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    for parameters in (None, SMALL - 1):
        limit_threads(parameters, tmp_path)
    assert watches == watched


@pytest.mark.parametrize(
    ("chosen", "positions", "computed"), [(1, MANY_POSITIONS, 4), (1, MANY_POSITIONS - 1, 1), (4, MANY_POSITIONS, 4)]
)
def test_many_positions_of_a_small_model_have_all_threads(
    monkeypatch: pytest.MonkeyPatch, chosen: int, positions: int, computed: int
) -> None:
    now = [chosen]
    monkeypatch.setattr(threads, "most_threads", lambda: 4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: now[-1])
    monkeypatch.setattr(torch, "set_num_threads", now.append)
    with threads_for(positions):
        assert now[-1] == computed
    assert now[-1] == chosen


@pytest.mark.parametrize("command", [["plan"], ["--port", "0", "--host", "127.0.0.1"]])
def test_the_libraries_are_told_before_they_are_imported(command: list[str]) -> None:
    program = """if True:
        import os, sys

        class Libraries:
            def find_spec(self, name, *_):
                if name in ("torch", "numpy", "tokenizers"):
                    told = os.environ.keys() & {"OMP_WAIT_POLICY", "KMP_BLOCKTIME"}
                    print(len(told), os.environ.get("OPENBLAS_NUM_THREADS"), flush=True)
                    os._exit(0)

        sys.meta_path.insert(0, Libraries())
        from predictor.__main__ import main
        main()
    """
    first = subprocess.run(
        [sys.executable, "-c", program, *command, "--model", "models/poet"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert first.stdout == "1 1\n"
