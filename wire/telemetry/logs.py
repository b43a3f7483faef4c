"""The log of a server, on its standard error: as text for people, or as JSON for programs."""

from __future__ import annotations

import logging
import os
from typing import Literal

from wire.telemetry.facts import current_facts

LogFormat = Literal["text", "json"]


def set_up_logging(level: str, log_format: LogFormat | None = None, *, again: bool = False) -> None:
    """Log from this level on. Without a format it is JSON in a pod, whose log is collected, and text elsewhere. With
    `again` this takes the place of what was set up before."""
    if log_format is None:
        log_format = "json" if "KUBERNETES_SERVICE_HOST" in os.environ else "text"
    handler = logging.StreamHandler()
    if log_format == "json":
        from wire.telemetry.json_formatter import JsonLines  # takes as long to import as all of this

        handler.setFormatter(JsonLines())
    else:
        handler.setFormatter(_TextLines("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=again)
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it logs every request at info, as we do


class _TextLines(logging.Formatter):
    """Says of a line that is written for a request or a job which one that is."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        facts = current_facts()
        if facts is None or hasattr(record, "request_id"):  # it says so itself
            return line
        return f"{line} [{f'job {facts.job_id}' if facts.job_id else f'request {facts.request_id}'}]"
