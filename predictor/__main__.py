"""`python -m predictor` serves a model: it checks the settings, opens the port, and only then imports what is heavy.
`python -m predictor plan`: see predictor.plan_command."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from contract.request import Kind
from predictor import systemd
from predictor.cpu.threads import prepare_threads
from predictor.engine.engine_settings import EngineSettings
from predictor.errors import ModelError
from predictor.imports import imported_modules
from predictor.imports.lean_imports import lean_server_imports, use_lean_imports
from predictor.loading.description_file import read_description
from predictor.loading.early_port import open_ports
from predictor.loading.gguf.temporary_folder import remove_temporary_folder
from predictor.loading.model_source import check_source, kind_on_hub
from predictor.loading.startup import Startup, process_age
from predictor.measurements.cache import measurement_cache
from predictor.measurements.start_times import StartTimes
from predictor.settings import Settings
from wire.settings import read_settings
from wire.telemetry.logs import set_up_logging
from wire.telemetry.tracing import start_tracing, stop_tracing

if TYPE_CHECKING:
    from predictor.engine.base import Engine
    from predictor.events.subscriber import EventSubscriber
    from predictor.protocols.access import Access
    from predictor.protocols.generation_model import GenerationModel


def main() -> int:
    """Serve until SIGTERM. Returns the exit status."""
    # Until the server handles them. A container's process 1 ignores a signal that it has no handler for.
    for sig in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sig, lambda *_: os._exit(0))
    prepare_threads()
    if sys.argv[1:2] == ["plan"]:
        from predictor.plan_command import print_plan

        return print_plan(sys.argv[2:])
    if sys.argv[1:2] == ["dump"]:
        from predictor.dump_command import dump

        return dump(sys.argv[2:])
    return _serve()


def _serve() -> int:
    gc.disable()  # until Startup ends: imports make half a million objects, which each collection would search
    startup = Startup(process_age())
    settings = read_settings(Settings)
    set_up_logging(settings.log_level, settings.log_format)
    logging.getLogger("kserve").addHandler(logging.NullHandler())  # without a handler KServe configures its own
    try:
        kind = check_source(settings.model, settings.kind, settings.revision)
        ports = None
        if settings.wait_for_restore is None:
            ports = open_ports(settings)
            startup.record("port open", startup.seconds)
        kind = kind or kind_on_hub(settings.model, settings.kind, settings.revision)
    except (ModelError, OSError) as error:
        systemd.notify_failure(str(error))
        print(f"predictor: {error}", file=sys.stderr)
        return 1

    _remember(startup, settings, kind)
    use_lean_imports(settings.lean_imports)
    flags = sys.argv[1:]
    del sys.argv[1:]  # KServe 0.21 parses them when it is imported, and does not know our flags
    with lean_server_imports():
        from predictor.protocols.access import Access
        from predictor.server.drain import Lifetime
        from predictor.server.model_server import PredictorServer

        engine = _engine(settings, kind)
        loaded = ports is None
        if ports is None:
            from predictor.restored_start import wait_for_restore

            try:
                engine.load(startup.enter)
                sys.argv[1:] = flags  # they stay where the launcher tells none
                settings, ports, startup = wait_for_restore(settings, engine_settings)
            except (ModelError, OSError, ValueError) as error:
                print(f"predictor: {error}", file=sys.stderr)
                return 1
        model = _model(settings, kind, engine)
        model.loaded = loaded
    model.startup = startup
    lifetime = Lifetime(
        grace_seconds=settings.grace_seconds,
        quiet_seconds=settings.quiet_seconds,
        idle_seconds=settings.idle_seconds,
        nap_seconds=settings.nap,
    )
    access = Access(settings.token, events_open=settings.events_open)
    subscriber = _subscriber(settings, model, access)
    assert ports is not None
    start_tracing("shangcai-predictor")
    PredictorServer(
        model, ports.listener, lifetime, subscriber, settings.grpc_port, settings.body_bytes, access, ports.admin
    ).run()
    stop_tracing()
    if model.startup.error:
        print(f"predictor: {model.startup.error}", file=sys.stderr)
        return 1
    return 0


def _remember(startup: Startup, settings: Settings, kind: Kind) -> None:
    """Tell how long earlier starts took, and keep of this one how long it takes, and what it imports where the
    supervisor asks for that."""
    facts = settings.model_dump(mode="json", include={"model", "revision", "device", "dtype", "quantize"})
    start_times = StartTimes(
        measurement_cache(settings.model, settings.cache_folder),
        name=settings.served_name,  # in pods every model is at the same place
        kind=kind,
        imported="torch" in sys.modules,  # as in a fork of the template, whose starts are other ones
        **facts,
    )
    startup.expected_seconds = start_times.expected_seconds
    startup.on_ready.append(start_times.add)
    modules_file = os.environ.pop(imported_modules.VARIABLE, "")
    if modules_file:
        startup.on_ready.append(lambda _: imported_modules.write_modules(Path(modules_file)))


def engine_settings(settings: Settings) -> EngineSettings:
    """What the engine is made of."""
    return EngineSettings(
        model=settings.model,
        revision=settings.revision,
        device=settings.device,
        dtype=settings.dtype,
        max_concurrency=settings.slots or settings.max_concurrency,
        max_waiting=settings.max_waiting,
        memory=settings.memory,
        slots=settings.slots,
        max_length=settings.max_length,
        load_format=settings.load_format,
        enable_thinking=settings.enable_thinking,
        compile=settings.compile,
        quantize=settings.quantize,
        pack_weights=settings.pack_weights,
        steps=settings.steps,
        guidance=settings.guidance,
        size=settings.size,
        max_pixels=settings.max_pixels,
        cache_folder=settings.cache_folder,
    )


def _engine(settings: Settings, kind: Kind) -> Engine:
    if kind == "image":
        from predictor.pictures.diffusers_engine import DiffusersEngine

        return DiffusersEngine(engine_settings(settings))
    from predictor.text.transformers_engine import TransformersEngine

    return TransformersEngine(engine_settings(settings))


def _model(settings: Settings, kind: Kind, engine: Engine) -> GenerationModel:
    options: dict[str, Any] = {
        "request_seconds": settings.request_seconds,
        "sleep_level": settings.sleep_level,
        "stated": read_description(settings.model),
    }
    if kind == "image":
        from predictor.protocols.kserve_pictures import PictureModel

        return PictureModel(settings.served_name, engine, **options)
    from predictor.protocols.kserve_text import TextModel

    return TextModel(settings.served_name, engine, **options)


def _subscriber(settings: Settings, model: GenerationModel, access: Access) -> EventSubscriber:
    from predictor.events.deduplication import Deduplicator
    from predictor.events.reply_builder import ReplyBuilder
    from predictor.events.subscriber import EventSubscriber

    artifacts = store = publisher = None
    if settings.artifacts_url:
        from wire.artifacts import Artifacts

        artifacts = Artifacts(settings.artifacts_url)
    if settings.store_url:
        from predictor.events.redis_reply_store import RedisReplyStore, StoreTimes

        times = StoreTimes(reply_seconds=settings.reply_seconds, request_seconds=settings.request_seconds)
        store = RedisReplyStore(settings.store_url.get_secret_value(), settings.source, times)
    if settings.progress_events:
        from predictor.events.event_sink import EventSink
        from predictor.events.progress import ProgressPublisher

        assert settings.k_sink is not None
        sink = EventSink(settings.k_sink, settings.sink_extensions, token=settings.token)
        publisher = ProgressPublisher(sink, settings.source, model.name, model.kind)
    deduplicator = Deduplicator(
        store,
        replies=settings.max_replies,
        reply_bytes=settings.reply_bytes,
        reply_seconds=settings.reply_seconds,
    )
    replies = ReplyBuilder(settings.source, settings.event_bytes, artifacts, settings.token)
    return EventSubscriber(model, replies, deduplicator, publisher, access)


def run() -> NoReturn:
    """Be the predictor, and end the process: without Python's own end, because the loading thread may be importing
    torch, which crashes when the interpreter ends."""
    status = main()
    remove_temporary_folder()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    run()
