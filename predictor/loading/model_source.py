"""Where a model comes from, a folder or a hub id, and which kind it is of."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

from contract.request import Kind
from predictor.errors import ModelError, first_line
from predictor.loading.gguf.header import read_header
from predictor.loading.gguf.source import file_on_hub, local_file

_INDEX: dict[Kind, str] = {"text": "config.json", "image": "model_index.json"}
"""The file by which a folder with a transformers or a diffusers model is recognised."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)

NEARBY = (Path(), Path("models"))
"""Folders of folders, one of which may have been meant by a name that is wrong."""

_SIMILAR = 0.7
"""So similar, of 0 to 1, must a name be to be taken for the one that was meant."""


def check_source(
    model: str, kind: Kind | None = None, revision: str | None = None, nearby: Sequence[Path] = NEARBY
) -> Kind | None:
    """The kind of the model in a folder: `kind`, or what the folder shows. None for a hub id: see `kind_on_hub`.

    Raises ModelError for a folder without a model in safetensors or GGUF, for a malformed id, and for a `revision` of
    anything but a hub id; names the folder in one of `nearby` that may have been meant. Imports nothing heavy, and asks
    nobody.
    """
    folder = Path(model)
    if not model:
        raise ModelError("the model is an empty name; give a folder or a hub id")
    if file := local_file(model):
        if revision is not None:
            raise ModelError(f"--revision is for a hub id, and {model} is on this machine: leave it out")
        if kind == "image":
            raise ModelError(f"{file} is a GGUF file, of which only text models are served")
        read_header(file)
        return "text"
    if os.path.isdir(model):  # pathlib's own raises an OSError for a name that is too long
        if revision is not None:
            raise ModelError(f"--revision is for a hub id, and {model} is a folder: leave it out")
        kind = kind or ("image" if (folder / _INDEX["image"]).is_file() else "text")
        if not (folder / _INDEX[kind]).is_file():
            wanted = "config.json in it, and no *.gguf" if kind == "text" else f"{_INDEX[kind]} in it"
            raise ModelError(f"the folder {model} holds no {kind} model: there is no {wanted}")
        if not any(folder.glob("*.safetensors" if kind == "text" else "*/*.safetensors")):
            raise ModelError(f"the folder {model} holds no *.safetensors; other weight formats are not loaded")
    elif os.path.exists(model):
        raise ModelError(f"{model} is a file; give the folder that holds config.json and *.safetensors, or a *.gguf")
    elif file_on_hub(model):
        if kind == "image":
            raise ModelError(f"{model} is a GGUF file, of which only text models are served")
        return None
    elif model.lower().endswith(".gguf") and not _HUB_ID.fullmatch(model):
        raise ModelError(f"there is no file {model}, and on the hub it would be OWNER/NAME/FILE.gguf")
    elif not _HUB_ID.fullmatch(model):
        raise ModelError(f"there is no folder {model if model.isprintable() else repr(model)}{_meant(model, nearby)}")
    elif "/" not in model and any(_holds_model(place / model) for place in nearby):
        raise ModelError(f"there is no folder {model}{_meant(model, nearby)}")
    else:
        return None
    return kind


def kind_on_hub(
    model: str, kind: Kind | None = None, revision: str | None = None, nearby: Sequence[Path] = NEARBY
) -> Kind:
    """The kind of the model with this hub id: `kind`, or what huggingface_hub's cache or else the hub shows.

    Takes as long as HF_HUB_ETAG_TIMEOUT says at most, and imports huggingface_hub, some 0.1 s. Raises ModelError if
    there is no such model, or none of this kind, and if neither knows: loading it would only try that for longer.
    """
    from huggingface_hub import _CACHED_NO_EXIST, constants, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    file = _INDEX[kind or "image"]
    if named := file_on_hub(model):
        kind, (model, file) = "text", named
    answer: bool | Exception
    try:
        cached = try_to_load_from_cache(model, file, revision=revision)
        if cached is None:
            answer = _ask_hub(model, file, revision, constants.HF_HUB_ETAG_TIMEOUT)
        else:
            answer = cached is not _CACHED_NO_EXIST
    except (HFValidationError, OSError) as error:
        answer = error
    match answer:
        case True:
            return kind or "image"
        case False if kind is None:
            return "text"
        case False:
            raise ModelError(f"{model} on the hub is no {kind} model: there is no {file} in it")
        case GatedRepoError():
            raise ModelError(f"the hub gives {model} only to those who have been granted it; HF_TOKEN says who asks")
        case RepositoryNotFoundError():
            raise ModelError(
                f"there is no folder {model}, and on the hub no such model, unless it is private and HF_TOKEN is not "
                f"set{_meant(model, nearby)}"
            )
        case RevisionNotFoundError():
            raise ModelError(f"{model} has no revision {revision} on the hub")
        case HFValidationError():
            raise ModelError(f"there is no folder {model}, and it cannot be the name of a model on the hub")
    if kind is None and isinstance(try_to_load_from_cache(model, _INDEX["text"], revision=revision), str):
        return "text"  # loaded from there before; a pipeline would have its own index in the cache
    reason = first_line(answer)
    if kind is not None:
        raise ModelError(
            f"there is no folder {model}, and the hub cannot be asked for it ({reason}){_meant(model, nearby)}"
        )
    raise ModelError(
        f"there is no folder {model}, and the hub does not say whether that is a text or an image model ({reason}); "
        f"add --kind text or --kind image, for scripts/run as in --model {model},kind=image{_meant(model, nearby)}"
    )


def cached_folder(model: str, revision: str | None = None) -> Path | None:
    """Where huggingface_hub's cache has the files of this hub id; None where it has none of them."""
    from huggingface_hub import try_to_load_from_cache

    names = tuple(_INDEX.values())
    if named := file_on_hub(model):
        model, names = named[0], (named[1],)
    for index in names:
        if isinstance(found := try_to_load_from_cache(model, index, revision=revision), str):
            return Path(found).parent
    return None


def _ask_hub(model: str, file: str, revision: str | None, seconds: float) -> bool | Exception:
    """Whether the model has the file, or why that is not known: in a thread, as no timeout ends the resolver's own."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, RemoteEntryNotFoundError

    answers: list[bool | Exception] = []

    def ask() -> None:
        try:
            get_hf_file_metadata(hf_hub_url(model, file, revision=revision), timeout=seconds)
            answers.append(True)
        except RemoteEntryNotFoundError:
            answers.append(False)
        except HfHubHTTPError as error:
            plain = type(error) is HfHubHTTPError and error.response.status_code == 404
            answers.append(False if plain else error)  # mirrors leave out the header that names what is not found
        except Exception as error:
            answers.append(error)

    asking = threading.Thread(target=ask, name="hub", daemon=True)
    asking.start()
    asking.join(seconds)
    return answers[0] if answers else TimeoutError(f"no answer within {seconds:g} s")


def _meant(model: str, nearby: Sequence[Path]) -> str:
    """A question, if a folder has a name that is much like the last part of this one, which is no absolute path."""
    if Path(model).is_absolute():
        return ""
    folders = {folder.name.lower(): folder for place in reversed(nearby) for folder in _models_in(place)}
    names = get_close_matches(Path(model).name.lower(), folders, n=1, cutoff=_SIMILAR)
    return f"; did you mean {folders[names[0]]}?" if names else ""


def _models_in(place: Path) -> Iterator[Path]:
    try:
        for folder in sorted(place.iterdir()):
            if _holds_model(folder):
                yield folder
    except OSError:  # no such folder, or one that is not ours to read
        return


def _holds_model(folder: Path) -> bool:
    return any(os.path.isfile(folder / index) for index in _INDEX.values())
