"""The web application: its routes, and the layers around them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from contract import Kind, ProblemError
from contract.cloudevents import BATCH_BYTES
from web.api.generate import GenerateEndpoint
from web.api.generations import Generations
from web.api.health import PATHS, QUIET_PATHS, HealthEndpoints
from web.api.job_list import JobListEndpoint
from web.api.jobs import JobEndpoints
from web.api.models import ModelList
from web.api.picture_addresses import PictureAddresses
from web.api.picture_file import PictureFileEndpoint
from web.api.status import StatusEndpoints
from web.callers.authentication import CallerAuthentication
from web.callers.counters import MemoryCounters
from web.callers.key_file import KeyFile
from web.callers.share import Share
from web.callers.shares import Shares
from web.client.client import ModelConnections
from web.descriptions.descriptions import Descriptions
from web.descriptions.learning import DescriptionLearning
from web.events.authentication import EventAuthenticator
from web.events.backend import EventBackend
from web.events.endpoint import EventEndpoint
from web.events.replies import ReplyReceiver
from web.http.cross_origin import with_cross_origin
from web.http.responses import StaticDocument
from web.jobs.background_loops import BackgroundLoops
from web.jobs.picture_memory import PictureMemory
from web.jobs.results import Results
from web.jobs.service import JobService
from web.jobs.stores.memory_store import MemoryStore
from web.openai.problems import problem_responses
from web.openai.routes import EDITS, openai_routes
from web.openapi.document import describe
from web.page.assets import Assets
from web.page.endpoint import Page
from web.readiness.broadcast import ReadinessBroadcast
from web.readiness.endpoint_watch import endpoint_watch
from web.readiness.model_readiness import Readiness
from web.readiness.probe import ReadinessProbe
from web.readiness.states_file import StatesFile
from web.readiness.wake_up_metrics import WakeUpMetrics
from web.responses.routes import response_routes
from web.rest.backend import RestBackend
from web.rest.upstream import Upstream
from web.telemetry.refreshed_metrics import RefreshedMetrics
from web.telemetry.request_counts import RequestCounts
from web.webhooks.deliveries import WebhookDeliveries
from web.webhooks.policy import WebhookPolicy
from wire.drain import LAST_SECONDS, Drain
from wire.problems import ProblemHandlers
from wire.request_context import RequestContextMiddleware
from wire.request_guard import RequestGuard
from wire.telemetry.instrumentation import TracedRequests

if TYPE_CHECKING:
    import httpx2

    from web.jobs.store import JobStore
    from web.settings import Settings
    from wire.artifacts import Artifacts


def create_app(
    settings: Settings,
    transport: httpx2.AsyncBaseTransport | None = None,
    drain: Drain | None = None,
    background: BackgroundLoops | None = None,
) -> ASGIApp:
    """`transport` takes the place of the network in tests; `drain` and `background` are the server's, if any. Raises a
    KeyFileError when the file of the callers' keys is not good."""
    connections = ModelConnections(settings, transport)
    client = connections.client
    drain = drain or Drain()
    background = background or BackgroundLoops()
    urls = {name: model.url for name, model in settings.models.items()}
    watch = endpoint_watch(urls) if settings.endpoint_slices else None
    reports = watch.states if watch else StatesFile(settings.states_file)
    readiness = {
        name: Readiness(name, model.kind, settings.idle_seconds, settings.wake_seconds, reports)
        for name, model in settings.models.items()
    }
    if watch:
        watch.states.notify = lambda name: readiness[name].note_change()
    wake_ups = [WakeUpMetrics(each) for each in readiness.values()]
    probes = {
        name: ReadinessProbe(client, model.url, readiness[name], settings) for name, model in settings.models.items()
    }
    status = StatusEndpoints(settings, probes)
    artifacts = _artifacts(settings)
    memory = PictureMemory(settings.picture_bytes)
    replies = ReplyReceiver(artifacts, readiness, memory)
    rest = None
    if settings.dispatch == "rest":
        rest = RestBackend(settings.models, Upstream(client, probes, settings), memory)
    store = _store(settings, background)
    broadcast = ReadinessBroadcast(store, readiness, background)
    backend = rest or EventBackend(client, settings, replies)
    key_file = KeyFile(settings.callers_file) if settings.callers_file else None
    webhooks = WebhookPolicy(settings, key_file)
    jobs = JobService(settings, store, backend, background, Results(artifacts, memory), webhooks.check)
    deliveries = WebhookDeliveries(settings, store, jobs.results, webhooks, background)
    drain.subscribe(jobs.drain)
    addresses = PictureAddresses(settings, jobs)
    job_endpoints = JobEndpoints(settings, jobs, readiness, addresses)
    shares = _shares(settings, key_file)
    descriptions = Descriptions(settings.models, settings.limits)
    models = ModelList(settings.models, descriptions)
    learning = DescriptionLearning(settings, client, store, readiness, descriptions, background)
    metrics = RefreshedMetrics(settings.models, store.usage, store.now, *(each.show for each in wake_ups))
    generations = Generations(settings, job_endpoints, rest, readiness, shares, descriptions)
    generate = GenerateEndpoint(settings, job_endpoints, generations)
    callers_known = settings.callers not in (None, "off")
    description = partial(
        describe,
        _version(),
        _kinds(settings),
        settings.limits,
        callers_known=callers_known,
        root_path=settings.root_path,
    )
    assets = Assets(settings.root_path)
    page = Page(settings, assets, models, _discovery(models, settings.root_path), generate.generate)
    # Dead letters come back with the source of our own requests.
    sources = {*settings.events_sources, settings.event_source} if settings.events_sources else ()
    authenticator = EventAuthenticator(settings, transport)
    events = EventEndpoint(jobs.journal, replies, authenticator, sources, settings.predictor_token)

    async def warm_with_proof(http_request: Request) -> Response:
        await authenticator.check(http_request.headers)
        return await status.warm(http_request)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        async with client:
            await jobs.open()
            broadcast.open()
            deliveries.open()
            learning.open()
            others = [
                background.start("the closing of idle connections", connections.reap),
                background.start("the refresh of the metrics", metrics.turn),
            ]
            if watch:
                others.append(background.start("the watch of the models' endpoints", watch.turn))
            try:
                yield
            finally:
                await learning.close()
                await deliveries.close()
                await broadcast.close()
                await jobs.close(max(settings.grace_seconds - LAST_SECONDS - drain.seconds, 0))
                await shares.close()
                await asyncio.gather(*(probe.close() for probe in probes.values()))
                await background.close(*others)

    handlers = ProblemHandlers(problem_responses(settings.root_path))
    health = HealthEndpoints(settings, background, drain)
    shared = [
        Route("/events", events.receive, methods=["POST"]),
        Route("/healthz", health.live, methods=["GET"]),
        Route("/readyz", health.ready, methods=["GET"]),
    ]
    inbox = [Route("/warm", warm_with_proof, methods=["POST"])]
    public = [
        Route("/", page.serve, methods=["GET", "POST"]),
        Route("/static/{digest}/{name:path}", assets.serve, methods=["GET"]),
        Route("/generate.js", assets.serve_client, methods=["GET"]),
        Route("/generate", generate, methods=["POST"]),
        Route("/generations", JobListEndpoint(jobs).serve, methods=["GET"]),
        Route("/generations/{id}", job_endpoints.serve, methods=["GET", "DELETE"]),
        Route("/generations/{id}/images/{number}", PictureFileEndpoint(jobs, addresses).serve, methods=["GET"]),
        *openai_routes(settings, models, generations, job_endpoints),
        *response_routes(settings, jobs, generations, readiness),
        Route("/models", models.serve, methods=["GET"]),
        Route("/status", status.show, methods=["GET"]),
        Route("/warm", status.warm, methods=["POST"]),
        Route("/openapi.json", StaticDocument(description).serve, methods=["GET"]),
    ]
    is_inbox = settings.routes == "inbox"
    served = [*shared, *(inbox if is_inbox else public)]
    routes = Starlette(
        routes=served,
        exception_handlers={
            ProblemError: handlers.problem,
            HTTPException: handlers.http_exception,
            Exception: _raise_to_guard,
        },
        lifespan=lifespan,
    )
    routes.router.redirect_slashes = False  # it would redirect to whatever host the Host header names
    body_bytes = settings.body_bytes or settings.limits.body_bytes
    paints = any(model.kind == "image" for model in settings.models.values())
    generate_bytes = settings.limits.picture_body_bytes if paints and not settings.body_bytes else body_bytes
    guarded = RequestGuard(
        routes,
        admit=None if is_inbox else CallerAuthentication(settings, key_file, transport),
        body_bytes=body_bytes,
        path_bytes={"/events": max(body_bytes, BATCH_BYTES), "/generate": generate_bytes, EDITS: generate_bytes},
        body_seconds=settings.body_seconds,
        respond=handlers.respond,
        drain=drain,
    )
    # Outside of the guard, so that its own answers have these headers and are counted, too.
    counted = RequestCounts(with_cross_origin(guarded, settings), served, PATHS)
    return TracedRequests(RequestContextMiddleware(counted, QUIET_PATHS, settings.trusted_hops), QUIET_PATHS)


def _store(settings: Settings, background: BackgroundLoops) -> JobStore:
    if settings.store_url is None:
        return MemoryStore(settings.job_keep_seconds, settings.store_bytes, settings.log_entries)
    from web.jobs.stores.redis_store import RedisStore  # only several replicas need it

    return RedisStore(
        settings.store_url.get_secret_value(),
        settings.job_keep_seconds,
        settings.log_entries,
        settings.store_patience_seconds,
        settings.store_bytes,
        background,
    )


def _shares(settings: Settings, key_file: KeyFile | None) -> Shares:
    of_all = Share.of_all(settings)

    def share_of(caller: str) -> Share:
        return key_file.share(caller, of_all) if key_file else of_all

    if settings.store_url is None:
        return Shares(share_of, MemoryCounters())
    from web.callers.redis_counters import RedisCounters  # as above

    return Shares(share_of, RedisCounters(settings.store_url.get_secret_value()))


def _artifacts(settings: Settings) -> Artifacts | None:
    if settings.artifacts_url is None:
        return None
    from wire.artifacts import Artifacts  # only where results are too large for events

    return Artifacts(settings.artifacts_url)


async def _raise_to_guard(_request: Request, error: Exception) -> Response:
    """Starlette would answer in plain text and then raise. Raised at once, the guard answers with a problem."""
    raise error


_LINKS = {
    "generate": "/generate",
    "generations": "/generations",
    "generation": "/generations/{id}",
    "models": "/models",
    "openapi": "/openapi.json",
    "status": "/status",
    "warm": "/warm",
    "health": "/healthz",
    "readiness": "/readyz",
}


def _discovery(models: ModelList, root_path: str) -> dict[str, Any]:
    return {
        "name": "shangcai",
        "version": _version(),
        "models": [{"name": model.name, "kind": model.kind} for model in models],
        "default_model": models.default,
        "links": {name: root_path + path for name, path in _LINKS.items()},
    }


def _kinds(settings: Settings) -> dict[str, Kind]:
    return {name: model.kind for name, model in settings.models.items()}


def _version() -> str:
    try:
        return version("shangcai")
    except PackageNotFoundError:  # run from a bare checkout
        return "0+unknown"
