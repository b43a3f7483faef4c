"""Web's Prometheus metrics. Names follow those of the predictor, which follow vLLM's where it has one, after our own
prefix: both are scraped into one Prometheus.

Labels have few values: models are those that are served, routes those that there are, callers the first CALLER_NAMES.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
STORE_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

CALLER_NAMES = 50
"""Callers that are named; all further ones are `other`."""

# Requests

REQUESTS = Counter(
    "shangcai_web_requests",
    "Requests answered, by the class of their status; 499: the client left before.",
    ["route", "model", "status_class"],
)
CALLER_REQUESTS = Counter(
    "shangcai_web_caller_requests", "Requests by caller: the first 50 by name, all others as other.", ["caller"]
)
CALLER_REFUSALS = Counter(
    "shangcai_web_caller_refusals", "Those of them refused because the caller's share was used up.", ["caller"]
)
RUNNING = Gauge("shangcai_web_num_requests_running", "Requests on their way to the model, or at it.", ["model"])
WAITING = Gauge(
    "shangcai_web_num_requests_waiting", "Requests beyond MAX_IN_FLIGHT, which wait in this process.", ["model"]
)
OLDEST_WAITING = Gauge(
    "shangcai_web_oldest_request_waiting_seconds", "How long the oldest of these has waited; 0 without one.", ["model"]
)
REJECTED = Counter("shangcai_web_requests_rejected", "Requests refused because too many wait.", ["model"])
FIRST_TOKEN = Histogram(
    "shangcai_web_time_to_first_token_seconds",
    "From the request's arrival to the first token or denoising step, a wake-up included.",
    ["model"],
    buckets=SECONDS,
)
PER_TOKEN = Histogram(
    "shangcai_web_time_per_output_token_seconds",
    "Mean time between the tokens of a generation.",
    ["model"],
    buckets=TOKEN_SECONDS,
)
WHOLE = Histogram(
    "shangcai_web_e2e_request_latency_seconds",
    "From the arrival of a request, or the start of a job, to the end of its generation.",
    ["model"],
    buckets=SECONDS,
)
PHASE = Histogram(
    "shangcai_web_phase_seconds",
    "Seconds of a generation in each phase; they add up to the whole. docs/traces.md lists the phases.",
    ["model", "phase"],
    buckets=SECONDS,
)
PROMPT_TOKENS = Counter("shangcai_web_prompt_tokens", "Tokens of prompts, as model servers count them.", ["model"])
GENERATION_TOKENS = Counter("shangcai_web_generation_tokens", "Tokens written, as model servers count them.", ["model"])
PICTURES = Counter("shangcai_web_pictures", "Pictures painted.", ["model"])
RETRIES = Counter(
    "shangcai_web_request_retries", "Generations asked for again because their model server died.", ["model"]
)

# Jobs

JOBS = Gauge(
    "shangcai_web_jobs", "Open jobs in the store, those of other replicas included, by state.", ["model", "state"]
)
OLDEST_JOB = Gauge(
    "shangcai_web_oldest_job_queued_seconds", "How long the oldest queued job has waited; 0 without one.", ["model"]
)
JOBS_ADDED = Counter("shangcai_web_jobs_added", "Jobs made by requests to this process.", ["model"])
JOBS_ENDED = Counter(
    "shangcai_web_jobs_ended", "Jobs whose end this process has written, by state.", ["model", "state"]
)
JOB_RUNS = Gauge("shangcai_web_job_runs", "Jobs that this process works on.", ["model"])
ATTEMPTS = Counter(
    "shangcai_web_job_attempts",
    "Attempts at jobs, by outcome: done, failed, retried (for the reason of a problem that may pass), or left.",
    ["model", "outcome"],
)
TAKEOVERS = Counter(
    "shangcai_web_job_takeovers", "Jobs claimed here that another replica, or an earlier process, had begun.", ["model"]
)
WATCHERS = Gauge("shangcai_web_watchers", "Clients that watch the events of jobs.")

# The store of jobs, and pictures in memory

STORE = Histogram(
    "shangcai_web_store_command_seconds",
    "What a command to the shared store took.",
    ["command"],
    buckets=STORE_SECONDS,
)
STORE_ERRORS = Counter("shangcai_web_store_errors", "Commands to the shared store that failed.", ["command"])
STORE_BYTES = Gauge("shangcai_web_store_bytes", "Bytes that the jobs take in the store.")
STORE_MOST_BYTES = Gauge("shangcai_web_store_most_bytes", "Most bytes that they may take: STORE_BYTES.")
PICTURE_BYTES = Gauge("shangcai_web_picture_bytes", "Bytes set aside for pictures on their way.")
PICTURE_MOST_BYTES = Gauge("shangcai_web_picture_most_bytes", "Most of them: PICTURE_BYTES.")

# Models asleep and awake

MODEL_STATE = Gauge(
    "shangcai_web_model_state", "1 for the state that the model is in, as this process knows it.", ["model", "state"]
)
WAKE_UPS = Counter(
    "shangcai_web_wake_ups", "Wake-ups seen from here, by outcome: ready or failed.", ["model", "outcome"]
)
WAKE_UP = Histogram(
    "shangcai_web_wake_up_seconds",
    "What a wake-up took, from the first request to ready.",
    ["model"],
    buckets=SECONDS,
)
WAKE_UP_PHASE = Counter(
    "shangcai_web_wake_up_phase_seconds",
    "Seconds of wake-ups by the phase that the model server said; scheduling: it had said nothing yet. They add up to "
    "shangcai_web_wake_up_seconds_sum.",
    ["model", "phase"],
)
WAKE_UP_EXPECTED = Gauge(
    "shangcai_web_wake_up_expected_seconds", "What the last wake-up was expected to take, before it began.", ["model"]
)
WAKE_UP_LAST = Gauge("shangcai_web_wake_up_last_seconds", "What the last wake-up took.", ["model"])

# Events and webhooks

EVENTS = Counter(
    "shangcai_web_events", "CloudEvents received, by type and outcome: taken, or the problem.", ["type", "outcome"]
)
EVENTS_SENT = Counter(
    "shangcai_web_events_sent",
    "CloudEvents sent to the sink, by type and outcome: taken, or the problem.",
    ["type", "outcome"],
)
DEAD_LETTERS = Counter("shangcai_web_dead_letters", "Requests that came back as dead letters, and ended their job.")
WEBHOOKS = Counter(
    "shangcai_web_webhook_deliveries",
    "Attempts to deliver the end of a job: delivered, failed (it is tried again) or given_up.",
    ["outcome"],
)
WEBHOOK = Histogram("shangcai_web_webhook_seconds", "What such an attempt took.", buckets=SECONDS)
