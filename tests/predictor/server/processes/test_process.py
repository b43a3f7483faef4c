"""`python -m predictor` as a process: from the first connection to the exit status."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import httpx2
import pytest

pytestmark = pytest.mark.slow

LONG = {"model": "tiny", "prompt": "moon", "max_tokens": 200, "temperature": 0}


class Answer(threading.Thread):
    """A request that is under way while the test does something else."""

    def __init__(self, url: str, body: dict[str, Any]) -> None:
        super().__init__(daemon=True)
        self._request = (url, body)
        self.begun = threading.Event()
        self.text = ""
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        url, body = self._request
        try:
            with httpx2.stream("POST", url, json=body, timeout=60) as answer:
                for piece in answer.iter_text():
                    self.text += piece
                    self.begun.set()
        except Exception as error:
            self.error = error
        finally:
            self.begun.set()


def slowed(seconds: float) -> tuple[str, ...]:
    """Python arguments that make each token take this long, so that a generation is really under way."""
    code = (
        "import runpy, sys, time; import predictor.text.output.text_output as w; put = w.TextOutput.put; "
        f"w.TextOutput.put = lambda self, token: (time.sleep({seconds}), put(self, token))[1]; "
        "sys.argv[0] = 'predictor'; runpy.run_module('predictor', run_name='__main__', alter_sys=False)"
    )
    return ("-c", code)


@pytest.fixture
def slow_predictor(start_predictor: Any) -> Any:
    """Ready, and takes a second for each 25 tokens."""
    predictor = start_predictor(script=slowed(0.04))
    predictor.wait_ready()
    return predictor


def test_it_answers_with_the_phase_before_torch_is_imported_and_is_ready_in_the_end(start_predictor: Any) -> None:
    predictor = start_predictor("--log-level", "info")
    phases: list[str] = []

    def ready() -> bool:
        try:
            answer = httpx2.get(f"{predictor.url}/v1/models/tiny", timeout=60)
        except httpx2.TransportError:
            return False
        if answer.status_code == 503:
            phases.append(answer.json()["phase"])
        return answer.status_code == 200

    predictor.wait_for(ready, "readiness")

    assert phases, "it answered while it was loading"
    assert phases[0] in ("starting", "importing torch")
    assert set(phases) <= {
        *("starting", "importing torch", "importing transformers", "loading the tokenizer"),
        *("loading the weights", "checking the batch", "measuring slots", "warming up"),
    }
    order = re.findall(r"(importing torch|importing transformers|warming up) took|(ready) after", predictor.log())
    assert ["".join(found) for found in order] == ["importing torch", "importing transformers", "warming up", "ready"]
    answer = httpx2.post(f"{predictor.url}/openai/v1/completions", json=LONG, timeout=60)
    assert answer.json()["usage"]["completion_tokens"] == 200
    assert predictor.end(signal.SIGTERM) == 0
    assert "Traceback" not in predictor.log()


def test_the_port_is_open_before_torch_is_imported(start_predictor: Any, tmp_path: Path) -> None:
    """A torch that only tells that it was imported stands in the place of the real one."""
    told = tmp_path / "imported"
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(
        f"import pathlib, socket, sys, time\npathlib.Path({str(told)!r}).touch()\ntime.sleep(600)\n"
    )
    code = (
        f"import sys, runpy; sys.path.insert(0, {str(tmp_path)!r}); runpy.run_module('predictor', run_name='__main__')"
    )
    predictor = start_predictor(script=("-c", code))
    predictor.wait_for(told.exists, "an import of torch")

    answer = httpx2.get(f"{predictor.url}/v1/models/tiny", timeout=60)

    assert answer.status_code == 503
    assert answer.json()["phase"] == "importing torch"
    assert answer.json()["seconds"] > 0
    assert predictor.status("/v2/health/live") == 200
    assert predictor.status("/v2/health/ready") == 503
    assert predictor.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_what_was_accepted_is_finished_after_a_signal(slow_predictor: Any, sig: int) -> None:
    url = f"{slow_predictor.url}/openai/v1/completions"
    streaming = Answer(url, LONG | {"stream": True, "stream_options": {"include_usage": True}})
    assert streaming.begun.wait(60)
    waiting = Answer(url, LONG | {"max_tokens": 20})
    slow_predictor.wait_for(lambda: slow_predictor.connections() >= 2, "a second connection")
    assert slow_predictor.status("/v2/health/live") == 200  # and with it, what was sent before it was read

    assert slow_predictor.end(sig) == 0

    for answer in (streaming, waiting):
        answer.join(60)
        assert answer.error is None
    assert streaming.text.endswith("data: [DONE]\n\n")
    assert '"completion_tokens":200' in streaming.text
    assert '"completion_tokens":20,' in waiting.text
    assert "Traceback" not in slow_predictor.log()


def test_after_a_signal_new_connections_are_refused_at_once(slow_predictor: Any) -> None:
    running = Answer(f"{slow_predictor.url}/openai/v1/completions", LONG | {"stream": True})
    assert running.begun.wait(60)

    slow_predictor.process.send_signal(signal.SIGTERM)

    slow_predictor.wait_for(lambda: slow_predictor.status("/") == 0, "a refused connection")
    assert slow_predictor.process.poll() is None, "the generation goes on"
    running.join(60)
    assert running.text.endswith("data: [DONE]\n\n")
    assert slow_predictor.process.wait(60) == 0


def test_the_grace_period_ends_what_takes_longer(start_predictor: Any) -> None:
    predictor = start_predictor("--grace-seconds", "1", script=slowed(0.2))
    predictor.wait_ready()
    running = Answer(f"{predictor.url}/openai/v1/completions", LONG | {"stream": True})
    assert running.begun.wait(60)

    assert predictor.end(signal.SIGTERM) == 0

    running.join(60)
    assert "[DONE]" not in running.text


@pytest.mark.parametrize(
    ("phase", "sig"),
    [
        ("started", signal.SIGTERM),
        ("listening", signal.SIGTERM),
        ("loading", signal.SIGTERM),
        ("loading", signal.SIGINT),
    ],
)
def test_a_signal_while_starting_ends_it_with_status_0(start_predictor: Any, phase: str, sig: int) -> None:
    predictor = start_predictor()
    match phase:
        case "started":
            predictor.wait_for(predictor.handles_sigterm, "a signal handler")
        case "listening":
            predictor.wait_for(predictor.listens, "an open port")
        case "loading":
            predictor.wait_for(lambda: predictor.status("/v1/models/tiny") == 503, "an answer")

    assert predictor.end(sig) == 0
    assert "Traceback" not in predictor.log()


def test_it_can_be_process_1(start_predictor: Any) -> None:
    unshare = shutil.which("unshare")
    options = ("--pid", "--fork", "--kill-child")
    if not unshare or subprocess.run([unshare, *options, "true"], capture_output=True).returncode:
        pytest.skip("this machine does not let us make a PID namespace")
    predictor = start_predictor(prefix=(unshare, *options))
    predictor.wait_ready()
    children = Path(f"/proc/{predictor.process.pid}/task/{predictor.process.pid}/children")

    subprocess.run(["kill", "-TERM", children.read_text().strip()], check=True)

    assert predictor.process.wait(60) == 0
    assert "Finished server process [1]" in predictor.log()


def one_line(predictor: Any, status: int = 1) -> str:
    assert predictor.process.wait(120) == status, predictor.log()
    [line] = predictor.log().splitlines()
    return str(line)


def test_a_missing_folder_is_one_line(start_predictor: Any, tmp_path: Path) -> None:
    predictor = start_predictor("--model", str(tmp_path / "no"))

    assert one_line(predictor) == f"predictor: there is no folder {tmp_path / 'no'}"


def test_a_folder_without_safetensors_is_one_line(start_predictor: Any, tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")

    assert "holds no *.safetensors" in one_line(start_predictor("--model", str(folder)))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.safetensors", b"no tensors at all"),
        ("config.json", b"{"),
        ("config.json", b'{"model_type": "unheard-of"}'),
        ("config.json", b'{"model_type": "llama", "vocab_size": 400, "hidden_size": 32, "num_attention_heads": 4}'),
        ("tokenizer.json", b"{}"),
        ("tokenizer.json", None),
    ],
)
def test_a_model_that_cannot_be_loaded_is_one_line(
    start_predictor: Any, tiny_model: Path, tmp_path: Path, file: str, content: bytes | None
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)

    line = one_line(start_predictor("--model", str(folder), "--log-level", "error"))

    assert line.startswith(f"predictor: cannot load {folder}: ")


def test_weights_that_lack_a_tensor_are_refused(start_predictor: Any, tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny_model, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    line = one_line(start_predictor("--model", str(folder), "--log-level", "error"))

    reason = "1 of its tensors are missing, model.layers.0.mlp.up_proj.weight among them"
    assert line == f"predictor: cannot load {folder}: {reason}"


@pytest.mark.parametrize("kind", [[], ["--kind", "text"]])
def test_a_hub_id_that_cannot_be_fetched_is_one_line(start_predictor: Any, kind: list[str]) -> None:
    line = one_line(start_predictor("--model", "shangcai/no-such-model", *kind, "--log-level", "error"))

    assert line.startswith("predictor: there is no folder shangcai/no-such-model, and the hub ")


def test_a_gpu_that_is_not_there_is_one_line(start_predictor: Any) -> None:
    """Rather than that the CPU serves in its place. No machine has so many."""
    line = one_line(start_predictor("--device", "cuda:99", "--log-level", "error"))

    assert line.startswith(("predictor: the device cuda:99 cannot be used: ", "predictor: there is no device cuda:99:"))


def test_a_port_in_use_is_one_line(start_predictor: Any, tiny_predictor: Any) -> None:
    port = str(tiny_predictor.port)
    assert one_line(start_predictor("--port", port)) == f"predictor: port {port} on 127.0.0.1 is in use"

    port = str(tiny_predictor.grpc_port)
    assert one_line(start_predictor("--grpc-port", port)) == f"predictor: port {port} on 127.0.0.1 is in use"


def test_a_wrong_flag_is_one_line_and_status_2(start_predictor: Any) -> None:
    assert "--port" in one_line(start_predictor("--port", "high"), status=2)


def test_a_ready_predictor_says_nothing_that_alarms(tiny_predictor: Any) -> None:
    httpx2.post(f"{tiny_predictor.url}/openai/v1/completions", json=LONG, timeout=60)

    log = tiny_predictor.log().replace("INFO uvicorn.error", "")
    assert not re.search(r"warn|error|deprecat|traceback", log, re.IGNORECASE), log
