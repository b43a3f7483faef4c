"""The comparison with a server in the place of real ones, which answers each prompt with itself."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.benchmarks.peers import contenders, environments, peers
from scripts.benchmarks.peers.contenders import Api, Contender, Running, start
from scripts.benchmarks.peers.environments import Environment
from scripts.benchmarks.peers.load import LoadError
from scripts.benchmarks.peers.measurements import PROMPTS, REQUEST_RATES, Measurement, same_text, waves
from scripts.benchmarks.peers.process_tree import process_tree
from tests.support.processes import wait_until_gone

STUB = Path(__file__).with_name("stub_server.py")
API = Api("/write", lambda prompt, tokens: {"prompt": prompt, "max_tokens": tokens}, lambda answer: str(answer["text"]))


def stub(name: str, environment: Environment | None = None, program: Path = STUB) -> Contender:
    return Contender(name, API, lambda wanted: [sys.executable, str(program), str(wanted.port)], environment)


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contenders, "LOGS", tmp_path)


@pytest.fixture
def running() -> Iterator[Running]:
    with start(stub("stub"), Path("model"), "float32") as server:
        yield server


@pytest.mark.parametrize("tokens", [1, 2])
def test_answers_come_in_the_order_of_the_requests(running: Running, tokens: int) -> None:
    prompts = [f"第{number}首" for number in range(20)]
    measured = running.send(prompts, tokens, 3)
    assert running.texts(measured) == prompts
    assert 0 < max(measured.each) <= measured.seconds
    assert {answer["path"] for answer in measured.answers} == {"/write"}


def test_an_answer_that_is_no_success_ends_the_measurement(running: Running) -> None:
    with pytest.raises(LoadError, match="500"):
        running.send(["a", "fail"], 1, 2)


def test_a_server_ends_with_all_that_it_has_started() -> None:
    with start(stub("stub"), Path("model"), "float32") as server:
        tree = process_tree(server.pid)
        memory = server.resident_bytes
    assert len(tree) == 2
    assert memory > 5 * 2**20
    for pid in tree:
        wait_until_gone(pid)


def test_a_server_that_ends_at_once_is_told_with_its_words(tmp_path: Path) -> None:
    program = tmp_path / "broken.py"
    program.write_text("raise SystemExit('no model')")
    with pytest.raises(TimeoutError, match="no model"), start(stub("broken", None, program), Path("model"), "float32"):
        pass


@pytest.mark.parametrize("measurement", [waves([1, 16]), REQUEST_RATES])
def test_the_table_has_each_server_and_its_part_of_the_best_peer(
    measurement: Measurement, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peers, "reference_texts", lambda *_: [*PROMPTS[:-1], "other"])
    peer = stub("mosec", Environment("mosec", ()))
    peers.compare("model", Path("model"), "float32", [peer, stub("predictor")], measurement, 2)
    printed = capsys.readouterr().out
    header, _, other, ours = [line.split(" | ") for line in printed.splitlines() if line.startswith("|")]
    equal = header.index("of 16 texts as generate's |")
    assert (other[0], ours[0]) == ("| mosec", "| predictor")
    assert other[equal] == ours[equal] == "15.0 |"
    for cell in other[1:equal]:
        assert re.fullmatch(r"[\d,.]+ \(1\.00\)", cell)
    for cell in ours[1:equal]:
        assert re.fullmatch(r"[\d,.]+ \(\d+\.\d\d\)", cell)
    assert "predictor / best of mosec, litserve, transformers serve: " in printed
    assert "best of vllm" not in printed


def test_a_peer_that_cannot_be_installed_is_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environments, "ENVIRONMENTS", tmp_path)
    monkeypatch.setattr(venv, "create", lambda *_, **__: None)  # then there is no Python to run
    found = peers._available([stub("predictor"), stub("mosec", Environment("mosec", ("mosec",)))])
    assert [contender.name for contender in found] == ["predictor"]
    assert "mosec is missing" in capsys.readouterr().out


def test_what_a_package_needs_is_listed_but_for_what_is_left_out() -> None:
    command = [sys.executable, "-c", environments.REQUIREMENTS, "starlette", "typing-extensions"]
    needed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert any(one.startswith("anyio") for one in needed)
    assert not any(one.startswith(("typing", "httpx2")) for one in needed)  # the latter is an extra's


@pytest.mark.parametrize(
    ("text", "same"), [("a b", True), ("a b\u3000", True), ("a b\ufffd\ufffd", True), ("a c\u3000", False), ("", False)]
)
def test_a_text_that_ends_within_a_character_is_compared_up_to_its_last_whole_one(text: str, same: bool) -> None:
    assert same_text(text, "a b\ufffd\ufffd") == same


def test_other_texts_are_compared_as_they_are() -> None:
    assert same_text("", "")
    assert not same_text("a b c", "a b")
