"""scripts/build-images where it cannot build: each reason is one clear line."""

from __future__ import annotations

import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.processes import free_port

ROOT = Path(__file__).parents[3]
BUILD = "scripts.cluster.build_images"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cook"], "there is no image 'cook'; there are web and predictor"),
        (["--tool", "knife"], "invalid choice: 'knife'"),
        (["--pip-conf", "nowhere"], "--pip-conf: nowhere is no file"),
        (["--push"], "--push: shangcai is in no registry of yours; --prefix names one"),
        (["--digests", "digests"], "--digests: only a registry gives an image its digest; add --push"),
        (
            ["--platform", "linux/amd64,linux/arm64"],
            "--platform: an image of several platforms is made in a registry; add --push, or name one platform",
        ),
        (
            ["web", "--checkpoint", "poet"],
            "--checkpoint: it is made of the image predictor, which is not among those that are built",
        ),
        (
            ["--checkpoint", "poet", "--platform", "linux/arm64"],
            "--checkpoint: a process is dumped on the platform of this machine; leave out the others",
        ),
        (
            ["--checkpoint", "poet --name 'spring"],
            '--checkpoint: "poet --name \'spring" cannot be read: No closing quotation',
        ),
        (["--checkpoint", "  "], "--checkpoint: '  ' names no model"),
        (["--checkpoint", "/"], "--checkpoint: '/' names no model"),
        (
            ["--checkpoint", "poet --slots 4", "--checkpoint", "painter", "--checkpoint", "poet --slots 16"],
            "--checkpoint: 'poet --slots 4' and 'poet --slots 16' would have one name, poet",
        ),
        (
            ["--checkpoint", "/b/m", "--checkpoint", "/a/m"],
            "--checkpoint: '/b/m' and '/a/m' would have one name, m",
        ),
        (  # an image that a snapshot is made in has such a name
            ["--checkpoint", "poet-base", "--checkpoint", "poet"],
            "--checkpoint: 'poet-base' and 'poet' would have one name, poet-base",
        ),
        ([], "docker is not on the PATH; podman is not on the PATH; buildah is not on the PATH"),
    ],
)
def test_what_cannot_be_built_is_one_clear_line(arguments: list[str], said: str, tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", BUILD, *arguments], cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert answer.returncode != 0
    assert said in answer.stderr.splitlines()[-1]


def test_a_tool_that_does_not_work_says_why(tmp_path: Path) -> None:
    tool = tmp_path / "docker"
    tool.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon.' >&2\nexit 1\n")
    tool.chmod(0o755)
    answer = subprocess.run(
        [sys.executable, "-m", BUILD], cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert answer.returncode == 1
    assert "docker does not work (Cannot connect to the Docker daemon.)" in answer.stderr


def stub(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_a_tool_that_does_not_work_is_passed_over_and_named(tmp_path: Path) -> None:
    stub(tmp_path, "docker", "echo 'Cannot connect to the Docker daemon.' >&2; exit 1")
    stub(tmp_path, "podman", '[ "$1" = info ]')
    answer = subprocess.run(
        [sys.executable, "-m", BUILD],
        cwd=ROOT,
        env={"PATH": str(tmp_path)},  # without git, too
        capture_output=True,
        text=True,
    )
    assert "building with podman: docker does not work (Cannot connect to the Docker daemon.)" in answer.stdout
    assert answer.stderr == "scripts/build-images: podman failed; its lines above say why\n"
    assert answer.returncode == 1


def test_a_tool_that_cannot_tell_the_layers_is_one_clear_line(tmp_path: Path) -> None:
    stub(tmp_path, "docker", 'if [ "$1" = history ]; then echo "No such image" >&2; exit 1; fi')
    answer = subprocess.run(
        [sys.executable, "-m", BUILD],
        cwd=ROOT,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert answer.stderr == "scripts/build-images: docker history failed (No such image)\n"
    assert answer.returncode == 1


@pytest.mark.parametrize("reachable", [True, False])
def test_the_index_of_cpu_builds_goes_to_the_predictors_build_if_it_can_be_reached(
    reachable: bool, tmp_path: Path
) -> None:
    stub(tmp_path, "docker", f'[ "$1" != build ] || echo "$@" >>{tmp_path}/builds')
    (tmp_path / "torch").mkdir()
    files = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), files) as server:
        index = f"http://127.0.0.1:{server.server_address[1] if reachable else free_port()}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        answer = subprocess.run(
            [sys.executable, "-m", BUILD, "--torch", "cpu"],
            cwd=ROOT,
            env={"PATH": str(tmp_path), "SHANGCAI_TORCH_INDEX": index},
            capture_output=True,
            text=True,
        )
        server.shutdown()
    assert answer.returncode == 0, answer.stderr
    web, predictor = (tmp_path / "builds").read_text().splitlines()
    assert "TORCH_INDEX" not in web
    if reachable:
        assert f"--build-arg TORCH_INDEX={index} " in predictor
        assert answer.stderr == ""
    else:
        assert "TORCH_INDEX" not in predictor
        assert answer.stderr == (
            f"{index} cannot be reached: torch comes from pip's own index, there perhaps with gigabytes of CUDA\n"
        )


PUSH = ["--prefix", "registry.example.com/me", "--tag", "7", "--platform", "linux/amd64,linux/arm64", "--push"]


def pushed(folder: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """What the command said, and the calls of the tool, but for questions about itself."""
    command = [sys.executable, "-m", BUILD, *PUSH, *arguments]
    answer = subprocess.run(command, cwd=ROOT, env={"PATH": f"{folder}:/usr/bin:/bin"}, capture_output=True, text=True)
    calls = folder / "calls"
    return answer, calls.read_text().splitlines() if calls.exists() else []


def test_docker_pushes_several_platforms_as_buildx_builds_them(tmp_path: Path) -> None:
    stub(
        tmp_path,
        "docker",
        f"""[ "$1 $2" = "buildx build" ] || exit 0
        echo "$@" >>{tmp_path}/calls
        while [ "$1" != --metadata-file ]; do shift; done
        echo '{{"containerimage.digest": "sha256:0123"}}' >"$2" """,
    )
    digests = tmp_path / "digests"
    answer, (build,) = pushed(tmp_path, "--tool", "docker", "web", "--digests", str(digests), "--", "--sbom=true")
    assert answer.returncode == 0, answer.stderr
    assert build.startswith("buildx build --tag registry.example.com/me/web:7 --file web/Dockerfile ")
    assert " --platform linux/amd64,linux/arm64 --push --metadata-file " in build
    assert build.endswith(" --sbom=true .")
    assert digests.read_text() == "registry.example.com/me/web:7@sha256:0123\n"


def test_docker_without_buildx_is_one_clear_line(tmp_path: Path) -> None:
    stub(tmp_path, "docker", '[ "$1" != buildx ]')
    answer, _ = pushed(tmp_path, "--tool", "docker")
    assert answer.stderr == (
        "scripts/build-images: docker needs its plugin buildx for --digests and for several platforms\n"
    )
    assert answer.returncode == 1


@pytest.mark.parametrize("tool", ["podman", "buildah"])
def test_podman_and_buildah_push_several_platforms_as_a_new_list(tool: str, tmp_path: Path) -> None:
    stub(
        tmp_path,
        tool,
        f"""[ "$1" != info ] || exit 0
        echo "$@" >>{tmp_path}/calls
        [ "$1 $2" != "manifest rm" ] || exit 1  # there is none
        [ "$1 $2" = "manifest push" ] || exit 0
        while [ "$1" != --digestfile ]; do shift; done
        echo sha256:0123 >"$2" """,
    )
    digests = tmp_path / "digests"
    answer, (removed, build, push) = pushed(tmp_path, "--tool", tool, "web", "--digests", str(digests))
    assert answer.returncode == 0, answer.stderr
    name = "registry.example.com/me/web:7"
    assert removed == f"manifest rm {name}"
    assert build.startswith(f"build --manifest {name} --file web/Dockerfile ")
    assert " --platform linux/amd64,linux/arm64" in build
    assert push.startswith("manifest push --all --digestfile ")
    assert push.endswith(f" {name} docker://{name}")
    assert digests.read_text() == f"{name}@sha256:0123\n"


def test_an_old_python_is_one_clear_line(tmp_path: Path) -> None:
    stub(tmp_path, "python3", "exit 1")
    script = ROOT / "scripts" / "build-images"
    answer = subprocess.run(["/bin/sh", script], env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert answer.stderr == f"{script}: Python 3.11 or later is needed as python3\n"
    assert answer.returncode == 1


@pytest.mark.parametrize("fails", [False, True])
def test_a_checkpoint_is_dumped_in_a_container_that_is_committed(fails: bool, tmp_path: Path) -> None:
    failing = '[ "$1" != run ] || exit 1' if fails else ""
    stub(tmp_path, "docker", f'[ "$1" = info ] || [ "$1" = history ] || echo "$@" >>{tmp_path}/calls; {failing}')
    command = [sys.executable, "-m", BUILD, "predictor", "--tool", "docker", "--tag", "7", "--checkpoint-threads", "3"]
    command += ["--checkpoint", "poet --slots 16 --memory 2Gi", "--checkpoint", "/models/mine"]
    answer = subprocess.run(command, cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    calls = (tmp_path / "calls").read_text().splitlines()
    steps = [call.partition(" ")[0] for call in calls]
    container = "shangcai-predictor-7-poet-dump"
    build, run = calls[1], calls[2]
    assert build.endswith("--build-arg PREDICTOR=shangcai/predictor:7 --build-arg CRIU_BASE=debian:sid-slim .")
    assert f"--name {container} --user 0:0 --network none" in run
    assert "--cap-add CHECKPOINT_RESTORE" in run
    assert "seccomp=unconfined" in run
    dumped = "SNAPSHOT_THREADS=3 /opt/venv/bin/python -m predictor dump /snapshot --model /app/models/poet"
    assert run.endswith(f"shangcai/predictor:7-poet-base {dumped} --slots 16 --memory 2Gi")
    if fails:
        assert steps == ["build", "build", "run", "rm"]
        assert calls[-1] == f"rm --force {container}"
        assert answer.returncode == 1
        return
    assert answer.returncode == 0, answer.stderr
    assert steps == ["build", *["build", "run", "commit", "rm"] * 2]
    assert calls[3].endswith(f"{container} shangcai/predictor:7-poet")
    assert "--model /models/mine" in calls[6]
    assert calls[7].endswith(" shangcai/predictor:7-mine")
