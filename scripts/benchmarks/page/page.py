"""What a visitor of the page waits for: its first paint, beside a page of one word from the same server; what it loads;
and how far its layout moves, and how long it does not answer, while a poem and a picture are made. Needs Chromium."""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from scripts.benchmarks.servers import start_predictor, start_server
from scripts.progress import tracked
from scripts.project import ROOT

SECONDS = 60
FLOOR = "<!doctype html><title>-</title><p>word"
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
LOADED = """() => performance.getEntriesByType("resource").concat(performance.getEntriesByType("navigation"))
  .reduce((sum, {decodedBodySize, encodedBodySize}) => [sum[0] + decodedBodySize, sum[1] + encodedBodySize], [0, 0])"""
WATCH = """() => { window.shifts = 0; window.tasks = [0];
  new PerformanceObserver((list) => list.getEntries().forEach(({value, hadRecentInput}) => {
    if (!hadRecentInput) shifts += value; }))
    .observe({type: "layout-shift", buffered: true});
  new PerformanceObserver((list) => tasks.push(...list.getEntries().map(({duration}) => duration)))
    .observe({entryTypes: ["longtask"]}); }"""


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench page", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="of each visit; medians are printed")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="its program (%(default)s)")
    arguments = parser.parse_args(argv)
    models = ROOT / "models"
    with (
        start_predictor(models / "poet", "float32", 4, "poet") as poet,
        start_predictor(models / "painter", "float32", 4, "painter") as painter,
        sync_playwright() as playwright,
    ):
        served = {"poet": {"url": poet.url}, "painter": {"url": painter.url, "kind": "image"}}
        browser = playwright.chromium.launch(executable_path=arguments.chromium, args=["--no-sandbox"])
        with start_server("web", ["--models", json.dumps(served)], "/healthz") as web:
            _measure_paint(browser, web.url, arguments.rounds)
            for width in (1280, 390):
                _measure_order(browser, web.url, width)


def _measure_paint(browser: Browser, url: str, rounds: int) -> None:
    visits: dict[str, Callable[[], float]] = {
        "the first visit": lambda: _first_visit(browser, url),
        "a further visit": lambda: _further_visit(browser, url),
        "a page of one word": lambda: _floor(browser, url),
    }
    times: dict[str, list[float]] = {name: [] for name in visits}
    for _ in tracked(range(rounds), "rounds"):
        for name, visit in visits.items():
            times[name].append(visit())
    floor = statistics.median(times["a page of one word"])
    for name, found in times.items():
        median = statistics.median(found)
        print(
            f"{name}: first contentful paint {median:.0f} ms, longest {max(found):.0f} ({median / floor:.1f})",
            flush=True,
        )


def _first_visit(browser: Browser, url: str) -> float:
    with browser.new_context() as context:
        return _painted(context.new_page(), url)


def _further_visit(browser: Browser, url: str) -> float:
    with browser.new_context() as context:
        context.new_page().goto(url, wait_until="networkidle")
        return _painted(context.new_page(), url)


def _floor(browser: Browser, url: str) -> float:
    def answer(route: Route) -> None:
        route.fulfill(body=FLOOR, content_type="text/html")

    with browser.new_context() as context:
        page = context.new_page()
        page.route(url + "/", answer)
        return _painted(page, url)


def _painted(page: Page, url: str) -> float:
    """Milliseconds from the beginning of the visit."""
    page.goto(url, wait_until="networkidle")
    return float(page.evaluate(PAINTED))


def _measure_order(browser: Browser, url: str, width: int) -> None:
    with browser.new_context(viewport={"width": width, "height": 844}) as context:
        page = context.new_page()
        page.goto(url, wait_until="networkidle")
        plain, packed = page.evaluate(LOADED)
        page.evaluate(WATCH)
        for model, prompt in (("poet", "春雨"), ("painter", "a red fox")):
            page.locator(f"[name=model][value={model}]").check()
            page.locator("#prompt").fill(prompt)
            page.locator("#serve").click()
            done: Any = expect(page.locator("#shelf li"))
            done.to_have_count(1 if model == "poet" else 2, timeout=SECONDS * 1000)
        shift, longest = page.evaluate("shifts"), page.evaluate("Math.max(...tasks)")
        print(
            f"{width} px wide: {plain / 1000:.1f} kB loaded, {packed / 1000:.1f} as sent; through a poem and a picture "
            f"a layout shift of {shift:.4f}, and a longest task of {longest:.0f} ms",
            flush=True,
        )
