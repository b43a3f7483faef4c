"""The query of a list that is read page by page."""

from __future__ import annotations

import re

from starlette.datastructures import QueryParams

from contract import invalid_field

DEFAULT_LIMIT, MOST_LIMIT = 20, 100
"""Entries of a page."""

_NAME_CHARS = 64
_CURSOR = re.compile(r"[0-9]{17}-[0-9a-f]{32}")  # a time and the id of a job


def page_query(query: QueryParams) -> tuple[int, str | None]:
    """`limit` and `after`: how many entries, and after which cursor; INVALID_FIELD names what cannot be one."""
    for name in query:
        if name not in ("limit", "after"):
            raise invalid_field(name[:_NAME_CHARS], "unknown parameter; allowed are limit, after")
        if len(query.getlist(name)) > 1:
            raise invalid_field(name, "must be there once")
    limit, after = query.get("limit", str(DEFAULT_LIMIT)), query.get("after")
    if not re.fullmatch("[0-9]{1,3}", limit) or not 1 <= int(limit) <= MOST_LIMIT:
        raise invalid_field("limit", f"must be a number from 1 to {MOST_LIMIT}")
    if after is not None and not _CURSOR.fullmatch(after):
        raise invalid_field("after", "must be what `next` of the page before says")
    return int(limit), after
