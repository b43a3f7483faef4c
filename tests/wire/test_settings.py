"""--help and messages of the programs whose flags are settings."""

from __future__ import annotations

import re

import pytest
from pydantic_settings import BaseSettings

from predictor.plan_settings import PlanSettings
from predictor.settings import Settings as PredictorSettings
from web.settings import Settings as WebSettings
from wire.settings import read_settings

PROGRAMS = [PredictorSettings, PlanSettings, WebSettings]


def help_of(settings: type[BaseSettings], capsys: pytest.CaptureFixture[str]) -> str:
    """What --help prints, on one line."""
    with pytest.raises(SystemExit) as ended:
        read_settings(settings, ["--help"])
    assert ended.value.code == 0
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("settings", PROGRAMS)
def test_help_shows_no_types_of_python_and_each_default_once(
    settings: type[BaseSettings], capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(settings, capsys)
    for name in settings.model_fields:
        assert f"--{name.replace('_', '-')}" in text
    for type_name in (
        "null",
        "None",
        "ByteSize",
        "SecretStr",
        "Path ",
        "dict[",
        "list[",
        "factory",
        "{{",
        " int ",
        " str ",
    ):
        assert type_name not in text
    entries = re.split(r" (?=--[a-z][a-z-]* )", text.partition("options:")[2])
    assert len(entries) > len(settings.model_fields) / 2
    assert [entry for entry in entries if entry.count("(default") > 1] == []


def test_help_shows_what_is_allowed_and_what_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(PredictorSettings, capsys)
    assert "--kind {text,image} " in text
    assert "--port PORT HTTP port; 0 takes a free one (default: 8080)" in text
    assert "--grace-seconds SECONDS " in text
    assert "--lean-imports, --no-lean-imports " in text
    web = help_of(WebSettings, capsys)
    assert "--events-open {true,false} " in web
    assert re.search(r"--models MODELS .*says of itself\. \(required\) --predictor-token TOKEN .* --host", web)


@pytest.mark.parametrize("memory", ["lots", "0", "12 parsecs", "Gi"])
def test_what_is_no_amount_of_memory_is_told_with_what_is(memory: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read_settings(PlanSettings, ["--memory", memory])
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        f"python -m predictor plan: --memory: {memory!r} is no amount of memory; give bytes, or a number above 0 with "
        "a unit, as in 24Gi, 24GiB or 24GB\n"
    )


@pytest.mark.parametrize(
    ("written", "number"),
    [("24Gi", 24 << 30), ("24GiB", 24 << 30), ("24GB", 24 * 10**9), ("1.5Mi", 3 << 19), ("99", 99)],
)
def test_these_are_amounts_of_memory(written: str, number: int) -> None:
    assert read_settings(PlanSettings, ["--memory", written]).memory == number


def test_a_wrong_flag_is_one_line_without_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read_settings(WebSettings, ["--models", "{}", "--colour", "blue"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "python -m web: unrecognized arguments: --colour blue; see --help\n"


@pytest.mark.parametrize(
    ("arguments", "variables", "flag"),
    [
        (["--models", "poet"], {}, "--models"),
        (["--models", '{"poet"'], {}, "--models"),
        (["--models", "poet=http://x", "--cors-origins", "[x"], {}, "--cors-origins"),
        ([], {"MODELS": "poet"}, "--models"),
    ],
)
def test_what_should_be_json_is_named_by_its_flag(
    arguments: list[str],
    variables: dict[str, str],
    flag: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        read_settings(WebSettings, arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"python -m web: {flag}: must be written as JSON; see --help\n"


@pytest.mark.parametrize("settings", [WebSettings, PredictorSettings])
def test_a_short_secret_is_told_in_characters(settings: type[BaseSettings], capsys: pytest.CaptureFixture[str]) -> None:
    flag = "--events-secret" if settings is WebSettings else "--token"
    arguments = [flag, "short"] + (["--models", '{"poet": "http://poet.test"}'] if settings is WebSettings else [])
    with pytest.raises(SystemExit):
        read_settings(settings, arguments)
    told = capsys.readouterr().err
    assert told.endswith(f"{flag}: must have at least 16 characters\n")
