"""`python -m web.publish`: what it sends, what it prints, and how it ends."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import BaseModel

from contract import Picture, PictureResult, PictureTiming, ProblemError, TextResult, Timing, Usage, problems
from contract.cloudevents import (
    ACCEPTED,
    CALLER,
    CAUSATION,
    COMPLETED,
    DATAREF,
    FAILED,
    REQUESTED,
    Acceptance,
    CloudEvent,
)
from web.publish import main
from wire.cloudevents import is_signed, read_events, write_event

ROOT = Path(__file__).parents[2]
TEXT = TextResult(
    id="a",
    model="poet",
    text="好雨知时节，\n当春乃发生。",
    finish_reason="stop",
    usage=Usage(prompt_tokens=1, completion_tokens=2),
    timing=Timing(queue_s=None, first_token_s=0.5, total_s=1.0),
)
PICTURES = PictureResult(
    id="a",
    model="painter",
    images=[
        Picture(data=base64.b64encode(content).decode(), media_type="image/png", seed=seed, width=64, height=48)
        for seed, content in ((7, b"first"), (8, b"second"))
    ],
    timing=PictureTiming(queue_s=None, total_s=1.0),
)

Answer = Callable[[httpx2.Request], httpx2.Response]
Publish = Callable[..., int]


def replying(kind: str, data: BaseModel, **extensions: str) -> Answer:
    """A predictor's answer to any request, in the mode of the request."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        delivery = read_events(request.headers, request.content)
        [asked] = delivery.events
        reply = CloudEvent(
            id="re", source="/poet", type=kind, subject=asked.subject, extensions={CAUSATION: asked.id, **extensions}
        ).with_data(data)
        if DATAREF in extensions:
            reply = reply.model_copy(update={"data": None})
        headers, body = write_event(reply, delivery.mode)
        return httpx2.Response(200, headers=headers, content=body)

    return answer


def answering(status: int, **answer: Any) -> Answer:
    return lambda _request: httpx2.Response(status, **answer)


@pytest.fixture
def publish(seen: list[httpx2.Request]) -> Publish:
    """Runs the command against an answer; its exit status."""

    def run(answer: Answer, *arguments: str) -> int:
        def record(request: httpx2.Request) -> httpx2.Response:
            seen.append(request)
            return answer(request)

        return main(["--to", "http://sink.test/a", *arguments], httpx2.MockTransport(record))

    return run


def sent(seen: list[httpx2.Request]) -> CloudEvent:
    [request] = seen
    assert request.method == "POST"
    [event] = read_events(request.headers, request.content).events
    return event


def test_a_prompt_becomes_a_request(publish: Publish, seen: list[httpx2.Request]) -> None:
    assert publish(replying(COMPLETED, TEXT), "春雨") == 0
    event = sent(seen)
    assert seen[0].url == "http://sink.test/a"
    assert seen[0].headers["prefer"] == "reply"
    assert (event.type, event.source, event.subject) == (REQUESTED, "urn:shangcai:publish", None)
    assert event.id
    assert event.time
    assert json.loads(event.data or b"") == {"prompt": "春雨"}


@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_everything_can_be_said(publish: Publish, seen: list[httpx2.Request], mode: str) -> None:
    named = ["--source", "/me", "--subject", "作业 7", "--model", "painter", "--mode", mode]
    fields = ["--field", "seed=7", "--field", 'size="64x48"', "--field", 'stop=["a", "="]']
    assert publish(replying(COMPLETED, TEXT), *named, *fields, "猫") == 0
    event = sent(seen)
    assert (event.source, event.subject) == ("/me", "作业 7")
    data = {"prompt": "猫", "model": "painter", "seed": 7, "size": "64x48", "stop": ["a", "="]}
    assert json.loads(event.data or b"") == data
    assert ("ce-id" in seen[0].headers) is (mode == "binary")


@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_with_the_predictors_token_a_request_is_signed(
    publish: Publish, seen: list[httpx2.Request], monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setenv("PREDICTOR_TOKEN", "a-token-of-the-predictors")
    assert (
        publish(replying(COMPLETED, TEXT), "--caller", "ann", "--mode", mode, "--field", "temperature=0.7", "春雨") == 0
    )
    event = sent(seen)
    assert event.extensions[CALLER] == "ann"
    assert is_signed(event, "a-token-of-the-predictors")


def test_two_requests_are_two(publish: Publish, seen: list[httpx2.Request]) -> None:
    for _ in range(2):
        publish(replying(COMPLETED, TEXT), "春雨")
    ids = {read_events(request.headers, request.content).events[0].id for request in seen}
    assert len(ids) == 2


@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_a_text_is_printed(publish: Publish, capsys: pytest.CaptureFixture[str], mode: str) -> None:
    assert publish(replying(COMPLETED, TEXT), "--subject", "作业 7", "--mode", mode, "春雨") == 0
    attributes, _, text = capsys.readouterr().out.partition("\n\n")
    assert f"type: {COMPLETED}" in attributes.splitlines()
    assert "subject: 作业 7" in attributes.splitlines()
    assert text == "好雨知时节，\n当春乃发生。\n"


def test_pictures_are_listed_and_the_first_is_written(
    publish: Publish, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "cat.png"
    assert publish(replying(COMPLETED, PICTURES), "--out", str(out), "猫") == 0
    assert out.read_bytes() == b"first"
    _, _, told = capsys.readouterr().out.partition("\n\n")
    assert told.splitlines() == [
        "image/png, 64 x 48, seed 7",
        "image/png, 64 x 48, seed 8",
        f"The first picture is in {out}",
    ]


def test_a_picture_that_cannot_be_written(publish: Publish, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert publish(replying(COMPLETED, PICTURES), "--out", str(tmp_path / "no" / "cat.png"), "猫") == 1
    assert "cannot be written to" in capsys.readouterr().err


def test_a_claim_check_says_where_the_result_lies(publish: Publish, capsys: pytest.CaptureFixture[str]) -> None:
    assert publish(replying(COMPLETED, PICTURES, **{DATAREF: "s3://results/a.json"}), "猫") == 0
    assert "lies at s3://results/a.json" in capsys.readouterr().out


def test_a_failure_says_why(publish: Publish, capsys: pytest.CaptureFixture[str]) -> None:
    problem = ProblemError(problems.UNKNOWN_MODEL, "There is no model bard.").problem
    assert publish(replying(FAILED, problem), "--model", "bard", "春雨") == 1
    printed = capsys.readouterr()
    assert f"type: {FAILED}" in printed.out
    assert printed.err == "publish: No model of this name is served here: There is no model bard.\n"


def test_a_refusal_says_why_and_when_to_come_again(publish: Publish, capsys: pytest.CaptureFixture[str]) -> None:
    error = ProblemError(problems.LOADING, "It is reading weights.", retry_after=7)
    assert publish(answering(503, json=error.document, headers=error.headers), "春雨") == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line == "publish: status 503: The model is still loading: It is reading weights. Try again in 7 s."


@pytest.mark.parametrize("status", [202, 200, 204])
def test_a_broker_takes_it_and_says_no_more(publish: Publish, capsys: pytest.CaptureFixture[str], status: int) -> None:
    assert publish(answering(status), "春雨") == 0
    assert "was taken by a broker" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (answering(404), "status 404: Not Found"),
        (answering(502, text="bad gateway"), "status 502: bad gateway"),
        (answering(307, headers={"Location": "http://elsewhere.test"}), "status 307: Temporary Redirect"),
        (answering(200, json={"text": "x"}), 'status 200, but no event: {"text":"x"}'),
        (answering(200, headers={"ce-id": "1"}), "header ce-specversion: is required"),
        (replying(ACCEPTED, Acceptance(model="poet", kind="text")), f"{ACCEPTED} is no result"),
        (replying(COMPLETED, Acceptance(model="poet", kind="text")), f"its data are none of {COMPLETED}"),
        (replying(FAILED, TEXT), f"its data are none of {FAILED}"),
    ],
)
def test_any_other_answer_is_a_failure(
    publish: Publish, capsys: pytest.CaptureFixture[str], answer: Answer, reason: str
) -> None:
    assert publish(answer, "春雨") == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"publish: {reason}")


def test_nobody_there_is_one_line(capsys: pytest.CaptureFixture[str], closed_port: int) -> None:
    assert main(["--to", f"http://127.0.0.1:{closed_port}", "春雨"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "cannot be asked" in line


@pytest.mark.parametrize("url", ["sink.test", "ftp://sink.test", "http://[", "http://"])
def test_what_is_no_url_is_one_line(capsys: pytest.CaptureFixture[str], url: str) -> None:
    assert main(["--to", url, "春雨"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"publish: {url} cannot be asked: ")


def test_a_sink_that_was_bound_is_the_default(seen: list[httpx2.Request], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K_SINK", "http://broker.test/default")

    def record(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(202)

    assert main(["春雨"], httpx2.MockTransport(record)) == 0
    assert [str(request.url) for request in seen] == ["http://broker.test/default"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["春雨"], "--to: is required where K_SINK is not set"),
        (["--to", "http://x"], "prompt"),
        (["--to", "http://x", "--field", "seed", "春雨"], "'seed' is not NAME=JSON"),
        (["--to", "http://x", "--field", "size=64x64", "春雨"], "'size=64x64' is not NAME=JSON"),
        (["--to", "http://x", "--subject", "", "春雨"], "--subject: "),
        (["--to", "http://x", "--source", "a\nb", "春雨"], "--source: must not have control characters"),
        (["--to", "http://x", "--mode", "batched", "春雨"], "--mode"),
    ],
)
def test_wrong_arguments_are_named(capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert reason in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_it_is_a_command() -> None:
    command = [sys.executable, "-m", "web.publish", "--help"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed.startswith("usage: python -m web.publish ")


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_a_wrong_timeout_is_one_line(capsys: pytest.CaptureFixture[str], seconds: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--to", "http://x", f"--timeout={seconds}", "a"])
    assert ended.value.code == 2
    assert "seconds above 0" in capsys.readouterr().err


def test_a_prompt_that_is_no_text_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--to", "http://x", "\udcff\udcfe"])
    assert ended.value.code == 2
    assert "is no UTF-8" in capsys.readouterr().err
