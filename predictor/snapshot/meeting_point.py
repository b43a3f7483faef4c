"""Where a restored predictor meets its launcher: a folder with a FIFO and a socket.

The predictor waits to open the FIFO, without a limit of time, because its clock may stand earlier after a restore. A
line of JSON in the FIFO ends the wait: {"arguments": [...], "environment": {...}, "socket": PATH}; what is left out
stays. Where it names a socket, the predictor connects to it, gets with SCM_RIGHTS its three standard files and the
listening socket that the launcher has inherited, if any, and answers with one line: OK, or why it cannot serve with
these settings.
"""

from __future__ import annotations

FOLDER = "/tmp/shangcai-restore"  # noqa: S108  in a pod /tmp is the container's own
"""Of the predictor in an image."""

READY = "ready"
"""The file that a predictor makes when it may be dumped."""

FIFO = "restored"
SOCKET = "launcher"

OK = "ok"

LINE_BYTES = 4 * 2**20
"""Most of a line: twice what Linux lets arguments and environment of a process have by default."""
