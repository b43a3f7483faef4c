"""`python -m web.publish`: send a request as a CloudEvent, and print the reply."""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
from pydantic import ValidationError

from contract import PictureResult, Problem, ProblemError, TextResult
from contract.cloudevents import CALLER, COMPLETED, DATAREF, FAILED, JSON, REQUESTED, CloudEvent, now
from contract.result import result_of_any_version
from wire.cloudevents import is_event, read_events, signed, write_event

TIMEOUT = 600.0
"""Seconds: what Knative allows a request at most."""

_SHOWN = 1_000  # characters of an answer that is not understood


class _Failure(Exception):
    """Why there is no result, in one line."""


def main(argv: Sequence[str] | None = None, transport: httpx2.BaseTransport | None = None) -> int:
    """The exit status: 0 for a request that was completed, or that a broker took; 1 for any other.

    `transport` takes the place of the network in tests.
    """
    arguments = _parse(argv)
    try:
        answer = _send(arguments, transport)
        if is_event(answer.headers):
            for reply in read_events(answer.headers, answer.content).events:
                _print_reply(reply, arguments.out)
        elif answer.content:
            raise _Failure(f"status {answer.status_code}, but no event: {answer.text[:_SHOWN]}")
        else:
            print(f"{arguments.event.id} was taken by a broker; the reply goes to whoever subscribes to it.")
    except (_Failure, ProblemError) as error:
        print(f"publish: {error}", file=sys.stderr)
        return 1
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m web.publish",
        description="Send a request for a text or a picture as a CloudEvent, signed if PREDICTOR_TOKEN is set.",
    )
    parser.add_argument("prompt", help="what to write about, or what to paint")
    parser.add_argument("--to", default=os.environ.get("K_SINK"), help="URL of a predictor or broker (default: K_SINK)")
    parser.add_argument("--mode", choices=["binary", "structured"], default="binary", help="form of the event")
    parser.add_argument("--source", default="urn:shangcai:publish", help="source of the event (default: %(default)s)")
    parser.add_argument("--subject", help="subject of the event, and of all that is said about it")
    parser.add_argument("--caller", help="whose request it is; it counts only with PREDICTOR_TOKEN")
    parser.add_argument("--model", help="name of the model")
    parser.add_argument(
        "--field",
        metavar="NAME=JSON",
        action="append",
        default=[],
        type=_field,
        help="another field of the request, such as seed=7; may be given again",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the first picture is written to")
    parser.add_argument("--timeout", type=_seconds, default=TIMEOUT, help="seconds to wait for (default: %(default)g)")
    arguments = parser.parse_args(argv)
    if any("\ud800" <= char <= "\udfff" for char in arguments.prompt):
        parser.error("prompt: is no UTF-8")
    if not arguments.to:
        parser.error("--to: is required where K_SINK is not set")
    try:
        arguments.event = _event(arguments)
    except ValidationError as error:
        [first, *_] = error.errors()
        parser.error(f"--{first['loc'][0]}: {first['msg'].removeprefix('Value error, ')}")
    return arguments


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds


def _field(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        hint = "is not NAME=JSON, such as seed=7 or, with the quotes of a text, 'size=\"64x64\"'"
        raise argparse.ArgumentTypeError(f"{text!r} {hint}") from None


def _event(arguments: argparse.Namespace) -> CloudEvent:
    # Not checked here: the predictor says what is wrong with it.
    request = {"prompt": arguments.prompt} | ({"model": arguments.model} if arguments.model else {})
    event = CloudEvent(
        id=uuid.uuid4().hex,
        source=arguments.source,
        type=REQUESTED,
        subject=arguments.subject,
        time=now(),
        datacontenttype=JSON,
        extensions={CALLER: arguments.caller} if arguments.caller else {},
        data=json.dumps(request | dict(arguments.field), ensure_ascii=False).encode(),
    )
    token = os.environ.get("PREDICTOR_TOKEN")  # no flag: other users of the machine could read it
    return signed(event, token) if token else event


def _send(arguments: argparse.Namespace, transport: httpx2.BaseTransport | None) -> httpx2.Response:
    """The answer, which is a success. A _Failure when there is none."""
    headers, body = write_event(arguments.event, arguments.mode)
    try:
        with httpx2.Client(transport=transport, timeout=arguments.timeout, trust_env=False) as client:
            answer = client.post(arguments.to, headers=headers | {"Prefer": "reply"}, content=body)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise _Failure(f"{arguments.to} cannot be asked: {error or type(error).__name__}") from None
    if not answer.is_success:
        raise _Failure(_refusal(answer))
    return answer


def _refusal(answer: httpx2.Response) -> str:
    try:
        reason = _sentence(Problem.of_any_version(answer.content))
    except ValidationError:
        reason = answer.text[:_SHOWN] or answer.reason_phrase
    retry_after = answer.headers.get("retry-after")
    return f"status {answer.status_code}: {reason}" + (f" Try again in {retry_after} s." if retry_after else "")


def _sentence(problem: Problem) -> str:
    return f"{problem.title}: {problem.detail}"


def _print_reply(reply: CloudEvent, out: Path | None) -> None:
    """Print the attributes, and the data as a person reads them. A _Failure unless the event is a result."""
    for name, value in reply.attributes.items():
        print(f"{name}: {value}")
    print()
    data = reply.data or b""
    try:
        if reply.type == FAILED:
            raise _Failure(_sentence(Problem.of_any_version(data)))
        if reply.type != COMPLETED:
            raise _Failure(f"{reply.type} is no result: {data.decode(errors='replace')[:_SHOWN]}")
        if DATAREF in reply.extensions:
            print(f"The result is too large for an event and lies at {reply.extensions[DATAREF]}")
        else:
            _print_result(result_of_any_version(data), out)
    except ValidationError:
        raise _Failure(f"its data are none of {reply.type}: {data.decode(errors='replace')[:_SHOWN]}") from None


def _print_result(result: TextResult | PictureResult, out: Path | None) -> None:
    if isinstance(result, TextResult):
        print(result.text)
        return
    for picture in result.images:
        print(f"{picture.media_type}, {picture.width} x {picture.height}, seed {picture.seed}")
    if out is not None:
        try:
            out.write_bytes(base64.b64decode(result.images[0].data))
        except (OSError, ValueError) as error:
            raise _Failure(f"the picture cannot be written to {out}: {error}") from None
        print(f"The first picture is in {out}")


if __name__ == "__main__":
    sys.exit(main())
