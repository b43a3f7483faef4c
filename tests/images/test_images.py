"""The images as they are built and run: what is in them, and that they answer."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from tests.images.locked_versions import Distribution, torch_constraints, unlocked
from tests.images.sources import sources

pytestmark = pytest.mark.slow

LIMIT = 60.0
GRACE = 30
"""Seconds from SIGTERM to SIGKILL, unless Kubernetes is told otherwise."""

ROOT = Path(__file__).parents[2]
CONSTRAINTS = (ROOT / "constraints.txt").read_text()
USER = 65532
PYTHON = "/opt/venv/bin/python"
IMAGES = pytest.mark.parametrize("image", ["web", "predictor"])
READY = "/v2/health/ready"


def post(url: str, **body: Any) -> httpx2.Response:
    accept = body.pop("accept", "application/json")
    return httpx2.post(f"{url}/generate", json=body, headers={"Accept": accept}, timeout=LIMIT, trust_env=False)


def test_text_and_pictures_from_the_images(serve: Any) -> None:
    """The whole service: web in front of two predictors, each from its image and as its user."""
    with (
        serve("predictor", READY, PREDICTOR_MODEL="/app/models/poet", PREDICTOR_NAME="text") as text,
        serve("predictor", READY, PREDICTOR_MODEL="/app/models/painter", PREDICTOR_NAME="image") as image,
    ):
        models = json.dumps({"text": {"url": text.url}, "image": {"url": image.url, "kind": "image"}})
        with serve("web", "/healthz", MODELS=models) as web:
            for name, served in {"web": web, "poet": text, "painter": image}.items():
                print(f"{name}: {served.seconds:.2f} s from its start in its image until it is ready")
            poem = post(web.url, prompt="写一首关于春雨的诗", seed=1)
            assert poem.status_code == 200, poem.text
            assert re.fullmatch(r"(.+[，。？！]\n?){4,8}", poem.json()["text"])
            picture = post(web.url, prompt="画一只猫", kind="image", accept="image/png")
            assert picture.content.startswith(b"\x89PNG")
            for served in (text, image, web):
                assert set(served.process.uids()) == {USER}
                assert set(served.process.gids()) == {USER}
            for served in (web, text, image):  # process 1 of a container gets the signal, and no shell before it
                served.process.send_signal(signal.SIGTERM)
                assert served.started.wait(GRACE) == 0, served.log.read_text()


@IMAGES
def test_from_a_read_only_root(
    image: str, mounted: Callable[[str], Path], configured: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    config = configured(image)
    settings = {
        "web": {"MODELS": '{"text": "http://127.0.0.1:1"}'},
        "predictor": {"PREDICTOR_MODEL": "/app/models/poet"},
    }
    prefix, ready = ("", "/healthz") if image == "web" else ("PREDICTOR_", READY)
    environment = [*config["Env"], *(f"{name}={value}" for name, value in settings[image].items())]
    environment += [f"{prefix}HOST=127.0.0.1", f"{prefix}PORT=0"]
    root = mounted(image)
    script = """
        mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && mount -t tmpfs tmpfs "$0/tmp"
        mount -t proc proc "$0/proc" && mount -t tmpfs tmpfs "$0/dev" && touch "$0/dev/null" "$0/dev/urandom"
        mount --bind /dev/null "$0/dev/null" && mount --bind /dev/urandom "$0/dev/urandom"
        mkdir -m 1777 "$0/dev/shm"
        user=$1 folder=$2; shift 2
        exec chroot --userspec="$user" "$0" /usr/bin/env -i -C "$folder" "$@"
    """
    command = [str(root), config["User"], config["WorkingDir"], *environment, *config["Entrypoint"]]
    log = tmp_path / "log"
    with log.open("wb") as sink:
        started = subprocess.Popen(
            ["unshare", "--mount", "sh", "-euc", script, *command], stdout=sink, stderr=subprocess.STDOUT
        )
    try:
        process = psutil.Process(started.pid)
        deadline = time.monotonic() + LIMIT
        while True:
            assert started.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            ports = [link.laddr.port for link in process.connections() if link.status == psutil.CONN_LISTEN]
            try:
                if ports and httpx2.get(f"http://127.0.0.1:{ports[0]}{ready}", timeout=5, trust_env=False).is_success:
                    break
            except httpx2.HTTPError:
                pass
            time.sleep(0.02)
        with pytest.raises(OSError, match="Read-only file system"):
            os.open(f"/proc/{started.pid}/root/app/new", os.O_CREAT | os.O_WRONLY)
        started.send_signal(signal.SIGTERM)
        assert started.wait(LIMIT) == 0, log.read_text()
    finally:
        started.kill()
        started.wait()


def test_web_is_light(images: Any, within: Callable[..., str]) -> None:
    layers = sizes(images.table, "web")
    assert len(layers) == 4  # the base's, its library compiled, the packages', ours
    assert sum(layers[1:]) < 120
    installed = within(
        "web", PYTHON, "-c", "import importlib.metadata as m; print(*[d.name for d in m.distributions()])"
    )
    assert not {"torch", "numpy", "kserve", "transformers", "fastapi"} & set(installed.split())
    assert {"httpx2", "starlette", "shangcai"} <= set(installed.split())


def sizes(table: str, image: str) -> list[float]:
    """Megabytes of the image's layers, its base's first."""
    part = table[table.index(f"\nshangcai/{image}:") + 1 :].split("\n\n")[0]
    return [float(size.replace(",", "")) for size in re.findall(r"^ +([\d,.]+) MB", part, re.MULTILINE)]


def test_torch_has_a_layer_of_its_own(images: Any, within: Callable[..., str]) -> None:
    part = images.table[images.table.index("\nshangcai/predictor:") :]
    copied = re.findall(r"([\d,.]+) MB +COPY dir:\w+ in (\S+)", part)
    assert [folder for _, folder in copied] == ["/opt/torch", "/opt/venv", "/app"]
    assert within("predictor", PYTHON, "-c", "import torch; print(torch.__file__)") == "/opt/torch/torch/__init__.py"
    assert float(copied[2][0]) < 60  # with both models


def test_torch_stays_when_other_versions_change(
    images: Any, store: dict[str, str], within: Callable[..., str], tmp_path: Path
) -> None:
    for name in ("predictor", "web", "contract", "wire", "models"):
        (tmp_path / name).mkdir()
    shutil.copy(ROOT / "predictor" / "Dockerfile", tmp_path / "predictor")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    nothing = tmp_path / "pip.conf"  # what was not kept cannot be installed
    nothing.write_text("[global]\nno-index = true\n")
    build = ["build", "--layers", "--file", "predictor/Dockerfile", "--target", "torch", "--tag", "localhost/torch"]
    build += ["--build-arg", f"BASE={images.base}", "--secret", f"id=pip.conf,src={nothing}"]
    for changed, stays in ((r"^uvicorn==", True), (r"^torch==", False)):
        (tmp_path / "constraints.txt").write_text(
            re.sub(rf"({changed}).*", r"\g<1>0.0.1", CONSTRAINTS, flags=re.MULTILINE)
        )
        built = subprocess.run(["buildah", *build, str(tmp_path)], env=store, capture_output=True, text=True)
        assert (built.returncode == 0) == stays, built.stderr


@IMAGES
def test_versions_are_the_tested_ones(image: str, installed: Callable[..., list[Distribution]]) -> None:
    found = [each for each in installed(image) if each.name != "shangcai"]
    assert unlocked(found, CONSTRAINTS.splitlines()) == set()


def test_torch_is_installed_with_the_tested_versions(installed: Callable[..., list[Distribution]]) -> None:
    """Of all that is in its layer: no other version then changes the layer."""
    constraints = torch_constraints((ROOT / "predictor" / "Dockerfile").read_text(), CONSTRAINTS)
    found = installed("predictor", "/opt/torch")
    assert "torch" in {each.name for each in found}
    assert unlocked(found, constraints) == set()


@IMAGES
def test_all_of_our_modules_are_there(image: str, mounted: Callable[[str], Path]) -> None:
    app = mounted(image) / "app"
    found = {file.relative_to(app) for file in app.rglob("*") if file.is_file()}
    assert {file for file in sources() if file.parts[0] in ("contract", "wire", image)} <= found


@IMAGES
def test_what_is_not_needed_to_run_is_not_there(image: str, within: Callable[..., str]) -> None:
    tools = "for name in pip pip3 gcc cc make git curl; do command -v $name || true; done"
    left = "ls -d /build /app/tests /app/kserve /etc/pip.conf 2>/dev/null || true"
    assert within(image, "sh", "-c", f"{tools}; {left}") == ""
    builders = "import importlib.util as u; print(*filter(u.find_spec, ['pip', 'setuptools', 'wheel']))"
    assert within(image, PYTHON, "-c", builders) == ""
    other = {"web": "predictor", "predictor": "web"}[image]
    rooms = within(image, "ls", "/app").split()
    assert image in rooms
    assert other not in rooms


@IMAGES
def test_a_start_compiles_nothing(image: str, within: Callable[..., str]) -> None:
    """Python says "code object from" of what it had to compile."""
    imports = {
        "web": "web.__main__, web.jobs.stores.redis_store, jwt",
        "predictor": "predictor.server.model_server, predictor.text.transformers_engine, llguidance, "
        "predictor.pictures.diffusers_engine, predictor.events.redis_reply_store",
    }
    said = within(image, "sh", "-c", f"{PYTHON} -v -c 'import {imports[image]}' 2>&1")
    assert "matches /app/" in said  # or nothing would be looked at
    assert "matches /usr/lib/python3" in said  # and the library's, which its base has not compiled
    compiled = re.findall(r"^# code object from '?(/\S+\.py)\b", said, re.MULTILINE)
    assert compiled == []


@IMAGES
def test_what_an_image_says_of_itself(image: str, configured: Callable[[str], dict[str, Any]]) -> None:
    config = configured(image)
    assert config["User"] == f"{USER}:{USER}"
    assert config["Entrypoint"] == [PYTHON, "-m", image]
    assert list(config["ExposedPorts"]) == ["8080"] or list(config["ExposedPorts"]) == ["8080/tcp"]
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()}
    assert labels["title"] == f"Shangcai {image}"
    of_models = " AND MIT AND OFL-1.1 AND BSD-3-Clause" if image == "predictor" else ""
    assert labels["licenses"] == f"Apache-2.0{of_models}"
    assert re.fullmatch(r"\d+\.\d+\.\d+", labels["version"])
    asked = shutil.which("git") and subprocess.run(["git", "rev-parse"], cwd=ROOT, capture_output=True).returncode == 0
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?" if asked else "unknown", labels["revision"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", labels["created"])
