"""The page's template, filled with the texts of a language, the models, the form, and an answer."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Mapping
from string import Template
from typing import Any, Literal
from urllib.parse import urlencode

from contract import PICTURE_FIELDS, STEPS, PictureResult, ProblemError, TextResult
from contract.models.description import DescribedModel
from web.page.appearance import LANGUAGES, Appearance
from web.page.assets import Assets
from web.page.form import OPTIONS

ModelCards = Iterable[DescribedModel]
"""The served models, in their order, as they are known at the moment."""

_TEXT = re.compile(r'<[^<>]*\bdata-t="([^"]+)"[^<>]*>')
_ATTRIBUTE = re.compile(r'\bdata-t-(placeholder|aria-label)="([^"]+)"')


class PageTemplate:
    """`page.html`, whose elements name their texts (`data-t`), which the scripts share (`texts/`)."""

    def __init__(self, assets: Assets, models: ModelCards, most_tokens: int, root_path: str) -> None:
        self._assets = assets
        self._models = models
        self._most_tokens = most_tokens
        self._root_path = root_path
        self._texts = {language: _texts(assets.text(f"texts/{language}.js")) for language in LANGUAGES}

    def render(self, appearance: Appearance, form: Mapping[str, str] | None = None, answer: str = "") -> bytes:
        """The page with the fields of `form` filled in, and the HTML of an answer."""
        language = appearance.language
        texts = self._texts[language]
        form = form or {}
        models = list(self._models)
        static = self._assets.address
        page = Template(self._translated(self._assets.text("page.html"), language))
        return page.safe_substitute(
            root_path=self._root_path,
            static=static,
            preloads="\n".join(
                f'<link rel="modulepreload" href="{static}/{name}">' for name in self._assets.modules(language)
            ),
            models=self._model_rows(models, language, form.get("model")),
            styles="\n".join(f'<link rel="stylesheet" href="{static}/{name}">' for name in self._assets.styles),
            motto=html.escape(texts["motto"]),
            most_tokens=self._most_tokens,
            most_steps=_agreed(models, "limits", "steps") or STEPS,
            lang=language,
            locale=texts["locale"],
            other=texts["other"],
            switched=html.escape("?" + urlencode({"lang": texts["other"], **({} if answer else form)})),
            theme=appearance.theme,
            answer=answer,
            idle="hidden" if answer else "",
            open="open" if form.keys() & set(OPTIONS) else "",
            prompt=html.escape(form.get("prompt", "")),
            **{name: _attributes(form.get(name, ""), _agreed(models, "defaults", name)) for name in OPTIONS},
        ).encode()

    def result(self, result: TextResult | PictureResult, language: str) -> str:
        """A result as HTML."""
        note = html.escape(self._texts[language]["state.done"])
        if isinstance(result, TextResult):
            shown = f'<div class="text" dir="auto">{html.escape(result.text)}</div>'
            if result.reasoning_content:
                name, thoughts = self._texts[language]["reasoning"], html.escape(result.reasoning_content)
                details = f'<summary>{html.escape(name)}</summary><div class="thoughts" dir="auto">{thoughts}</div>'
                shown = f"<details>{details}</details>{shown}"
        else:
            shown = "".join(
                f'<img class="picture" src="data:{html.escape(picture.media_type)};base64,{html.escape(picture.data)}"'
                f' alt="{note}" width="{picture.width}" height="{picture.height}">'
                for picture in result.images
            )
        return f'<p class="note">{note}</p>{shown}'

    def problem(self, error: ProblemError, language: str) -> str:
        """A problem as HTML, in the words of problems.js."""
        texts = self._texts[language]
        retry = error.problem.retry_after
        sentence = texts.get(f"problem.{error.kind.slug}", texts["problem"])
        sentence = sentence.replace("{title}", error.problem.title).replace("{detail}", error.problem.detail)
        if retry is not None:
            sentence = f"{sentence} {texts['retry.in'].replace('{seconds}', str(retry))}"
        return f'<p class="problem" role="alert">{html.escape(sentence)}</p>'

    def _model_rows(self, models: list[DescribedModel], language: str, chosen: str | None) -> str:
        """One row for each model, of which `chosen` is checked, or else the first; what is known of that follows it."""
        checked = chosen if any(model.name == chosen for model in models) else models[0].name
        row = Template(self._assets.text("model.html"))
        rows = [
            row.safe_substitute(
                name=html.escape(model.name),
                kind=model.kind,
                kind_text=f"kind.{model.kind}",
                checked="checked" if model.name == checked else "",
                summary=html.escape(_localized(model.summary, language)),
            )
            + (self._assets.text("about.html") if model.name == checked else "")
            for model in models
        ]
        return self._translated("".join(rows), language)

    def _translated(self, template: str, language: str) -> str:
        texts = self._texts[language]

        def text(found: re.Match[str]) -> str:
            return found[0] + html.escape(texts[found[1]], quote=False)

        def attribute(found: re.Match[str]) -> str:
            return f'{found[0]} {found[1]}="{html.escape(texts[found[2]])}"'

        return _ATTRIBUTE.sub(attribute, _TEXT.sub(text, template))


def _agreed(models: Iterable[DescribedModel], part: Literal["limits", "defaults"], field: str) -> Any:
    """What all models say that have the field; None where they differ, or one says nothing. The form is one for all."""
    kind = "image" if field in PICTURE_FIELDS else "text"
    told = {getattr(getattr(model, part), field, None) for model in models if model.kind == kind}
    return told.pop() if len(told) == 1 else None


def _attributes(value: str, usual: object) -> str:
    """Of a field with a value, and what is taken where it has none, if that is known."""
    written = f'value="{html.escape(value)}"'
    return written if usual is None else f'{written} placeholder="{html.escape(str(usual))}"'


def _localized(texts: Mapping[str, str] | None, language: str) -> str:
    """The text for a reader of the language, in another one where there is none."""
    texts = texts or {"": ""}
    return texts.get(language) or texts.get("en") or next(iter(texts.values()))


def _texts(module: str) -> dict[str, str]:
    texts: dict[str, str] = json.loads(module.removeprefix("export default ").rstrip().removesuffix(";"))
    return texts
