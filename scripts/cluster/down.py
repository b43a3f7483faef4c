"""Remove the cluster that cluster-up made, and nothing else.

scripts/cluster-down calls this. Runs on a bare Python.
"""

from __future__ import annotations

import argparse
import shlex
import sys

from scripts.cluster.commands import Commands, Failure
from scripts.cluster.local_cluster import KINDS, find_cluster


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/cluster-down",
        description="Remove the cluster that scripts/cluster-up made, with all that is in it. The images stay.",
    )
    parser.add_argument("--with", dest="tool", choices=KINDS, help="what made it (default: whichever is there)")
    parser.add_argument("--name", default="shangcai", help="of the cluster (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=300, help="seconds it may take (default: %(default)s)")
    arguments = parser.parse_args()
    try:
        cluster = find_cluster(Commands(), arguments.name, arguments.tool)
        if not cluster.exists():
            print(f"there is no cluster {arguments.name}")
            return 0
        removal = cluster.removal()
        if cluster.made_with_port() is None:
            reason = "was not made by scripts/cluster-up" if cluster.answers() else "does not say who made it"
            raise Failure(f"the cluster {arguments.name} {reason}; `{shlex.join(removal)}` removes it all the same")
        cluster.commands.run(removal, "removing the cluster", arguments.timeout)
        print(f"removed the cluster {arguments.name}")
    except Failure as failure:
        print(f"scripts/cluster-down: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
