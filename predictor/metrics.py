"""What the predictor tells Prometheus. Names follow vLLM's where it has one, with our own prefix."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

from predictor.engine.base import PictureFinished

if TYPE_CHECKING:
    from predictor.engine.admission import Admission, ScheduledTask
    from predictor.engine.base import End

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)

PHASE = Gauge(
    "shangcai_cold_start_phase_seconds",
    "What a phase of the start took; port open and ready: seconds since the process was started.",
    ["phase"],
)
RUNNING = Gauge("shangcai_num_requests_running", "Requests in the running batch.")
WAITING = Gauge("shangcai_num_requests_waiting", "Accepted requests that wait for a slot.")
CAPACITY = Gauge("shangcai_slots", "Slots: most requests that run at once.")
BATCH = Histogram("shangcai_batch_size", "Rows in one forward.", buckets=(1, 2, 4, 8, 16, 32, 64, 128))
FIRST_TOKEN = Histogram(
    "shangcai_time_to_first_token_seconds", "From acceptance to the first token or denoising step.", buckets=_SECONDS
)
PER_TOKEN = Histogram(
    "shangcai_time_per_output_token_seconds", "Mean time between the tokens of a request.", buckets=_TOKEN_SECONDS
)
QUEUE = Histogram("shangcai_request_queue_time_seconds", "From acceptance to a slot.", buckets=_SECONDS)
WHOLE = Histogram("shangcai_e2e_request_latency_seconds", "From acceptance to the end.", buckets=_SECONDS)
PROMPT_TOKENS = Counter("shangcai_prompt_tokens", "Tokens read.")
GENERATION_TOKENS = Counter("shangcai_generation_tokens", "Tokens written.")
STEPS = Counter("shangcai_denoising_steps", "Denoising steps of finished pictures.")
FINISHED = Counter("shangcai_request_success", "Requests that ended well.", ["finished_reason"])
CANCELLED = Counter("shangcai_requests_cancelled", "Requests whose client left.", ["where"])
REJECTED = Counter("shangcai_requests_rejected", "Requests refused.", ["reason"])
OUT_OF_MEMORY = Counter("shangcai_out_of_memory", "Steps that ran out of memory.")
EVENTS = Counter("shangcai_events", "CloudEvents delivered, by what they were answered with.", ["outcome"])
REDELIVERIES = Counter("shangcai_redeliveries", "Deliveries of a request that was running or done.", ["found"])


def watch(admission: Admission) -> None:
    """Have the gauges read what they show when they are asked."""
    RUNNING.set_function(lambda: admission.served)
    WAITING.set_function(lambda: admission.waiting)
    CAPACITY.set_function(lambda: admission.slots)


def observe_end(job: ScheduledTask, end: End) -> None:
    """Count a text or a picture that ended well."""
    now = time.monotonic()
    WHOLE.observe(now - job.accepted_at)
    if isinstance(end, PictureFinished):
        STEPS.inc(end.steps)
        FINISHED.labels("stop").inc()
        return
    if job.first_step_at is not None and end.completion_tokens > 1:
        PER_TOKEN.observe((now - job.first_step_at) / (end.completion_tokens - 1))
    PROMPT_TOKENS.inc(end.prompt_tokens)
    GENERATION_TOKENS.inc(end.completion_tokens)
    FINISHED.labels(end.finish_reason).inc()
