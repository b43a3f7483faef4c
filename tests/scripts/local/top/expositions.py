"""Two looks at the metrics of a web with a poet that writes and a painter that is asleep, ten seconds apart."""

from __future__ import annotations

from scripts.local.top.exposition import Exposition, parse_exposition
from scripts.local.top.look import Look

BEFORE = """
# HELP shangcai_web_requests_total Requests answered, by the class of their status; 499: the client left before.
# TYPE shangcai_web_requests_total counter
shangcai_web_requests_total{model="poet",route="/generate",status_class="2xx"} 100.0
shangcai_web_requests_total{model="poet",route="/generate",status_class="5xx"} 3.0
shangcai_web_requests_total{model="",route="/status",status_class="2xx"} 50.0
# TYPE shangcai_web_num_requests_running gauge
shangcai_web_num_requests_running{model="poet"} 2.0
# TYPE shangcai_web_job_runs gauge
shangcai_web_job_runs{model="poet"} 1.0
# TYPE shangcai_web_num_requests_waiting gauge
shangcai_web_num_requests_waiting{model="poet"} 0.0
# HELP shangcai_web_generation_tokens_total Tokens written, as model servers count them.
# TYPE shangcai_web_generation_tokens_total counter
shangcai_web_generation_tokens_total{model="poet"} 4000.0
# TYPE shangcai_web_generation_tokens_created gauge
shangcai_web_generation_tokens_created{model="poet"} 1.7960319e+09
# TYPE shangcai_web_time_to_first_token_seconds histogram
shangcai_web_time_to_first_token_seconds_bucket{le="0.1",model="poet"} 90.0
shangcai_web_time_to_first_token_seconds_bucket{le="0.2",model="poet"} 100.0
shangcai_web_time_to_first_token_seconds_bucket{le="+Inf",model="poet"} 100.0
shangcai_web_time_to_first_token_seconds_count{model="poet"} 100.0
shangcai_web_time_to_first_token_seconds_sum{model="poet"} 9.0
# TYPE shangcai_web_e2e_request_latency_seconds histogram
shangcai_web_e2e_request_latency_seconds_count{model="poet"} 100.0
# TYPE shangcai_web_wake_up_seconds histogram
shangcai_web_wake_up_seconds_count{model="poet"} 2.0
# TYPE shangcai_web_wake_up_phase_seconds_total counter
shangcai_web_wake_up_phase_seconds_total{model="poet",phase="scheduling"} 0.4
shangcai_web_wake_up_phase_seconds_total{model="poet",phase="loading the weights"} 8.0
# TYPE shangcai_web_wake_up_last_seconds gauge
shangcai_web_wake_up_last_seconds{model="poet"} 4.3
# TYPE shangcai_web_wake_up_expected_seconds gauge
shangcai_web_wake_up_expected_seconds{model="poet"} 4.1
# TYPE shangcai_web_jobs gauge
shangcai_web_jobs{model="poet",state="queued"} 2.0
shangcai_web_jobs{model="painter",state="queued"} 1.0
shangcai_web_jobs{model="poet",state="running"} 1.0
# TYPE shangcai_web_jobs_ended_total counter
shangcai_web_jobs_ended_total{model="poet",state="completed"} 12.0
"""

AFTER = (
    BEFORE.replace('status_class="2xx"} 100.0', 'status_class="2xx"} 120.0')
    .replace('status_class="5xx"} 3.0', 'status_class="5xx"} 8.0')
    .replace('running{model="poet"} 2.0', 'running{model="poet"} 5.0')
    .replace('route="/status",status_class="2xx"} 50.0', 'route="/status",status_class="2xx"} 55.0')
    .replace("} 4000.0", "} 5235.0")
    .replace('le="0.2",model="poet"} 100.0', 'le="0.2",model="poet"} 110.0')
    .replace('le="+Inf",model="poet"} 100.0', 'le="+Inf",model="poet"} 110.0')
    .replace('seconds_count{model="poet"} 100.0', 'seconds_count{model="poet"} 110.0')
    .replace('seconds_sum{model="poet"} 9.0', 'seconds_sum{model="poet"} 10.9')
)

MODELS: list[dict[str, object]] = [
    {"name": "poet", "kind": "text", "state": "ready", "since": "2026-01-31T08:00:00.000Z", "expected_seconds": 4.2},
    {"name": "painter", "kind": "image", "state": "asleep"},
]
WAKING: dict[str, object] = {
    "name": "painter",
    "kind": "image",
    "state": "waking",
    "phase": "loading the weights",
    "seconds": 3.1,
    "expected_seconds": 6.1,
}


def a_look(at: float, text: str | None, models: list[dict[str, object]] | None = None, *troubles: str) -> Look:
    exposition: Exposition | None = None if text is None else parse_exposition(text)
    listed = MODELS if models is None else models
    return Look(at, "http://127.0.0.1:8080", listed, exposition, {"poet": 4}, troubles)
