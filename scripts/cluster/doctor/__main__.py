"""Say whether a cluster has what an overlay needs, or whether a deployed address works.

scripts/doctor calls this. Runs on a bare Python, and asks the cluster through kubectl.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from scripts.cluster.doctor import address_checks
from scripts.cluster.doctor.checks.examination import examine as findings_of
from scripts.cluster.doctor.cluster_state import ClusterState, Unreachable
from scripts.cluster.doctor.manifests import Unreadable, render
from scripts.cluster.doctor.requirements import Requirements
from scripts.project import ROOT


def main() -> int:
    arguments = parse()
    if arguments.url:
        return 0 if address_checks.run(arguments.url, arguments.host, arguments.timeout) else 1
    try:
        if shutil.which("kubectl") is None:
            raise Unreachable("kubectl is needed, and it is not on the PATH")
        return examine(arguments.overlay, arguments.context)
    except (Unreachable, Unreadable) as error:
        print(f"scripts/doctor: {error}", file=sys.stderr)
        return 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/doctor",
        description="Say of a cluster what it lacks for the manifests of an overlay, and how to fix that; or try a "
        "deployed address. Changes nothing. Ends with 0 if nothing is wrong.",
    )
    parser.add_argument("--overlay", default="deploy/gpu", help="what is to be deployed (default: %(default)s)")
    parser.add_argument("--context", help="of kubectl (default: its current one)")
    parser.add_argument(
        "--url",
        help="try this address in place of a cluster: a text, a stream, a picture, a mistake; "
        "with the key in SHANGCAI_KEY, if it asks for one",
    )
    parser.add_argument("--host", help="Host header for --url, for an ingress without DNS")
    parser.add_argument(
        "--timeout",
        type=float,
        default=600,
        help="seconds for all of --url, cold starts included (default: %(default)s)",
    )
    arguments = parser.parse_args()
    if not Path(arguments.overlay).is_dir() and (shipped := ROOT / arguments.overlay).is_dir():
        arguments.overlay = str(shipped)  # called from another folder
    return arguments


def examine(overlay: str, context: str | None) -> int:
    """Print all findings; the exit status."""
    wrong = 0
    for finding in findings_of(ClusterState(context), Requirements(render(overlay))):
        wrong += finding.verdict == "wrong"
        fix = f" — {finding.fix}" if finding.fix else ""
        print(f"{finding.verdict:<6} {finding.text}{fix}", flush=True)
    print("nothing is wrong" if not wrong else f"{wrong} {'thing is' if wrong == 1 else 'things are'} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
