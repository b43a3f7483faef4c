"""Pages that are made from the code are what the code makes of them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from contract.cloudevents import DATAREF, EVENT_TYPES, FAMILY
from wire.cloudevents import read_events

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["metrics", "events"])
def test_a_page_is_what_its_script_prints(page: str) -> None:
    printed = subprocess.run(
        [sys.executable, "-m", f"scripts.docs.{page}"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert (ROOT / "docs" / f"{page}.md").read_text() == printed


def fits(data: bytes | None, shape: type[BaseModel]) -> bool:
    try:
        shape.model_validate_json(data or b"")
    except ValidationError:
        return False
    return True


def test_every_type_of_event_is_described_with_examples_that_can_be_read() -> None:
    page = (ROOT / "docs" / "events.md").read_text()
    for row in EVENT_TYPES:
        assert f"\n## {row.name.removeprefix(FAMILY)}\n" in page
    modes: dict[str, set[str]] = {}
    for transcript in re.findall(r"```http\n(.*?)\n```", page, re.DOTALL):
        head, _, body = transcript.partition("\n\n")
        headers = dict(line.split(": ", 1) for line in head.splitlines()[1:])
        assert len(body.encode()) == int(headers["content-length"])
        delivery = read_events(headers, body.encode())
        for event in delivery.events:
            modes.setdefault(event.type, set()).add(delivery.mode)
            shapes = next(row.data for row in EVENT_TYPES if row.name == event.type)
            assert DATAREF in event.extensions or any(fits(event.data, shape) for shape in shapes)
    assert modes == {row.name: {"binary", "structured", "batched"} for row in EVENT_TYPES}
