"""Which GGUF file is meant: by a path, a folder or a hub id, and how the rest is refused."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from predictor.errors import ModelError
from predictor.loading.gguf import source
from predictor.loading.gguf.conversion_process import run_conversion
from predictor.loading.gguf.source import plain_source
from predictor.loading.model_source import cached_folder, check_source
from predictor.settings import Settings
from scripts.local.model_argument import parse_model
from tests.predictor.loading.gguf.tiny_files import random_model, write_gguf


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    return write_gguf(folder / "It 135M.Q4_1.gguf", random_model())


def refusal(model: object, **options: Any) -> str:
    with pytest.raises(ModelError) as refused:
        check_source(str(model), **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_file_and_a_folder_that_holds_one_are_text_models(file: Path) -> None:
    assert check_source(str(file)) == "text"
    assert check_source(str(file.parent), "text") == "text"
    blob = file.rename(file.with_name("blob"))  # as huggingface_hub's cache calls it
    assert check_source(str(blob)) == "text"


def test_a_folder_with_a_config_is_what_the_config_says(file: Path) -> None:
    (file.parent / "config.json").touch()
    (file.parent / "model.safetensors").touch()
    assert check_source(str(file.parent)) == "text"
    with plain_source(str(file.parent), "v1", "", lambda _phase: None) as plain:
        assert plain == (str(file.parent), "v1")


def test_of_several_files_one_is_to_be_given(file: Path) -> None:
    other = file.with_name("Other.GGUF")
    other.touch()
    names = "It 135M.Q4_1.gguf, Other.GGUF"
    assert refusal(file.parent) == f"the folder {file.parent} holds several models, {names}: give one, as in {file}"


def test_parts_pictures_and_revisions_are_refused(file: Path) -> None:
    part = file.with_name("it-00001-of-00003.gguf")
    part.touch()
    assert "llama-gguf-split --merge" in refusal(part)
    assert "llama-gguf-split --merge" in refusal(part.parent)
    assert "llama-gguf-split --merge" in refusal("a/b/Q8/it-00001-of-00003.gguf")
    assert refusal(file, kind="image") == f"{file} is a GGUF file, of which only text models are served"
    assert refusal("a/b/c.gguf", kind="image") == "a/b/c.gguf is a GGUF file, of which only text models are served"
    assert refusal(file, revision="v1") == f"--revision is for a hub id, and {file} is on this machine: leave it out"


@pytest.mark.parametrize("name", ["/mnt/it.gguf", "../a/b/it.gguf", "a/it.gguf/", "b/../a/it.gguf", "it/.gguf"])
def test_a_file_that_is_not_there_is_told_so(name: str) -> None:
    assert "there is no f" in refusal(name)


def test_a_file_on_the_hub_is_of_a_hub_id() -> None:
    assert check_source("a/b/c.gguf", revision="v1") is None
    assert check_source("a/b/sub/folder/c.gguf") is None


def test_a_file_on_the_hub_is_that_of_the_revision(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(source, "converted", lambda header, _folders, _report: nullcontext(header.path))
    repository = tmp_path / "models--a--b"
    for commit, revision in (("a" * 40, "v1"), ("b" * 40, "main")):
        place = repository / "snapshots" / commit / "Q4"
        place.mkdir(parents=True)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / revision).write_text(commit)
        (place / "it.gguf").write_bytes(file.read_bytes())
    phases: list[str] = []
    for wanted, commit in (("v1", "a"), (None, "b")):
        with plain_source("a/b/Q4/it.gguf", wanted, "", phases.append) as plain:
            assert plain == (str(repository / "snapshots" / (commit * 40) / "Q4" / "it.gguf"), None)
    assert phases[:2] == ["fetching the GGUF file", "reading the GGUF file's header"]
    assert cached_folder("a/b/Q4/it.gguf", "v1") == repository / "snapshots" / ("a" * 40) / "Q4"
    with (
        pytest.raises(ModelError, match=r"^cannot fetch Q4/other.gguf of a/b: "),
        plain_source("a/b/Q4/other.gguf", None, "", phases.append),
    ):
        pass


def test_a_file_is_served_by_its_stem_made_fit_for_an_address(file: Path) -> None:
    assert Settings(model=str(file)).served_name == "It-135M.Q4_1"
    assert Settings(model="a/b/Q4/c.gguf").served_name == "c"
    assert parse_model(str(file)).name == "It-135M.Q4_1"
    assert parse_model(str(file.parent)).name == "folder"
    assert parse_model(f"mine={file}").name == "mine"


def test_without_the_package_a_line_names_it(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("predictor.loading.gguf.conversion_process.find_spec", lambda _name: None)
    with pytest.raises(ModelError) as refused:
        run_conversion(file, tmp_path, lambda _percent: None)
    assert str(refused.value) == f"{file} needs the package gguf: pip install 'shangcai[predictor]'"


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("print('error it is no model'); raise SystemExit(1)", "it is no model"),
        ("import os; os.kill(os.getpid(), 9)", "the conversion was killed, as is done where memory is short"),
        ("raise OSError('no\\nway')", "the conversion ended with 1: way"),
        ("pass", "the conversion ended with 0: it has said nothing"),
    ],
)
def test_a_program_that_fails_is_told_in_a_line(
    program: str, said: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "program_of_a_test.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("predictor.loading.gguf.conversion_process.PROGRAM", "program_of_a_test")
    with pytest.raises(ModelError) as refused:
        run_conversion(file, tmp_path, lambda _percent: None)
    assert str(refused.value) == f"cannot convert {file}: {said}"


def test_what_a_program_tells_is_passed_on(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lines = "progress 5\nprogress 10\nwarning that is odd\npeak 12345\n"
    (tmp_path / "program_of_a_test.py").write_text(f"print({lines!r})")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("predictor.loading.gguf.conversion_process.PROGRAM", "program_of_a_test")
    percents: list[int] = []
    assert run_conversion(file, tmp_path, percents.append) == 12345
    assert percents == [5, 10]
    assert f"{file}: that is odd" in caplog.text
