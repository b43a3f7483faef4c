"""Bodies of requests: strict JSON, and the parts of a form with files."""

from wire.body.strict_json import json_body

__all__ = ["json_body"]
