"""The part of the OpenAPI description about the files of a job's pictures."""

from __future__ import annotations

from typing import Any

from contract import PICTURES, problems
from web.callers.signed_address import EXPIRES, SIGNATURE
from web.http.accept import FILE as FILE_TYPE
from web.http.accept import IMAGES
from web.http.responses import PICTURE_HEADERS
from web.openapi.jobs import OUTCOMES, parameter
from web.openapi.problems import refusals
from web.openapi.schemas import FILE, IF_NONE_MATCH, NOT_MODIFIED


def picture_file_path() -> dict[str, Any]:
    """`/generations/{id}/images/{number}`."""
    number = {"type": "integer", "minimum": 0, "maximum": PICTURES - 1}
    return {
        "parameters": [
            {**parameter("id", "Of the job.", location="path"), "required": True},
            {**parameter("number", "Of the picture; the first is 0.", location="path", **number), "required": True},
        ],
        "get": {
            "operationId": "image",
            "tags": ["jobs"],
            "summary": "One picture of a job as its file",
            "description": "For its caller; or for whoever has its address with a signature, which a job tells where "
            f"the query asks for images=url. {FILE_TYPE} only where Accept weighs it most.",
            "security": [{"caller": []}, {}],
            "parameters": [
                parameter(EXPIRES, "Of a signed address: when it does, in seconds since 1970.", location="query"),
                parameter(SIGNATURE, "Of a signed address, in the place of a key.", location="query"),
                IF_NONE_MATCH,
            ],
            "responses": {
                "200": {
                    "description": "The file.",
                    "headers": {
                        name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-Id", *PICTURE_HEADERS)
                    },
                    "content": {form: {"schema": FILE} for form in (FILE_TYPE, *IMAGES)},
                },
                **NOT_MODIFIED,
                **refusals(OUTCOMES | {problems.FORBIDDEN}),
            },
        },
    }
