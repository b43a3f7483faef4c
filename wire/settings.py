"""Settings from flags and the environment; each mistake is one line on stderr."""

from __future__ import annotations

import inspect
import json
import re
import sys
from argparse import ArgumentParser, BooleanOptionalAction
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, get_args

from pydantic import ValidationError
from pydantic_settings import BaseSettings, CliApp, CliImplicitFlag, SettingsError

S = TypeVar("S", bound=BaseSettings)

_IMPLICIT_FLAG = get_args(CliImplicitFlag)[1]
"""What marks a setting that is --flag or --no-flag, without a value."""

_NO_JSON = re.compile(r'(?:Parsing error encountered for |error parsing value for field ")(\w+)')
"""How pydantic-settings says that a list or an object, of a flag or a variable, cannot be read."""

_UNITS = ("seconds", "bytes", "port")
"""Last words of the names of numbers that say what the number counts."""


def read_settings(settings: type[S], argv: Sequence[str] | None = None) -> S:
    """Parse `argv` (the process's own when None) and the environment; exit with status 2 on what is not allowed."""
    program = settings.model_config.get("cli_prog_name") or sys.argv[0]
    arguments = sys.argv[1:] if argv is None else list(argv)
    if {"-h", "--help"} & set(arguments):
        print(describe_flags(settings), end="")
        raise SystemExit(0)
    try:
        return CliApp.run(settings, cli_args=arguments, cli_exit_on_error=False)
    except ValidationError as error:
        for setting, why in describe(error):
            where = f"--{setting}: " if setting else ""  # a check of several settings names them in its message
            print(f"{program}: {where}{why}", file=sys.stderr)
    except SettingsError as error:
        message = str(error).removeprefix("error parsing CLI: ")
        if found := _NO_JSON.match(message):
            message = f"--{found[1].replace('_', '-')}: must be written as JSON"
        print(f"{program}: {message}; see --help", file=sys.stderr)
    raise SystemExit(2)


def describe(error: ValidationError) -> Iterator[tuple[str, str]]:
    """Each mistake: the setting as its flag is written, without the dashes, and what is wrong with it."""
    for item in error.errors(include_url=False, include_input=False):
        why = item["msg"].removeprefix("Value error, ")
        if item["type"] == "too_short" and item["ctx"]["field_type"] == "Value":  # a secret, which pydantic counts so
            why = f"must have at least {item['ctx']['min_length']} characters"
        yield ".".join(map(str, item["loc"])).replace("_", "-"), why


def describe_flags(settings: type[BaseSettings]) -> str:
    """The text of --help. pydantic-settings' own shows Python's types, and each default of an unset setting as null."""
    parser = ArgumentParser(
        prog=settings.model_config.get("cli_prog_name"),
        usage="%(prog)s [--FLAG VALUE …]",
        description=inspect.cleandoc(settings.__doc__ or ""),
    )
    schema = settings.model_json_schema()
    for name, entry in schema["properties"].items():
        help_text = entry["description"].replace("%", "%%")
        if name in schema.get("required", []):
            help_text += " (required)"
        elif entry.get("default") not in (None, "", []):
            default = entry["default"]
            help_text += f" (default: {default if isinstance(default, str) else json.dumps(default)})"
        options: dict[str, Any] = {"metavar": _value(name, entry)}
        if _IMPLICIT_FLAG in settings.model_fields[name].metadata:
            options = {"action": BooleanOptionalAction}
        parser.add_argument("--" + name.replace("_", "-"), help=help_text, **options)
    return parser.format_help()


def _value(name: str, schema: dict[str, Any]) -> str:
    """What stands for the value of a flag."""
    for kind in schema.get("anyOf", [schema]):
        if "enum" in kind:
            return "{" + ",".join(kind["enum"]) + "}"
        if kind.get("type") == "boolean":
            return "{true,false}"
        if kind.get("type") in ("integer", "number") and not name.endswith(_UNITS):
            return "N"
    return name.rpartition("_")[2].upper()
