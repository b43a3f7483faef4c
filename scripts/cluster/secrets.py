"""Print the Secrets of deploy/components/callers: `scripts/make-secrets ann bob | kubectl create -n shangcai -f -`.

Runs on a bare Python. The keys of the callers go to stderr, this once: the Secret has their hashes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import secrets
import sys
from typing import Any

NAME = "[A-Za-z0-9._@:-]{1,128}"
"""Of a caller, as web takes it; `default` and `events` are callers already."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/make-secrets",
        description="Print two Secrets as JSON: web-callers, with a key for each caller, and predictor-token. Each key "
        "is shown once, on stderr. Send the output to `kubectl create -n shangcai -f -`, which changes no Secret that "
        "is there.",
    )
    parser.add_argument("callers", nargs="+", metavar="NAME", help="a caller of web")
    names: list[str] = parser.parse_args().callers
    for name in names:
        if not re.fullmatch(NAME, name) or name in ("default", "events"):
            parser.error(f"{name!r} is no name of a caller: {NAME}, and neither default nor events")
    keys = {name: make_key() for name in names}
    print(json.dumps(documents(keys), indent=2))
    for name, key in keys.items():
        print(f"the key of {name}: {key}", file=sys.stderr)
    return 0


def make_key() -> str:
    return f"shangcai_{secrets.token_urlsafe(32)}"


def documents(keys: dict[str, str]) -> dict[str, Any]:
    """The Secrets, in a List; `keys` by their callers' names."""
    entries = [f"{name} sha256:{hashlib.sha256(key.encode()).hexdigest()}\n" for name, key in keys.items()]
    data = {
        "web-callers": {"callers": "".join(entries)},
        "predictor-token": {"token": secrets.token_urlsafe(32)},
    }
    labels = {"app.kubernetes.io/part-of": "shangcai"}
    items = [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "labels": labels}, "stringData": strings}
        for name, strings in data.items()
    ]
    return {"apiVersion": "v1", "kind": "List", "items": items}


if __name__ == "__main__":
    sys.exit(main())
