"""In which language and theme a browser wants the page."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from web.http.quality_values import weighted

LANGUAGES = ("en", "zh")
THEMES = ("auto", "light", "dark")


@dataclass(frozen=True)
class Appearance:
    """One of LANGUAGES and one of THEMES."""

    language: str
    theme: str

    @classmethod
    def of(cls, http_request: Request) -> Appearance:
        """What was chosen on the page (the address, a cookie), or else what the browser prefers."""
        theme = http_request.cookies.get("theme")
        return cls(_language(http_request), theme if theme in THEMES else "auto")


def _language(http_request: Request) -> str:
    for chosen in (http_request.query_params.get("lang"), http_request.cookies.get("lang")):
        if chosen in LANGUAGES:
            return chosen
    weights = dict.fromkeys(LANGUAGES, 0.0)
    for name, weight in weighted(http_request.headers, "accept-language").items():
        language = name.partition("-")[0]
        if language in weights:
            weights[language] = max(weights[language], weight)
    return max(weights, key=lambda language: weights[language])
