"""What the folder of a model says of it, in the file beside its weights."""

from __future__ import annotations

import logging
import os

from pydantic import ValidationError

from contract.models.description import DESCRIPTION_BYTES, DESCRIPTION_FILE, NOT_DESCRIBED, ModelDescription
from predictor.errors import first_line
from predictor.loading.cache_folders import model_folder

log = logging.getLogger(__name__)


def read_description(model: str | os.PathLike[str]) -> ModelDescription:
    """Of a folder, or of a file in one; of a hub id nothing. A file that cannot be read is as if there were none, and a
    line of the log says so: a model is served whatever is written about it."""
    file = model_folder(model) / DESCRIPTION_FILE
    try:
        with file.open("rb") as opened:
            document = opened.read(DESCRIPTION_BYTES + 1)
        if len(document) > DESCRIPTION_BYTES:
            raise ValueError(f"it has more than {DESCRIPTION_BYTES} bytes")
        return ModelDescription.model_validate_json(document)
    except FileNotFoundError:
        return NOT_DESCRIBED
    except (OSError, ValidationError, ValueError) as error:
        log.warning("%s is left out: %s", file, _told(error))
        return NOT_DESCRIBED


def _told(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return first_line(error)
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
