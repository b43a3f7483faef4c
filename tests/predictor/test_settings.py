"""Settings of the predictor: flags, environment variables, defaults, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from predictor.settings import Settings
from wire.settings import read_settings


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "INFERENCE_SERVICE_NAME",
        "ARTIFACTS_URL",
        "STORE_URL",
        "K_SINK",
        "K_CE_OVERRIDES",
        "PREDICTOR_CACHE_FOLDER",
    ):
        monkeypatch.delenv(name, raising=False)


def settings(*arguments: str) -> Settings:
    return read_settings(Settings, arguments)


def test_everything_has_a_default() -> None:
    chosen = settings()

    assert chosen.model_dump() == {
        "model": "/mnt/models",
        "revision": None,
        "kind": None,
        "name": "",
        "host": "0.0.0.0",
        "port": 8080,
        "grpc_port": None,
        "device": "auto",
        "dtype": "auto",
        "load_format": "auto",
        "quantize": None,
        "pack_weights": True,
        "max_concurrency": None,
        "max_length": None,
        "size": None,
        "max_pixels": None,
        "memory": None,
        "cache_folder": "auto",
        "lean_imports": True,
        "slots": None,
        "steps": None,
        "guidance": None,
        "max_waiting": 64,
        "body_bytes": 1048576,
        "enable_thinking": False,
        "compile": False,
        "request_seconds": 600,
        "grace_seconds": 30,
        "quiet_seconds": 1,
        "idle_seconds": 0,
        "nap": 0,
        "sleep_level": None,
        "admin_port": None,
        "token": None,
        "events_open": False,
        "wait_for_restore": None,
        "log_level": "info",
        "log_format": None,
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
            "--revision",
            "v1",
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
            "--quantize",
            "int8",
            "--slots",
            "3",
            "--max-concurrency",
            "4",
            "--max-length",
            "99",
            "--memory",
            "24Gi",
        ),
        *("--steps", "4", "--guidance", "1.5", "--size", "512x768", "--max-pixels", "1000000"),
        *(
            "--cache-folder",
            "/data/cache",
            "--no-lean-imports",
            "--no-pack-weights",
            "--enable-thinking",
            "--compile",
            "--request-seconds",
            "5",
            "--quiet-seconds",
            "0",
        ),
        *(
            "--dtype",
            "bfloat16",
            "--max-waiting",
            "3",
            "--body-bytes",
            "7",
            "--grace-seconds",
            "0",
            "--log-level",
            "debug",
            "--log-format",
            "json",
        ),
        *("--nap", "90", "--sleep-level", "1", "--admin-port", "3"),
        *("--token", "a-secret-of-the-predictors", "--events-open", "--wait-for-restore", "/tmp/gate"),
        *("--event-source", "/poet", "--event-bytes", "9", "--artifacts-url", "file:///mnt/artifacts"),
        *("--store-url", "redis://redis:6379/1", "--max-replies", "4", "--reply-bytes", "5", "--reply-seconds", "6"),
        *("--k-sink", "http://broker/default", "--k-ce-overrides", '{"extensions": {"a": "b"}}', "--progress-events"),
    )

    assert chosen.model_dump() == {
        "model": "gpt2",
        "revision": "v1",
        "kind": "text",
        "name": "poet",
        "host": "::1",
        "port": 1,
        "grpc_port": 2,
        "device": "cuda:1",
        "dtype": "bfloat16",
        "load_format": "runai_streamer",
        "quantize": "int8",
        "pack_weights": False,
        "max_concurrency": 4,
        "max_length": 99,
        "size": "512x768",
        "max_pixels": 1_000_000,
        "memory": 24 * 2**30,
        "cache_folder": "/data/cache",
        "lean_imports": False,
        "slots": 3,
        "steps": 4,
        "guidance": 1.5,
        "max_waiting": 3,
        "body_bytes": 7,
        "enable_thinking": True,
        "compile": True,
        "request_seconds": 5,
        "grace_seconds": 0,
        "quiet_seconds": 0,
        "idle_seconds": 0,
        "nap": 90,
        "sleep_level": 1,
        "admin_port": 3,
        "token": SecretStr("a-secret-of-the-predictors"),
        "events_open": True,
        "wait_for_restore": Path("/tmp/gate"),
        "log_level": "debug",
        "log_format": "json",
        "event_source": "/poet",
        "event_bytes": 9,
        "artifacts_url": "file:///mnt/artifacts",
        "store_url": SecretStr("redis://redis:6379/1"),
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
    monkeypatch.setenv("PREDICTOR_LEAN_IMPORTS", "0")

    chosen = settings("--port", "9001")

    assert (chosen.model, chosen.port, chosen.lean_imports) == ("gpt2", 9001, False)


def test_what_others_set_is_the_default_under_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARTIFACTS_URL", "memory://artifacts")
    monkeypatch.setenv("STORE_URL", "rediss://redis")
    monkeypatch.setenv("K_SINK", "http://broker")
    monkeypatch.setenv("K_CE_OVERRIDES", '{"extensions": {"a": "b"}}')

    chosen = settings("--store-url", "redis://mine")

    assert (chosen.artifacts_url, chosen.store_url, chosen.k_sink) == (
        "memory://artifacts",
        SecretStr("redis://mine"),
        "http://broker",
    )
    assert chosen.sink_extensions == {"a": "b"}
    assert not chosen.progress_events


def test_what_others_set_to_nothing_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ARTIFACTS_URL", "STORE_URL", "K_SINK", "K_CE_OVERRIDES", "PREDICTOR_CACHE_FOLDER"):
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
        (["--body-bytes", "0"], "--body-bytes"),
        (["--grace-seconds", "-1"], "--grace-seconds"),
        (["--idle-seconds", "-1"], "--idle-seconds"),
        (["--idle-seconds", "1", "--grpc-port", "2"], "--idle-seconds"),
        (["--dtype", "int8"], "--dtype"),
        (["--quantize", "int2"], "--quantize"),
        (["--revision", ""], "--revision"),
        (["--steps", "201"], "--steps"),
        (["--guidance", "-1"], "--guidance"),
        (["--size", "large"], "--size"),
        (["--size", "512x4096"], "--size"),
        (["--max-pixels", "0"], "--max-pixels"),
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
