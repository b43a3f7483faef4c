"""Pictures of jobs whose bytes lie in the artifacts are served as if they lay in the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.web.job_requests import ASYNC, CAT, LIVE, PNG, Front, ended, read, submit
from web.jobs import results


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "EVENT_BYTES", 0)


def the_file(folder: Path) -> Path:
    [file] = folder.iterdir()
    return file


@pytest.mark.parametrize("shared", [False, True], ids=["memory", "redis"])
async def test_every_form_of_a_picture_comes_from_its_artifact(
    front: Front, redis_url: str, redis_client: redis.Redis, tmp_path: Path, shared: bool
) -> None:
    settings: dict[str, Any] = {"artifacts_url": tmp_path.as_uri()}
    if shared:
        settings["store_url"] = redis_url
    client = await front(**settings)
    other = await front(**settings) if shared else client
    location = await submit(client, CAT)
    job = await ended(client, location)
    assert job["state"] == "completed"
    assert (await ended(other, location)) == job
    result = job["result"]
    assert result["images"][0]["data"] == "cGljdHVyZSAw"
    assert result["id"] == job["id"]
    assert (await other.get(location, headers=PNG)).content == b"picture 0"
    _, name, data = read((await other.get(location, headers=LIVE)).text)[-1]
    assert (name, data) == ("result", result)
    file = the_file(tmp_path)
    if shared:
        raw: Any = redis_client
        stored = [str(raw.hgetall(key)) for key in raw.scan_iter("shangcai:job:*")]
        assert "cGljdHVyZSAw" not in "".join(stored)
    assert (await other.delete(location)).status_code == 204
    assert not file.exists()


async def test_whoever_waits_gets_the_result_itself(front: Front, tmp_path: Path) -> None:
    client = await front(artifacts_url=tmp_path.as_uri())
    answer = await client.post("/generate", json=CAT, headers={"Prefer": "wait=10", **PNG})
    assert (answer.status_code, answer.content) == (200, b"picture 0")
    answer = await client.post("/generate", json=CAT, headers={"Idempotency-Key": "k"})
    assert answer.json()["images"][0]["data"] == "cGljdHVyZSAw"
    answer = await client.post("/generate", json=CAT, headers={**LIVE, **ASYNC})
    assert read(answer.text)[-1][2]["images"][0]["data"] == "cGljdHVyZSAw"


async def test_an_artifact_that_is_gone_or_away_is_a_clear_problem(front: Front, tmp_path: Path) -> None:
    client = await front(artifacts_url=tmp_path.as_uri())
    location = await submit(client, CAT)
    await ended(client, location)
    file = the_file(tmp_path)
    file.unlink()
    answer = await client.get(location)
    assert (answer.status_code, answer.json()["detail"]) == (404, "The result of this generation is gone.")
    file.mkdir()
    answer = await client.get(location)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
