"""What scripts/run starts: Ctrl-C ends the process at once until the supervisor handles it."""

from __future__ import annotations

import signal
import sys

if __name__ == "__main__":
    # Instead of a KeyboardInterrupt amid the imports; until here scripts/run has it ignored. No process runs yet.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from scripts.local.run import main

    sys.exit(main())
