"""Documents: what is made from the code is what the code makes, links lead somewhere, and the READMEs are equal."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

import pytest
from pydantic import BaseModel, ValidationError

from contract.cloudevents import DATAREF, EVENT_TYPES, FAMILY
from wire.cloudevents import read_events

ROOT = Path(__file__).parents[2]
PAGES = sorted(path for place in ("", "docs/", "models/*/", ".github/") for path in ROOT.glob(f"{place}*.md"))
ROOMS = (
    "contract",
    "deploy",
    "docs",
    "knative",
    "kserve",
    "models",
    "predictor",
    "scripts",
    "shangcai",
    "tests",
    "web",
    "wire",
)
README = ROOT / "README.md"
CHINESE = ROOT / "README.zh-CN.md"


@pytest.mark.parametrize("page", ["configuration", "events", "metrics", "openai"])
def test_a_page_is_what_its_script_prints(page: str) -> None:
    printed = subprocess.run(
        [sys.executable, "-m", f"scripts.docs.{page}"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert (ROOT / "docs" / f"{page}.md").read_text() == printed


def test_numbers_are_written_in_full() -> None:
    assert re.findall(r"[0-9]e[+-][0-9]+", (ROOT / "docs" / "configuration.md").read_text()) == []


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


def prose(page: Path) -> str:
    """Without code, in which nothing is a link or a heading."""
    return re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-")


def anchors(page: Path) -> set[str]:
    """What GitHub makes of a page's headings."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    seen: Counter[str] = Counter()
    found = set()
    for name in map(anchor, headings):
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    text = prose(page)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, part = unquote(target).partition("#")
        other = (page.parent / file).resolve() if file else page
        if not other.exists() or (part and part not in anchors(other)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_list_of_contents_names_each_part(page: Path) -> None:
    contents = re.search(r"^Contents: (.*?)\n\n(.*)", prose(page), re.DOTALL | re.MULTILINE)
    if contents is not None:
        headings = re.findall(r"^## (.*)$", contents[2], re.MULTILINE)
        assert re.findall(r"\(#([^)]+)\)", contents[1]) == [anchor(heading) for heading in headings]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_is_named_exists(page: Path) -> None:
    """But for what has been, which the changelog and the table of old and new names are about."""
    text = page.read_text()
    named = set(re.findall(rf"(?<=`)(?:{'|'.join(ROOMS)})/[\w./-]+(?=[` ])", text))
    for command in re.findall(r"^\$ (.*)$", text, re.MULTILINE):
        named |= set(re.findall(rf"(?<![\w./-])(?:{'|'.join(ROOMS)})/[\w./-]+", command))
    named = {name for name in named if "mine" not in Path(name).parts}  # the reader's copies
    if page.name not in ("architecture.md", "CHANGELOG.md"):
        assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_page_that_a_source_names_exists() -> None:
    missing = []
    for file in (file for room in ROOMS for file in (ROOT / room).rglob("*")):
        if file.suffix in (".py", ".yaml", ".sh") and "node_modules" not in file.parts:
            named = re.findall(r"\bdocs/[\w-]+\.md\b", file.read_text())
            missing += [f"{file.relative_to(ROOT)}: {page}" for page in named if not (ROOT / page).is_file()]
    assert missing == []


def test_the_readme_fits_on_a_page_and_has_a_twin_in_chinese() -> None:
    """The same parts, commands, answers, links and figures."""
    english, chinese = README.read_text(), CHINESE.read_text()
    for text in (english, chinese):
        assert len(text.splitlines()) <= 150
    for pattern in (
        r"^#+",  # the same parts
        r"^\$ [^#\n]*[^#\s]|^\{.*$|^fetch.*$",  # commands and answers
        r'src="[^"]*"',
    ):
        assert re.findall(pattern, english, re.MULTILINE) == re.findall(pattern, chinese, re.MULTILINE)
    for pattern in (r"\d+(?:[.,]\d+)*", r"(?<=\()[^()\s]+\.md(?=\))", r"`[^`\n]+`"):
        found = [set(re.findall(pattern, text)) - {"README.md", "README.zh-CN.md"} for text in (english, chinese)]
        assert found[0] == found[1]
