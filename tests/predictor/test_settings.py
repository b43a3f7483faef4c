"""What can be said before the model is there: settings, where the model comes from, how far loading is."""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from predictor.errors import ModelError
from predictor.loading.model_source import check_source
from predictor.loading.startup import Startup, process_age
from predictor.settings import Settings
from wire.settings import read_settings


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INFERENCE_SERVICE_NAME", "ARTIFACTS_URL", "STORE_URL", "K_SINK", "K_CE_OVERRIDES"):
        monkeypatch.delenv(name, raising=False)


def refusal(model: str) -> str:
    with pytest.raises(ModelError) as refused:
        check_source(model)
    message = str(refused.value)
    assert "\n" not in message
    return message


def test_a_folder_with_a_config_and_safetensors_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    (tmp_path / "model-00001-of-00002.safetensors").touch()

    check_source(str(tmp_path))


@pytest.mark.parametrize("model", ["gpt2", "Qwen/Qwen3-0.6B", "org-1/name_2.3"])
def test_a_hub_id_is_a_source(model: str) -> None:
    check_source(model)


def test_a_folder_without_config_is_told_so(tmp_path: Path) -> None:
    assert refusal(str(tmp_path)) == f"the folder {tmp_path} holds no text model: there is no config.json in it"


@pytest.mark.parametrize("weights", ["pytorch_model.bin", "model.pt", "model.gguf"])
def test_a_folder_of_pickles_is_told_so(tmp_path: Path, weights: str) -> None:
    (tmp_path / "config.json").touch()
    (tmp_path / weights).touch()

    message = f"the folder {tmp_path} holds no *.safetensors; other weight formats are not loaded"
    assert refusal(str(tmp_path)) == message


def test_a_file_is_told_to_be_one(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.touch()

    assert refusal(str(file)) == f"{file} is a file; give the folder that holds config.json and *.safetensors"


@pytest.mark.parametrize(
    "model", ["/mnt/models", "./poet", "../poet", "~/poet", "a/b/c", "a b", "", "-", "模型/诗人\n"]
)
def test_what_is_neither_a_folder_nor_a_hub_id_is_refused(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/proc")  # where there are no such folders

    refusal(model)


def settings(*arguments: str) -> Settings:
    return read_settings(Settings, arguments)


def test_everything_has_a_default() -> None:
    chosen = settings()

    assert chosen.model_dump() == {
        "model": "/mnt/models",
        "kind": None,
        "name": "",
        "host": "0.0.0.0",
        "port": 8080,
        "grpc_port": None,
        "device": "auto",
        "dtype": "auto",
        "load_format": "auto",
        "max_concurrency": 16,
        "max_length": 8192,
        "memory": None,
        "slots": None,
        "max_waiting": 64,
        "request_seconds": 600,
        "grace_seconds": 30,
        "quiet_seconds": 1,
        "idle_seconds": 0,
        "log_level": "info",
        "event_source": "",
        "event_bytes": 262144,
        "artifacts_url": None,
        "store_url": None,
        "max_replies": 16_384,
        "reply_bytes": 67108864,
        "reply_seconds": 600,
        "k_sink": None,
        "k_ce_overrides": None,
        "progress_events": False,
    }
    assert chosen.served_name == "models"
    assert chosen.source == "urn:shangcai:model:models"
    assert chosen.sink_extensions == {}


def test_flags_set_everything() -> None:
    chosen = settings(
        *(
            "--model",
            "gpt2",
            "--kind",
            "text",
            "--name",
            "poet",
            "--host",
            "::1",
            "--port",
            "1",
            "--grpc-port",
            "2",
            "--device",
            "cuda:1",
        ),
        *(
            "--load-format",
            "runai_streamer",
            "--slots",
            "3",
            "--max-concurrency",
            "4",
            "--max-length",
            "99",
            "--memory",
            "24Gi",
        ),
        *("--request-seconds", "5", "--quiet-seconds", "0"),
        *("--dtype", "bfloat16", "--max-waiting", "3", "--grace-seconds", "0", "--log-level", "debug"),
        *("--event-source", "/poet", "--event-bytes", "9", "--artifacts-url", "file:///mnt/artifacts"),
        *("--store-url", "redis://redis:6379/1", "--max-replies", "4", "--reply-bytes", "5", "--reply-seconds", "6"),
        *("--k-sink", "http://broker/default", "--k-ce-overrides", '{"extensions": {"a": "b"}}', "--progress-events"),
    )

    assert chosen.model_dump() == {
        "model": "gpt2",
        "kind": "text",
        "name": "poet",
        "host": "::1",
        "port": 1,
        "grpc_port": 2,
        "device": "cuda:1",
        "dtype": "bfloat16",
        "load_format": "runai_streamer",
        "max_concurrency": 4,
        "max_length": 99,
        "memory": 24 * 2**30,
        "slots": 3,
        "max_waiting": 3,
        "request_seconds": 5,
        "grace_seconds": 0,
        "quiet_seconds": 0,
        "idle_seconds": 0,
        "log_level": "debug",
        "event_source": "/poet",
        "event_bytes": 9,
        "artifacts_url": "file:///mnt/artifacts",
        "store_url": "redis://redis:6379/1",
        "max_replies": 4,
        "reply_bytes": 5,
        "reply_seconds": 6,
        "k_sink": "http://broker/default",
        "k_ce_overrides": '{"extensions": {"a": "b"}}',
        "progress_events": True,
    }
    assert chosen.source == "/poet"
    assert chosen.sink_extensions == {"a": "b"}


def test_the_environment_sets_what_no_flag_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREDICTOR_PORT", "9000")
    monkeypatch.setenv("PREDICTOR_MODEL", "gpt2")

    chosen = settings("--port", "9001")

    assert (chosen.model, chosen.port) == ("gpt2", 9001)


def test_what_others_set_is_the_default_under_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARTIFACTS_URL", "memory://artifacts")
    monkeypatch.setenv("STORE_URL", "rediss://redis")
    monkeypatch.setenv("K_SINK", "http://broker")
    monkeypatch.setenv("K_CE_OVERRIDES", '{"extensions": {"a": "b"}}')

    chosen = settings("--store-url", "redis://mine")

    assert (chosen.artifacts_url, chosen.store_url, chosen.k_sink) == (
        "memory://artifacts",
        "redis://mine",
        "http://broker",
    )
    assert chosen.sink_extensions == {"a": "b"}
    assert not chosen.progress_events


def test_what_others_set_to_nothing_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ARTIFACTS_URL", "STORE_URL", "K_SINK", "K_CE_OVERRIDES"):
        monkeypatch.setenv(name, "")

    chosen = settings()

    assert (chosen.artifacts_url, chosen.store_url, chosen.k_sink, chosen.sink_extensions) == (None, None, None, {})


@pytest.mark.parametrize(
    ("model", "name", "service", "served"),
    [
        ("org/poet", "", "", "poet"),
        ("/models/poet/", "", "", "poet"),
        ("org/poet", "cook", "", "cook"),
        ("org/poet", "", "shangcai", "shangcai"),
        ("org/poet", "cook", "shangcai", "cook"),
        ("/", "", "", "model"),
        (".", "", "", "model"),
    ],
)
def test_the_served_name_is_given_or_kserves_or_the_models(
    monkeypatch: pytest.MonkeyPatch, model: str, name: str, service: str, served: str
) -> None:
    monkeypatch.setenv("INFERENCE_SERVICE_NAME", service)

    assert settings("--model", model, *(["--name", name] if name else [])).served_name == served


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--port", "high"], "--port"),
        (["--port", "65536"], "--port"),
        (["--port", "-1"], "--port"),
        (["--grpc-port", "0"], "--grpc-port"),
        (["--max-waiting", "0"], "--max-waiting"),
        (["--grace-seconds", "-1"], "--grace-seconds"),
        (["--idle-seconds", "-1"], "--idle-seconds"),
        (["--idle-seconds", "1", "--grpc-port", "2"], "--idle-seconds"),
        (["--dtype", "int8"], "--dtype"),
        (["--log-level", "loud"], "--log-level"),
        (["--name", "a/b"], "--name"),
        (["--name", "a b"], "--name"),
        (["--event-source", "a b"], "--event-source"),
        (["--event-bytes", "0"], "--event-bytes"),
        (["--artifacts-url", "/mnt/artifacts"], "--artifacts-url"),
        (["--artifacts-url", "nowhere://artifacts"], "--artifacts-url"),
        (["--store-url", "http://redis"], "--store-url"),
        (["--store-url", "redis://redis:port"], "--store-url"),
        (["--max-replies", "0"], "--max-replies"),
        (["--reply-bytes", "0"], "--reply-bytes"),
        (["--reply-seconds", "0"], "--reply-seconds"),
        (["--k-sink", "broker"], "--k-sink"),
        (["--k-ce-overrides", "a=b"], "--k-ce-overrides"),
        (["--k-ce-overrides", '{"extensions": {"a": 1}}'], "--k-ce-overrides"),
        (["--k-ce-overrides", '{"extensions": {"A-b": "c"}}'], "--k-ce-overrides"),
        (["--progress-events"], "--progress-events"),
        (["--colour", "blue"], "--colour"),
        (["stray"], "stray"),
    ],
)
def test_a_wrong_flag_is_one_line_and_status_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        settings(*arguments)

    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    last = printed.err.strip().splitlines()[-1]
    assert last.startswith("python -m predictor: ")
    assert named in last


def test_help_names_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        settings("--help")

    assert ended.value.code == 0
    printed = capsys.readouterr().out
    for flag in Settings.model_fields:
        assert "--" + flag.replace("_", "-") in printed


def test_startup_tells_the_phase_and_the_seconds() -> None:
    startup = Startup()
    startup.enter("importing torch")

    problem = startup.problem("poet")

    assert problem.kind.status == 503
    assert problem.headers == {"Retry-After": "1"}
    document: dict[str, Any] = problem.document
    assert document["phase"] == "importing torch"
    assert document["seconds"] >= 0
    assert document["detail"].startswith("Model poet is not ready: importing torch, ")


def test_startup_ends_ready_or_failed() -> None:
    startup = Startup()
    assert (startup.ready, startup.error, startup.phase) == (False, None, "starting")

    startup.fail("no weights")
    assert (startup.ready, startup.error, startup.phase) == (False, "no weights", "failed")

    startup = Startup()
    startup.succeed()
    assert (startup.ready, startup.error, startup.phase) == (True, None, "ready")


def phase_seconds(phase: str) -> float | None:
    return REGISTRY.get_sample_value("shangcai_cold_start_phase_seconds", {"phase": phase})


def test_every_phase_is_a_metric_and_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "predictor.loading.startup")
    startup = Startup(age=100.0)
    startup.note("port open", 100.25)
    startup.enter("tasting")
    startup.succeed()

    assert phase_seconds("port open") == 100.25
    assert 0 <= (phase_seconds("tasting") or -1.0) < 100
    assert (phase_seconds("ready") or 0.0) >= 100, "counted from the start of the process"
    for line in ("port open took 100.25 s", "tasting took 0.00 s", "ready after 100.00 s"):
        assert line in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_a_process_knows_its_age() -> None:
    code = "import time; from predictor.loading.startup import process_age as age; print(time.clock_gettime(7) - age())"
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    begun = float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    after = time.clock_gettime(time.CLOCK_BOOTTIME)

    assert before - 0.05 <= begun <= after
    assert process_age() > after - begun, "this one is older than its child"


@pytest.mark.parametrize("end", [Startup.succeed, lambda startup: startup.fail("no weights")])
def test_garbage_is_collected_again_once_the_start_is_over(end: Callable[[Startup], None]) -> None:
    gc.disable()
    try:
        end(Startup())

        assert gc.isenabled()
        assert gc.get_freeze_count() > 0, "what imports have made is not looked at again"
    finally:
        gc.enable()
        gc.unfreeze()
