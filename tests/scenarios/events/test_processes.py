"""The processes that fault scenarios are played with: they can be killed, and come back as they would on a cluster."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
import redis

from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow


def test_redis_comes_back_with_its_data(redis_server: Any) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        for number in range(100):
            client.rpush("list", number)
        redis_server.kill()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        redis_server.start()
        assert client.llen("list") == 100


def test_web_comes_back_on_its_port(start_web: Any) -> None:
    web = start_web({"poet": "http://127.0.0.1:9"}, "--log-level", "debug", EVENT_SOURCE="urn:test")
    url, process = web.url, web.process.pid
    assert httpx2.get(f"{url}/healthz", trust_env=False).is_success
    web.kill9()
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{url}/healthz", trust_env=False)
    web.restart()
    assert httpx2.get(f"{url}/healthz", trust_env=False).is_success
    assert web.process.pid != process
    assert web.stop() == 0
    assert web.log.count("listening on 127.0.0.1 port") == 2


def test_a_process_that_ends_says_so_at_once(start_web: Any) -> None:
    with pytest.raises(AssertionError, match=r"it has ended:\s+python -m web: --read-seconds"):
        start_web({"poet": "http://127.0.0.1:9"}, "--read-seconds", "0")


def test_the_environment_of_whoever_runs_the_tests_is_not_passed_on(
    start_web: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORT", "1")
    monkeypatch.setenv("READ_SECONDS", "0")
    assert start_web({"poet": "http://127.0.0.1:9"}).stop() == 0


def test_subscribers_break_off_when_they_are_told_to(subscriber: Any) -> None:
    taker = subscriber()
    taker.answer = lambda _letter: None
    with pytest.raises(httpx2.RemoteProtocolError):
        httpx2.post(taker.url, content=b"x", trust_env=False)
    assert [letter.body for letter in taker.letters] == [b"x"]


def test_waiting_has_an_end() -> None:
    assert wait_until(lambda: 7) == 7
    with pytest.raises(AssertionError, match=r"not within 0\.05 s: rain"):
        wait_until(lambda: None, "rain", 0.05)


def test_a_predictor_comes_back_on_its_port(start_predictor: Any) -> None:
    predictor = start_predictor("--max-concurrency", "2", PREDICTOR_NAME="bard")
    predictor.kill9()
    predictor.restart()
    assert httpx2.get(f"{predictor.url}/v1/models/bard", trust_env=False).is_success
