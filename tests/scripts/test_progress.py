"""Bars: shown in a terminal only, and nothing else is changed by them."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from contextlib import suppress

import pytest

from tests.support.processes import ROOT
from tests.support.waiting import SECONDS

LOOP = """
import sys
from scripts.progress import tracked
for number in tracked(range(3), "rounds [of] three"):
    print("result", number)
"""
NESTED = """
from scripts.progress import progress, tracked
for _ in tracked(range(2), "outer"):
    for _ in tracked(iter("ab"), "inner", 2):
        pass
    with progress("other", 5) as bar:
        bar.reach(4)
print("result")
"""
FAILING = """
from scripts.progress import tracked
for _ in tracked(range(3), "rounds"):
    raise SystemExit("it failed")
"""
GATHERED = """
import asyncio
from scripts.progress import gathered
async def double(number): return 2 * number
print("result", asyncio.run(gathered(map(double, range(3)), "doubled")))
"""
ANNOUNCED = """
from scripts.progress import announced
for name in announced(["web", "predictor"], "image"):
    print("result", name)
"""
WITHOUT_RICH = "import sys; sys.modules['rich'] = sys.modules['rich.console'] = None\n"
PLAIN = {
    LOOP: "result 0\nresult 1\nresult 2\n",
    NESTED: "result\n",
    GATHERED: "result [0, 2, 4]\n",
    ANNOUNCED: "result web\nresult predictor\n",
}


def run_in_terminal(code: str) -> tuple[str, str]:
    """Standard output, which is a pipe, and what the terminal has of standard error."""
    end, inner = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=inner, text=True) as one:
        os.close(inner)
        shown = b""
        with suppress(OSError):  # it has ended
            while chunk := os.read(end, 65536):
                shown += chunk
        os.close(end)
        output, _ = one.communicate(timeout=SECONDS)
    return output, shown.decode()


@pytest.mark.parametrize("code", PLAIN)
def test_without_a_terminal_nothing_is_shown_and_rich_is_not_imported(code: str) -> None:
    code += "\nimport sys; assert 'rich' not in sys.modules"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == PLAIN[code.rpartition("\n")[0]]


@pytest.mark.parametrize(
    ("code", "seen"), [(LOOP, ["rounds [of] three", "0/3"]), (NESTED, ["outer", "inner", "other"]), (GATHERED, ["0/3"])]
)
def test_in_a_terminal_bars_are_shown_and_results_go_where_they_went(code: str, seen: list[str]) -> None:
    output, shown = run_in_terminal(code)
    assert output == PLAIN[code]
    assert [text for text in seen if text not in shown] == []
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l") >= 0  # the cursor is back


def test_steps_that_print_themselves_have_a_line_before_each() -> None:
    output, shown = run_in_terminal(ANNOUNCED)
    assert output == PLAIN[ANNOUNCED]
    assert shown == "image 1 of 2: web\r\nimage 2 of 2: predictor\r\n"


def test_a_loop_that_fails_gives_the_cursor_back() -> None:
    _, shown = run_in_terminal(FAILING)
    assert "it failed" in shown
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l") >= 0


def test_where_rich_is_not_installed_nothing_is_shown() -> None:
    assert run_in_terminal(WITHOUT_RICH + LOOP) == (PLAIN[LOOP], "")
