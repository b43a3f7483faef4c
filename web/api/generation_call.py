"""One call of `POST /generate`: the request, checked, and what its headers ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.requests import Request

from contract import GenerationRequest, invalid_field
from web.api.model_choice import chosen_model
from web.callers.caller import caller_of
from web.http.accept import IMAGES, JSON, SSE, picture_form, text_form
from web.http.preferences import RequestPreferences
from web.http.public_address import address_base
from web.jobs.cost import cost
from web.jobs.service import NewJob
from wire.deadline import request_seconds
from wire.request_context import RequestContext
from wire.telemetry.facts import current_facts

if TYPE_CHECKING:  # see web.rest.upstream
    from web.settings import Settings


@dataclass(frozen=True)
class GenerationCall:
    """See the module."""

    sent: GenerationRequest
    """The body as it came."""
    request: GenerationRequest
    """The body with the picture format that the Accept header asks for."""
    model: str
    form: str
    """Media type of the answer."""
    preferences: RequestPreferences
    seconds: float
    """That the generation may take."""
    own_limit: bool
    """Whether the client has set that, and less than this server would."""
    context: RequestContext
    headers: Headers
    caller: str
    cost: float
    """See web.jobs.cost."""
    base: str | None = None
    """What the addresses of its pictures begin with, where these are to take the place of the pictures."""

    @property
    def live(self) -> bool:
        """Whether the client gets events on the way."""
        return self.form == SSE

    @property
    def job(self) -> NewJob:
        """The job that it becomes."""
        return NewJob(
            sent=self.sent,
            request=self.request,
            model=self.model,
            seconds=self.seconds,
            own_limit=self.own_limit,
            headers=self.context.headers,
            key=self.preferences.idempotency_key,
            caller=self.caller,
        )


def read_call(settings: Settings, sent: GenerationRequest, http_request: Request) -> GenerationCall:
    """As the headers ask for it; a problem that names the header or the field which cannot be served."""
    headers = http_request.headers
    model = _model(settings, sent, headers)
    form = _form(settings, model, sent, headers)
    base = address_base(settings, http_request)
    base = base if settings.models[model].kind == "image" else None
    request = sent.model_copy(update={"format": IMAGES[form]}) if form in IMAGES else sent
    preferences = RequestPreferences.of(headers, settings.generate_seconds)
    if sent.webhook is not None and base is None and not preferences.outlives_connection:
        raise invalid_field("webhook", "needs Prefer: respond-async, or an Idempotency-Key: only jobs have one")
    limit = settings.job_seconds if preferences.respond_async else settings.generate_seconds
    seconds = request_seconds(headers, limit)
    return GenerationCall(
        sent=sent,
        request=request,
        model=model,
        form=form,
        preferences=preferences,
        seconds=seconds,
        own_limit=seconds < limit,
        context=RequestContext.of(http_request.scope),
        headers=headers,
        caller=caller_of(http_request.scope),
        cost=cost(request, settings.models[model].kind),
        base=base,
    )


def plain_call(settings: Settings, sent: GenerationRequest, http_request: Request) -> GenerationCall:
    """For a caller that gets its answer in one form, whatever the headers say of forms and preferences."""
    model = _model(settings, sent, Headers())
    seconds = request_seconds(http_request.headers, settings.generate_seconds)
    return GenerationCall(
        sent=sent,
        request=sent,
        model=model,
        form=SSE if sent.stream else JSON,
        preferences=RequestPreferences(),
        seconds=seconds,
        own_limit=seconds < settings.generate_seconds,
        context=RequestContext.of(http_request.scope),
        headers=Headers(),
        caller=caller_of(http_request.scope),
        cost=cost(sent, settings.models[model].kind),
    )


def _model(settings: Settings, sent: GenerationRequest, headers: Headers) -> str:
    model = chosen_model(settings.models, sent, headers)
    facts = current_facts()
    if facts is not None:
        facts.model = model
    return model


def _form(settings: Settings, model: str, request: GenerationRequest, headers: Headers) -> str:
    if request.stream:
        return SSE
    if settings.models[model].kind == "image":
        return picture_form(headers, request)
    return text_form(headers)
