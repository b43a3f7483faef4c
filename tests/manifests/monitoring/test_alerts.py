"""Alerts by promtool: each fires when it should, not when it almost should, and none where everything sleeps."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from contract import RequestLimits
from tests.manifests.monitoring.parts import ALERTS, RULES, needed
from web.openapi.document import describe

OF_MODEL = 'namespace="shangcai", pod="web-1", model="poet"'
OF_WEB = 'namespace="shangcai", pod="web-1"'
OF_POD = 'namespace="shangcai", pod="text-predictor-1", model="text"'
GENERATING = (
    "/generate",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/responses",
)
"""The routes at which generations are asked for."""
LONG_AFTER = "150m"
"""When the pods of all series below have gone."""


@dataclass(frozen=True)
class Case:
    """Series by the minute, in promtool's notation, and which alert fires at a time, or none."""

    name: str
    alert: str
    series: dict[str, str]
    at: str
    fires: bool
    labels: dict[str, str]

    def __str__(self) -> str:
        return f"{self.alert}: {self.name}"


def requests(good: str, bad: str, route: str = "/generate") -> dict[str, str]:
    return {
        f'shangcai_web_requests_total{{{OF_MODEL}, route="{route}", status_class="{status_class}"}}': values
        for status_class, values in (("2xx", good), ("5xx", bad))
    }


def rejected(values: str, bad: str | None = None) -> dict[str, str]:
    """Each of them a 5xx, and perhaps not the only ones."""
    return requests("0+100x60", bad or values) | {f"shangcai_web_requests_rejected_total{{{OF_MODEL}}}": values}


def of_model(model: str, series: dict[str, str]) -> dict[str, str]:
    return {name.replace('model="poet"', f'model="{model}"'): values for name, values in series.items()}


def waits(phase: str, half_a_minute: str, a_minute: str) -> dict[str, str]:
    """How many have waited for up to 30 s, and for up to 60."""
    bucket = "shangcai_web_phase_seconds_bucket"
    return {
        f'{bucket}{{{OF_MODEL}, phase="{phase}", le="{le}"}}': values
        for le, values in (("30", half_a_minute), ("60", a_minute), ("+Inf", a_minute))
    }


def oldest(what: str, values: str) -> dict[str, str]:
    return {f"shangcai_web_oldest_{what}_seconds{{{OF_MODEL}}}": values}


def alive(values: str) -> dict[str, str]:
    return {f"shangcai_engine_alive{{{OF_POD}}}": values}


def out_of_memory(values: str) -> dict[str, str]:
    return {f"shangcai_out_of_memory_total{{{OF_POD}}}": values}


def woke_up(seconds: str, expected: str) -> dict[str, str]:
    return {
        f"shangcai_web_wake_up_last_seconds{{{OF_MODEL}}}": seconds,
        f"shangcai_web_wake_up_expected_seconds{{{OF_MODEL}}}": expected,
    }


def failed_wake_ups(*values: str) -> dict[str, str]:
    """Of one replica after the other."""
    return {
        f'shangcai_web_wake_ups_total{{namespace="shangcai", pod="web-{number}", model="poet", outcome="failed"}}': each
        for number, each in enumerate(values)
    }


def dead_letters(values: str) -> dict[str, str]:
    return {f"shangcai_web_dead_letters_total{{{OF_WEB}}}": values}


def store(bytes_taken: str) -> dict[str, str]:
    return {
        f"shangcai_web_store_bytes{{{OF_WEB}}}": bytes_taken,
        f"shangcai_web_store_most_bytes{{{OF_WEB}}}": "100x90",
    }


def store_errors(values: str) -> dict[str, str]:
    return {f'shangcai_web_store_errors_total{{{OF_WEB}, command="XADD"}}': values}


def deliveries(delivered: str, failed: str, given_up: str = "0x90") -> dict[str, str]:
    outcomes = {"delivered": delivered, "failed": failed, "given_up": given_up}
    name = "shangcai_web_webhook_deliveries_total"
    return {f'{name}{{{OF_WEB}, outcome="{outcome}"}}': values for outcome, values in outcomes.items()}


def case(alert: str, name: str, series: dict[str, str], at: str, *labels: tuple[str, str], fires: bool = True) -> Case:
    return Case(name, f"Shangcai{alert}", series, at, fires, {"namespace": "shangcai"} | dict(labels))


POET = ("model", "poet")
TEXT = ("model", "text")
ITS_POD = ("pod", "text-predictor-1")

CASES = [
    case("RequestsFail", "one of ten", requests("0+90x60", "0+10x60"), "30m"),
    case("RequestsFail", "one of 25", requests("0+96x60", "0+4x60"), "30m", fires=False),
    *(
        case("RequestsFail", f"one of ten at {route}", requests("0+90x60", "0+10x60", route), "30m")
        for route in GENERATING
    ),
    case(
        "RequestsFail",
        "one of ten, among many polls",
        requests("0+90x60", "0+10x60") | requests("0+9000x60", "0x60", "/status"),
        "30m",
    ),
    case("RequestsFail", "polls only", requests("0+90x60", "0+10x60", "/generations/{id}"), "30m", fires=False),
    case("RequestsFail", "one of ten for a moment", requests("0+90x60", "0x28 0+10x30"), "31m", fires=False),
    case("RequestsFail", "the only ones of a quiet hour", requests("0x60", "0x20 5x40"), "26m", fires=False),
    case("RequestsFail", "few that are not refused", rejected("0+4x60", "0+8x60"), "30m", fires=False),
    case("RequestsFail", "one of ten, and one of 30 is refused", rejected("0+4x60", "0+14x60"), "30m"),
    case("RequestsFail", "one of ten, of no model", of_model("", requests("0+90x60", "0+10x60")), "30m"),
    case(
        "RequestsFail",
        "one of 17, and streams of another model that are refused after their status",
        requests("0+88x60", "0+12x60") | of_model("painter", rejected("0+4x60", "0x60")),
        "30m",
    ),
    case("QueueFull", "one of ten, and no other alert", rejected("0+12x60"), "30m", POET),
    case("QueueFull", "one of 25", rejected("0+4x60"), "30m", fires=False),
    case("QueueWaitLong", "one of ten for a slot", waits("queue", "0+9x60", "0+10x60"), "30m", POET),
    case("QueueWaitLong", "one of ten in web", waits("limit", "0+9x60", "0+10x60"), "30m", POET),
    case(
        "QueueWaitLong",
        "however many passed the limit at once",
        waits("queue", "0+9x60", "0+10x60") | waits("limit", "0+900x60", "0+900x60"),
        "30m",
        POET,
    ),
    case("QueueWaitLong", "one of 25", waits("queue", "0+96x60", "0+100x60"), "30m", fires=False),
    case("QueueWaitLong", "another phase", waits("generation", "0+1x60", "0+10x60"), "30m", fires=False),
    case("QueueWaitLong", "one of ten an hour ago", waits("queue", "900x60", "1000x60"), "30m", fires=False),
    case("QueueWaitLong", "the oldest", oldest("request_waiting", "130x60"), "30m", POET),
    case("QueueWaitLong", "not yet the oldest", oldest("request_waiting", "110x60"), "30m", fires=False),
    case("JobsWaitLong", "the oldest", oldest("job_queued", "1000x60"), "30m", POET),
    case("JobsWaitLong", "not yet the oldest", oldest("job_queued", "890x60"), "30m", fires=False),
    case("JobsWaitLong", "a moment ago", oldest("job_queued", "1000x27 0x30"), "30m", fires=False),
    case("EngineNotAlive", "dead", alive("1x20 0x40"), "24m", TEXT, ITS_POD),
    case("EngineNotAlive", "dead for a moment", alive("1x23 0 1x20"), "24m", fires=False),
    case("EngineNotAlive", "restarted", alive("1x10 0x5 1x40"), "24m", fires=False),
    case("EngineNotAlive", "dead, and its pod gone", alive("1x10 0x5 stale"), "24m", fires=False),
    case("OutOfMemory", "once", out_of_memory("0x20 1x40"), "25m", TEXT, ITS_POD),
    case("OutOfMemory", "an hour ago", out_of_memory("0x5 1x60"), "60m", fires=False),
    case("WakeUpSlow", "a second more", woke_up("41x90", "20x90"), "20m", POET),
    case("WakeUpSlow", "just so", woke_up("40x90", "20x90"), "20m", fires=False),
    case("WakeUpSlow", "quick ones that vary", woke_up("4x90", "1x90"), "20m", fires=False),
    case("WakeUpSlow", "nothing was expected", woke_up("400x90", "0x90"), "20m", fires=False),
    case("WakeUpSlow", "more than an hour ago", woke_up("41x90", "20x90"), "70m", fires=False),
    case("WakeUpSlow", "again after an hour", woke_up("41x64 42x30", "20x95"), "70m", POET),
    case("WakeUpsFail", "two", failed_wake_ups("0x20 1x4 2x40"), "30m", POET),
    case("WakeUpsFail", "one", failed_wake_ups("0x20 1x40"), "30m", fires=False),
    case("WakeUpsFail", "one, which both replicas saw", failed_wake_ups("0x20 1x40", "0x20 1x40"), "30m", fires=False),
    case("WakeUpsFail", "two in two hours", failed_wake_ups("1x40 2x50"), "60m", fires=False),
    case(
        "WakeUpsFail",
        "two of an engine",
        {f"shangcai_failed_wake_ups_total{{{OF_POD}}}": "0x20 2x40"},
        "30m",
        TEXT,
    ),
    case("DeadLetters", "one", dead_letters("0x20 1x40"), "25m"),
    case("DeadLetters", "an hour ago", dead_letters("0x5 1x60"), "60m", fires=False),
    case("StoreNearlyFull", "91 %", store("91x60"), "30m"),
    case("StoreNearlyFull", "90 %", store("90x60"), "30m", fires=False),
    case("StoreNearlyFull", "for a moment", store("50x22 95x60"), "30m", fires=False),
    case("StoreFails", "all the time", store_errors("0+1x60"), "30m"),
    case("StoreFails", "for two minutes", store_errors("0x18 50 100x60"), "30m", fires=False),
    case("StoreFails", "for two minutes, which have just passed", store_errors("0x18 50 100x60"), "24m", fires=False),
    case("WebhooksFail", "most fail", deliveries("0+4x90", "0+6x90"), "60m"),
    case("WebhooksFail", "most are given up", deliveries("0+4x90", "0x90", "0+6x90"), "60m"),
    case("WebhooksFail", "half fail", deliveries("0+5x90", "0+5x90"), "60m", fires=False),
    case("WebhooksFail", "most fail for a moment", deliveries("0+1x90", "0x50 0+9x40"), "60m", fires=False),
]


@pytest.fixture(scope="module")
def promtool() -> str:
    return needed("promtool")


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("rules") / "rules.yaml"
    file.write_text(yaml.safe_dump(RULES))
    return file


def firing(alerts: list[dict[str, str]], at: str) -> dict[str, Any]:
    """promtool's word for: these and no others."""
    samples = [
        {"labels": _written(labels | {"severity": ALERTS[labels["alertname"]]["labels"]["severity"]}), "value": 1}
        for labels in alerts
    ]
    expression = 'sum without (__name__, alertstate) (ALERTS{alertstate="firing"})'
    return {"expr": expression, "eval_time": at, "exp_samples": samples}


def _written(labels: dict[str, str]) -> str:
    return "{" + ", ".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


def test_prometheus_can_read_the_rules(promtool: str, rules: Path) -> None:
    answer = subprocess.run([promtool, "check", "rules", str(rules)], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert f"SUCCESS: {len(ALERTS)} rules found" in answer.stdout


def test_requests_that_generate_are_counted_at_each_of_their_routes() -> None:
    posts = {
        path: item["post"]["tags"]
        for path, item in describe("1", {}, RequestLimits())["paths"].items()
        if "post" in item
    }
    assert set(GENERATING) == {
        path for path, tags in posts.items() if {"generation", "openai"} & {*tags} and "{" not in path
    }


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_almost_does(alert: str) -> None:
    assert {case.fires for case in CASES if case.alert == alert} == {True, False}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_alert_fires_when_it_should_and_no_other(promtool: str, rules: Path, case: Case) -> None:
    alerts = [{"alertname": case.alert} | case.labels] if case.fires else []
    test = {
        "interval": "1m",
        "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
        "promql_expr_test": [firing(alerts, case.at), firing([], LONG_AFTER)],
    }
    file = rules.parent / "test.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [rules.name], "evaluation_interval": "1m", "tests": [test]}))
    answer = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr
