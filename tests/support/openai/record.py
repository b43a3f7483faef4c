"""Records what OpenAI's clients can do here: `python -m tests.support.openai.record` writes scripts/docs/openai.json.

Every value of tests.support.openai.probes is tried with each client against a scripts/run, with all models asleep. It
takes minutes, and ends with status 1, having written nothing, where something is neither of the three states. Named
methods alone are tried and printed.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.support.openai.deployment import Deployment
from tests.support.openai.javascript_client import SCRIPTS, program_folder
from tests.support.openai.probe import MethodProbes, Probe, ProbeFailed
from tests.support.openai.recorder import METHODS, Recorder, parameters_of
from tests.support.packages.installed import npm_installed
from tests.support.processes import ROOT
from tests.support.texts.tool_model import save_tool_model

FILE = ROOT / "scripts" / "docs" / "openai.json"


def main(only: list[str]) -> int:
    begun = time.monotonic()
    failures: list[str] = []
    methods = []
    with ExitStack() as stack:
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (temporary / "scripts").mkdir()
        folder = program_folder(temporary / "scripts", npm_installed(SCRIPTS) / "node_modules")
        deployment = stack.enter_context(closing(Deployment({"caller": save_tool_model(temporary / "caller")})))
        deployment.begin()
        recorder = stack.enter_context(closing(Recorder(deployment, folder)))
        for method in METHODS:
            if not only or method.name in only:
                methods.append(_document(recorder, method, failures))
                print(f"{time.monotonic() - begun:.0f} s {method.name}", file=sys.stderr, flush=True)
    document = {"versions": {"python": version("openai"), "javascript": javascript_version()}, "methods": methods}
    written = json.dumps(document, ensure_ascii=False, indent=1) + "\n"
    if only:
        print(written)
    elif not failures:
        FILE.write_text(written)
    return 1 if failures else 0


def _document(recorder: Recorder, method: MethodProbes, failures: list[str]) -> dict[str, Any]:
    """All probes of a method; one that is not offered by its first probe is not asked further."""
    parameters: dict[str, list[Any]] = {}
    for probe in method.probes:
        states = dict(_states(recorder, method, probe, failures))
        if "not offered" in states.values():
            break
        if states:
            more = {"with": dict(probe.more)} if probe.more else {}
            parameters.setdefault(probe.parameter, []).append({"value": probe.value, **more, **states})
    else:
        return {**_names(recorder, method), "offered": True, "parameters": dict(sorted(parameters.items()))}
    names = {one for language, found in recorder.signatures.items() for one in parameters_of(method, language, found)}
    return {**_names(recorder, method), "offered": False, "parameters": {name: [] for name in sorted(names)}}


def _states(recorder: Recorder, method: MethodProbes, probe: Probe, failures: list[str]) -> Iterator[tuple[str, str]]:
    for language in recorder.languages(method, probe):
        try:
            yield language, recorder.state(method, probe, language)
        except ProbeFailed as failure:
            failures.append(str(failure))
            print(failure, file=sys.stderr, flush=True)


def _names(recorder: Recorder, method: MethodProbes) -> dict[str, str | None]:
    return {language: method.named(language) for language in recorder.signatures}


def javascript_version() -> str:
    """Of the client that the lock file names."""
    return str(json.loads((SCRIPTS / "package.json").read_text())["dependencies"]["openai"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
