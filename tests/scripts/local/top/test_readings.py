"""What is read from web's metrics: rates between looks, means of a minute, and nothing where nothing is known."""

from __future__ import annotations

import subprocess
import sys

import pytest

from scripts.local.top import readings, wake_ups
from scripts.local.top.exposition import parse_exposition
from scripts.local.top.readings import History
from tests.scripts.local.top.expositions import AFTER, BEFORE, MODELS, a_look
from tests.support.processes import ROOT


def test_what_grew_between_two_looks_is_a_rate() -> None:
    history = History()
    first = history.add(a_look(100, BEFORE))
    assert first.models[0].tokens_per_second is None
    assert first.requests_per_second is None

    second = history.add(a_look(110, AFTER))
    poet, painter = second.models
    assert poet.tokens_per_second == pytest.approx(123.5)
    assert (poet.running, poet.waiting, poet.used, poet.slots) == (6, 0, 4, 4)
    assert (painter.running, painter.slots, painter.tokens_per_second) == (0, None, 0)
    assert second.requests_per_second == pytest.approx(2.5)
    assert second.errors_per_second == pytest.approx(0.5)
    assert second.jobs == {"queued": 3, "running": 1}
    assert second.jobs_ended == {"completed": 12}


def test_the_first_token_is_the_mean_of_the_last_minute_only() -> None:
    """The 100 quick ones came before it; that the buckets end at 0.2 s does not matter."""
    history = History()
    assert history.add(a_look(100, BEFORE)).models[0].first_token is None
    assert history.add(a_look(110, AFTER)).models[0].first_token == pytest.approx(0.19)
    assert history.add(a_look(165, AFTER)).models[0].first_token == pytest.approx(0.19)
    assert history.add(a_look(240, AFTER)).models[0].first_token is None
    slow = AFTER.replace('seconds_sum{model="poet"} 10.9', 'seconds_sum{model="poet"} 277.9')
    slow = slow.replace('seconds_count{model="poet"} 110.0', 'seconds_count{model="poet"} 120.0')
    assert history.add(a_look(242, slow)).models[0].first_token == pytest.approx(26.7)


def test_a_model_that_works_while_nothing_has_ended_has_no_known_speed() -> None:
    history = History()
    history.add(a_look(100, AFTER))
    poet, painter = history.add(a_look(102, AFTER)).models
    assert (poet.running, poet.tokens_per_second) == (6, None)
    assert (painter.running, painter.tokens_per_second) == (0, 0)
    tokens = AFTER.replace("} 5235.0", "} 5239.0")  # they are counted just before the end
    assert history.add(a_look(104, tokens)).models[0].tokens_per_second == 2
    ended = tokens.replace('latency_seconds_count{model="poet"} 110.0', 'latency_seconds_count{model="poet"} 111.0')
    assert history.add(a_look(106, ended)).models[0].tokens_per_second == 0  # of one that wrote nothing


def test_counters_of_a_web_that_was_started_again_begin_at_nothing() -> None:
    history = History()
    history.add(a_look(100, AFTER))
    again = 'shangcai_web_generation_tokens_total{model="poet"} 50.0\n'
    again += 'shangcai_web_requests_total{model="poet",route="/generate",status_class="2xx"} 5.0\n'
    now = history.add(a_look(110, again))
    assert now.models[0].tokens_per_second == pytest.approx(5)
    assert now.requests_per_second == pytest.approx(0.5)
    assert now.errors_per_second == 0


def test_a_series_that_was_not_there_before_counts_from_nothing() -> None:
    history = History()
    history.add(a_look(100, ""))
    assert history.add(a_look(110, 'shangcai_web_generation_tokens_total{model="poet"} 50.0')).models[
        0
    ].tokens_per_second == pytest.approx(5)


def test_without_metrics_nothing_is_made_up() -> None:
    history = History()
    history.add(a_look(100, BEFORE))
    now = history.add(a_look(110, None))
    poet = now.models[0]
    assert (poet.running, poet.waiting, poet.used, poet.tokens_per_second, poet.first_token) == (None,) * 5
    assert (now.requests_per_second, now.jobs) == (None, None)
    back = history.add(a_look(120, AFTER))
    assert back.models[0].tokens_per_second is None  # there is no look just before it
    assert back.requests_per_second == pytest.approx(1.25)  # of the 20 s in which it was away, too


def test_a_wake_up_that_is_seen_has_its_own_phases_and_earlier_ones_a_mean() -> None:
    history = History()
    earlier = history.add(a_look(100, BEFORE)).models[0].wake_up
    assert earlier is not None
    assert (earlier.seconds, earlier.expected_seconds, earlier.of) == (4.3, 4.1, 2)
    assert earlier.phases == pytest.approx({"scheduling": 0.2, "loading the weights": 4.0})

    woken = BEFORE.replace('_count{model="poet"} 2.0', '_count{model="poet"} 3.0').replace("} 8.0", "} 13.0")
    woken = woken.replace('last_seconds{model="poet"} 4.3', 'last_seconds{model="poet"} 5.0')
    seen = history.add(a_look(110, woken)).models[0].wake_up
    assert seen is not None
    assert (seen.seconds, seen.of) == (5.0, 1)
    assert seen.phases == pytest.approx({"loading the weights": 5.0})
    assert history.add(a_look(120, woken)).models[0].wake_up == seen


@pytest.mark.parametrize(("state", "used"), [("ready", 4), ("pending", 4), ("waking", 0), ("asleep", 0)])
def test_slots_are_used_where_there_are_any(state: str, used: int) -> None:
    [model] = History().add(a_look(100, AFTER, [{**MODELS[0], "state": state}])).models
    assert (model.running, model.used) == (6, used)


def test_a_state_that_is_not_known_here_is_passed_on() -> None:
    [model] = History().add(a_look(100, "", [{**MODELS[1], "state": "dreaming", "since": "long ago"}])).models
    assert (model.state, model.for_seconds) == ("dreaming", None)


def test_what_is_no_exposition_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="invalid metric name"):
        parse_exposition("<html> is none </html>")


def test_web_has_all_metrics_that_are_read() -> None:
    command = "import prometheus_client, web.metrics; print(prometheus_client.generate_latest().decode())"
    text = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    named = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    read = {
        value
        for module in (readings, wake_ups)
        for value in vars(module).values()
        if isinstance(value, str) and value.startswith("shangcai_web_")
    }
    assert len(read) == 13
    assert {name.removesuffix("_count") for name in read} <= named
