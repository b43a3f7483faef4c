"""`python -m web.callers NAME >> FILE`: a new key for a caller.

The entry of the file goes to stdout. The key goes to stderr, this once: it is kept nowhere.
"""

from __future__ import annotations

import argparse
import sys

from web.callers.caller import NAME_TEXT, is_caller_name
from web.callers.key_file import entry, make_key


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m web.callers",
        description="Make a key. Its entry for CALLERS_FILE goes to stdout; the key itself is shown once, on stderr.",
    )
    parser.add_argument("name", help=f"Who is to have it: {NAME_TEXT}.")
    name = parser.parse_args().name
    if not is_caller_name(name):
        parser.error(f"name: must be {NAME_TEXT}")
    key = make_key()
    print(entry(name, key))
    print(f"The key of {name}, shown this once:\n{key}", file=sys.stderr)


if __name__ == "__main__":
    main()
