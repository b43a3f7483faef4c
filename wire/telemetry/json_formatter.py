"""The log as JSON: one object a line."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from wire.telemetry.facts import current_facts


class JsonLines(JsonFormatter):
    """Each line has `time`, `level`, `logger` and `message`, `error` with a traceback where there is one, and the ids
    of the request and the job that it is about. What a line says besides stands beside these."""

    def __init__(self) -> None:
        super().__init__(
            ["levelname", "name", "message"],
            rename_fields={"levelname": "level", "name": "logger", "exc_info": "error"},
        )

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        written = datetime.fromtimestamp(record.created, UTC)
        log_data["time"] = written.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        super().add_fields(log_data, record, message_dict)
        for name in ("taskName", "color_message"):  # asyncio's, and uvicorn's for terminals
            log_data.pop(name, None)
        for name, value in ids().items():
            log_data.setdefault(name, value)


def ids() -> dict[str, str]:
    """Of the request, the job and the trace that this is done for."""
    facts = current_facts()
    if facts is None:
        return {}
    known = {"request_id": facts.request_id, "job_id": facts.job_id, "trace_id": facts.trace_id}
    return {name: value for name, value in known.items() if value}
