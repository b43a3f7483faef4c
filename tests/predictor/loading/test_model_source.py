"""Where a model comes from: what is accepted, and how the rest is refused before anything heavy is imported."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from predictor.errors import ModelError
from predictor.loading.model_source import check_source
from tests.support.fake_hub import COMMIT, FakeHub, serve
from tests.support.processes import ROOT, free_port

UNKNOWN = "there is no folder a/b, and the hub does not say whether that is a text or an image model ("
ADD = "); add --kind text or --kind image, for scripts/run as in --model a/b,kind=image\n"


def refusal(model: str) -> str:
    with pytest.raises(ModelError) as refused:
        check_source(model)
    message = str(refused.value)
    assert "\n" not in message
    return message


def test_a_folder_with_a_config_and_safetensors_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    (tmp_path / "model-00001-of-00002.safetensors").touch()

    check_source(str(tmp_path))


@pytest.mark.parametrize("model", ["gpt2", "Qwen/Qwen3-0.6B", "org-1/name_2.3"])
def test_a_hub_id_is_a_source_of_a_kind_that_only_the_hub_knows(model: str) -> None:
    assert check_source(model) is None
    assert check_source(model, "image") is None


def test_a_folder_without_config_is_told_so(tmp_path: Path) -> None:
    message = f"the folder {tmp_path} holds no text model: there is no config.json in it, and no *.gguf"
    assert refusal(str(tmp_path)) == message


@pytest.mark.parametrize("weights", ["pytorch_model.bin", "model.pt", "model.gguf"])
def test_a_folder_of_pickles_is_told_so(tmp_path: Path, weights: str) -> None:
    (tmp_path / "config.json").touch()
    (tmp_path / weights).touch()

    message = f"the folder {tmp_path} holds no *.safetensors; other weight formats are not loaded"
    assert refusal(str(tmp_path)) == message


def test_a_file_is_told_to_be_one(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.touch()

    message = f"{file} is a file; give the folder that holds config.json and *.safetensors, or a *.gguf"
    assert refusal(str(file)) == message


@pytest.mark.parametrize(
    "model",
    ["/mnt/models", "./poet", "../poet", "~/poet", "a/b/c", "a b", "", "-", "模型/诗人\n", "a/" * 99, "啊" * 99],
)
def test_what_is_neither_a_folder_nor_a_hub_id_is_refused(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/proc")  # where there are no such folders

    refusal(model)


def test_an_empty_name_is_told_so() -> None:
    assert refusal("") == "the model is an empty name; give a folder or a hub id"


@pytest.mark.parametrize("name", ["poet", "./poet", "./Poets", "../poet"])
def test_the_folder_that_was_meant_is_named_without_asking_the_hub(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "poet").mkdir(parents=True)
    (tmp_path / "models" / "poet" / "config.json").touch()
    (tmp_path / "models" / "gpt2").mkdir()  # holds no model
    (tmp_path / "models" / "gone").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path)
    assert refusal(name) == f"there is no folder {name}; did you mean models/poet?"
    assert check_source("models/poets") is None  # they may be on the hub, which is asked first
    assert check_source("gpt2") is None


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    """A text and an image model, with what tells them apart."""
    text, image = tmp_path / "text", tmp_path / "image"
    for folder, name in ((text, "config.json"), (image, "model_index.json")):
        folder.mkdir()
        (folder / name).write_text("{}")
    with serve({"a/text": text, "a/image": image}) as hub:
        yield hub


def ask(model: str, home: Path, kind: str = "", revision: str = "", **variables: str) -> tuple[str, str]:
    """The kind of a model, or why it is not known: in a process of its own, as the variables are read at its start."""
    program = (
        "import sys\n"
        "from predictor.errors import ModelError\n"
        "from predictor.loading.model_source import kind_on_hub\n"
        "try: print(kind_on_hub(sys.argv[1], sys.argv[2] or None, sys.argv[3] or None))\n"
        "except ModelError as error: print(error, file=sys.stderr)\n"
    )
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment = inherited | {"PYTHONPATH": str(ROOT), "HF_HOME": str(home)} | variables
    ended = subprocess.run(
        [sys.executable, "-c", program, model, kind, revision],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
    )
    return ended.stdout, ended.stderr


@pytest.mark.slow
def test_the_hub_says_what_kind_a_model_is(hub: FakeHub, tmp_path: Path) -> None:
    assert ask("a/image", tmp_path, HF_ENDPOINT=hub.url) == ("image\n", "")
    assert ask("a/text", tmp_path, HF_ENDPOINT=hub.url) == ("text\n", "")
    assert ask("a/text", tmp_path, revision=COMMIT, HF_ENDPOINT=hub.url) == ("text\n", "")
    assert f"HEAD /a/text/resolve/{COMMIT}/model_index.json" in hub.asked
    _, why = ask("a/text", tmp_path, revision="v9", HF_ENDPOINT=hub.url)
    assert why == "a/text has no revision v9 on the hub\n"


@pytest.mark.slow
def test_a_model_that_the_hub_does_not_have_is_told_so_with_the_folder_that_was_meant(
    hub: FakeHub, tmp_path: Path
) -> None:
    (tmp_path / "models" / "poet").mkdir(parents=True)
    (tmp_path / "models" / "poet" / "config.json").touch()
    _, why = ask("model/poet", tmp_path, HF_ENDPOINT=hub.url)
    assert why == (
        "there is no folder model/poet, and on the hub no such model, unless it is private and HF_TOKEN is not set; "
        "did you mean models/poet?\n"
    )
    _, why = ask("a--b/c", tmp_path, HF_ENDPOINT=hub.url)
    assert why == "there is no folder a--b/c, and it cannot be the name of a model on the hub\n"


@pytest.mark.slow
def test_the_kind_that_is_given_must_be_that_of_the_hub(hub: FakeHub, tmp_path: Path) -> None:
    assert ask("a/image", tmp_path, "image", HF_ENDPOINT=hub.url) == ("image\n", "")
    assert ask("a/text", tmp_path, "text", HF_ENDPOINT=hub.url) == ("text\n", "")
    _, why = ask("a/text", tmp_path, "image", HF_ENDPOINT=hub.url)
    assert why == "a/text on the hub is no image model: there is no model_index.json in it\n"
    _, why = ask("a/b", tmp_path, "image", HF_ENDPOINT=f"http://127.0.0.1:{free_port()}")
    assert why.startswith("there is no folder a/b, and the hub cannot be asked for it (")


@pytest.mark.slow
def test_a_hub_that_refuses_connections_and_offline_mode_are_told_at_once_with_what_to_add(tmp_path: Path) -> None:
    _, refused = ask("a/b", tmp_path, HF_ENDPOINT=f"http://127.0.0.1:{free_port()}")
    assert refused.startswith(UNKNOWN)
    assert refused.endswith(ADD)
    _, offline = ask("a/b", tmp_path, HF_HUB_OFFLINE="1")
    assert offline.startswith(UNKNOWN)
    assert "offline mode" in offline
    assert offline.endswith(ADD)


@pytest.mark.slow
def test_a_hub_that_never_answers_is_waited_for_as_long_as_its_variable_says(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        _, why = ask("a/b", tmp_path, HF_ENDPOINT=url, HF_HUB_ETAG_TIMEOUT="1")
    assert why == f"{UNKNOWN}no answer within 1 s{ADD}"


@pytest.mark.parametrize(("file", "kind"), [("config.json", "text"), ("model_index.json", "image")])
@pytest.mark.slow
def test_what_has_been_loaded_before_is_known_without_the_hub(file: str, kind: str, tmp_path: Path) -> None:
    cached = tmp_path / "hub" / "models--a--b"
    (cached / "snapshots" / COMMIT).mkdir(parents=True)
    (cached / "snapshots" / COMMIT / file).touch()
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(COMMIT)
    assert ask("a/b", tmp_path, HF_HUB_OFFLINE="1") == (f"{kind}\n", "")
    assert ask("a/b", tmp_path, kind, HF_HUB_OFFLINE="1") == (f"{kind}\n", "")
