"""Settings from flags and the environment; each mistake is one line on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, CliApp, SettingsError

S = TypeVar("S", bound=BaseSettings)


def read_settings(settings: type[S], argv: Sequence[str] | None = None) -> S:
    """Parse `argv` (the process's own when None) and the environment; exit with status 2 on what is not allowed."""
    program = settings.model_config.get("cli_prog_name") or sys.argv[0]
    try:
        return CliApp.run(settings, cli_args=None if argv is None else list(argv))
    except ValidationError as error:
        for setting, why in describe(error):
            where = f"--{setting}: " if setting else ""  # a check of several settings names them in its message
            print(f"{program}: {where}{why}", file=sys.stderr)
    except SettingsError as error:
        print(f"{program}: {error}", file=sys.stderr)
    raise SystemExit(2)


def describe(error: ValidationError) -> Iterator[tuple[str, str]]:
    """Each mistake: the setting as its flag is written, without the dashes, and what is wrong with it."""
    for item in error.errors(include_url=False, include_input=False):
        yield ".".join(map(str, item["loc"])).replace("_", "-"), item["msg"].removeprefix("Value error, ")
