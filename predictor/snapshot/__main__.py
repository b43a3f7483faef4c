"""`python -S -m predictor.snapshot` with the arguments of `python -m predictor`: see predictor.snapshot.launcher.

-S, because the launcher needs none of what is installed, and Python begins sooner without it.
"""

from __future__ import annotations

import sys

from predictor.snapshot.launcher import run

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
