"""What scripts/run takes as --model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts.local.model_argument import OPTIONS, SET_HERE, ModelArgument, parse_model


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("PREDICTOR_KIND", "PREDICTOR_REVISION"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("gpt2", ModelArgument("gpt2", "gpt2", None, None, {})),
        ("Qwen/Qwen3-0.6B", ModelArgument("Qwen3-0.6B", "Qwen/Qwen3-0.6B", None, None, {})),
        ("./models/poet/", ModelArgument("poet", "./models/poet/", None, None, {})),
        ("poet=Qwen/Qwen3-0.6B", ModelArgument("poet", "Qwen/Qwen3-0.6B", None, None, {})),
        (
            "painter=stabilityai/sdxl-turbo,kind=image,max-concurrency=4",
            ModelArgument(
                "painter", "stabilityai/sdxl-turbo", "image", None, {"kind": "image", "max_concurrency": "4"}
            ),
        ),
        ("a/b,revision=v1", ModelArgument("b", "a/b", None, "v1", {"revision": "v1"})),
        ("a/b,max_length=99", ModelArgument("b", "a/b", None, None, {"max_length": "99"})),
    ],
)
def test_a_model_is_a_source_or_has_a_name_and_options(text: str, parsed: ModelArgument) -> None:
    assert parse_model(text) == parsed


@pytest.mark.parametrize("folder", ["a=b", "a,kind=image", "deep/a=b,c"])
def test_a_folder_that_is_there_may_have_any_path(folder: str) -> None:
    Path(folder).mkdir(parents=True)
    assert parse_model(folder, "poet") == ModelArgument("poet", folder, None, None, {})


def test_the_folder_that_it_is_called_in_gives_its_name(tmp_path: Path) -> None:
    assert parse_model(".").name == tmp_path.name


def test_an_argument_may_be_longer_than_the_name_of_a_file() -> None:
    source = "https" * 60
    assert parse_model(f"poet=a/b,event-source=urn:{source}").settings == {"event_source": f"urn:{source}"}


def test_its_predictor_sees_the_settings_and_the_kind() -> None:
    model = parse_model("a/b,kind=image,lean-imports=false,memory=2Gi")
    assert model.variables == {
        "PREDICTOR_KIND": "image",
        "PREDICTOR_LEAN_IMPORTS": "false",
        "PREDICTOR_MEMORY": "2Gi",
    }
    assert ModelArgument("b", "a/b", "text", None, {}).variables == {"PREDICTOR_KIND": "text"}
    assert ModelArgument("b", "a/b", None, None, {}).variables == {}


def test_the_variable_that_all_predictors_see_is_the_kind_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREDICTOR_KIND", "image")
    assert parse_model("a/b").kind == "image"
    assert parse_model("a/b,kind=text").kind == "text"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is empty; give a folder or a hub id, as SOURCE or NAME=SOURCE"),
        ("poet=", "it is empty; give a folder or a hub id, as SOURCE or NAME=SOURCE"),
        ("=a/b", "there is no name before the ="),
        ("a b", "'a b' cannot be part of an address; give NAME=SOURCE, of letters, digits and . _ -"),
        ("诗人=a/b", "'诗人' cannot be part of an address; give NAME=SOURCE, of letters, digits and . _ -"),
        ("/", "'' cannot be part of an address; give NAME=SOURCE, of letters, digits and . _ -"),
        ("a/b,kind", f"'kind' is no option=value; options are {', '.join(OPTIONS)}"),
        ("a/b,colour=blue", f"'colour=blue' is no option=value; options are {', '.join(OPTIONS)}"),
        ("a/b,", f"'' is no option=value; options are {', '.join(OPTIONS)}"),
        ("a/b,port=1", f"'port=1' is no option=value; options are {', '.join(OPTIONS)}"),
        ("a/b,kind=music", "kind: Input should be 'text' or 'image'"),
        ("a/b,slots=0", "slots: Input should be greater than or equal to 1"),
    ],
)
def test_a_mistake_is_told_with_what_is_allowed(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(why)}$"):
        parse_model(text)


def test_a_second_name_is_refused() -> None:
    with pytest.raises(ValueError, match="it has a name already, poet; leave out --name"):
        parse_model("poet=a/b", "writer")


def test_what_scripts_run_sets_itself_are_settings() -> None:
    assert {"model", "port"} < SET_HERE
    assert "kind" in OPTIONS
    assert not SET_HERE & set(OPTIONS.values())
