"""Write the files of a release; scripts/make-release calls this. Runs on a bare Python, with kubectl."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from scripts.project import version
from scripts.release import chart
from scripts.release.combinations import RenderingError, combinations, render
from scripts.release.images import ImagesError, read, substitute


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/make-release",
        description="Write each combination of deploy/ with the digests of pushed images, and a Helm chart of them.",
    )
    parser.add_argument("digests", nargs="+", type=Path, help="what scripts/build-images --digests wrote")
    parser.add_argument("--out", type=Path, required=True, help="a folder that is made")
    parser.add_argument("--source", default="", help="address of the source code, for the chart")
    arguments = parser.parse_args()
    try:
        images = read(line for path in arguments.digests for line in path.read_text().splitlines())
        arguments.out.mkdir(parents=True)
        (arguments.out / "images.txt").write_text("".join(f"{image.reference}\n" for image in images.values()))
        for combination in combinations():
            rendered = substitute(render(combination), lambda key: images[key].reference)
            heading = f"# Shangcai {version()}: deploy/{combination}, with the digests of its images.\n"
            (arguments.out / f"{combination}.yaml").write_text(heading + rendered)
        chart.write(arguments.out / "chart" / "shangcai", images, version(), arguments.source)
    except (ImagesError, RenderingError, OSError) as problem:
        print(f"scripts/make-release: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
