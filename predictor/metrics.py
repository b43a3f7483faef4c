"""The predictor's Prometheus metrics. Names follow vLLM's where it has one, with our own prefix."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram

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
ALIVE = Gauge("shangcai_engine_alive", "1 while the engine makes progress or loads, 0 where only a restart helps.")
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
REUSED_TOKENS = Counter("shangcai_prefix_cache_hits", "Tokens of prompts that were in the cache already.")
DRAFT_TOKENS = Counter("shangcai_spec_decode_num_draft_tokens", "Tokens proposed because they followed before.")
RIGHT_TOKENS = Counter("shangcai_spec_decode_num_accepted_tokens", "Those of them that the model has written.")
STEPS = Counter("shangcai_denoising_steps", "Denoising steps of finished pictures.")
FINISHED = Counter("shangcai_request_success", "Requests that ended well.", ["finished_reason"])
CANCELLED = Counter("shangcai_requests_cancelled", "Requests whose client left.", ["where"])
REJECTED = Counter("shangcai_requests_rejected", "Requests refused.", ["reason"])
SLEEP_STATE = Gauge(
    "shangcai_engine_sleep_state",
    "1 for the state that the engine is in: awake, weights_offloaded (level 1) or discard_all (level 2).",
    ["sleep_state"],
)
WAKE_UP = Histogram(
    "shangcai_wake_up_seconds", "What a wake-up from a sleep level took.", ["sleep_level"], buckets=_SECONDS
)
FAILED_WAKE_UPS = Counter("shangcai_failed_wake_ups", "Wake-ups that failed; the next request tries again.")
OUT_OF_MEMORY = Counter("shangcai_out_of_memory", "Times that a step, or the decoding of a picture, ran out of memory.")
EVENTS = Counter("shangcai_events", "CloudEvents delivered, by what they were answered with.", ["outcome"])
REDELIVERIES = Counter("shangcai_redeliveries", "Deliveries of a request that was running or done.", ["found"])


def show(*, running: Callable[[], int], waiting: Callable[[], int], slots: Callable[[], int]) -> None:
    """Connect the gauges to functions that are called each time the metrics are read."""
    RUNNING.set_function(running)
    WAITING.set_function(waiting)
    CAPACITY.set_function(slots)


def show_sleep(level: Callable[[], int | None]) -> None:
    """Connect the sleep state to a function that gives the sleep level, None while awake. Names are vLLM's."""
    for state, of_state in (("awake", None), ("weights_offloaded", 1), ("discard_all", 2)):
        SLEEP_STATE.labels(state).set_function(lambda of_state=of_state: level() == of_state)  # type: ignore[misc]


def show_alive(alive: Callable[[], bool]) -> None:
    """Connect the gauge to a function that says whether the engine makes progress."""
    ALIVE.set_function(alive)
