"""Results that are too large for an event: written below one address, and read from nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract import ProblemError, problems
from wire.artifacts import Artifacts


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(f"file://{tmp_path}/results/")


async def refused(artifacts: Artifacts, address: str, limit: int = 100) -> ProblemError:
    with pytest.raises(ProblemError) as caught:
        await artifacts.get(address, limit)
    return caught.value


@pytest.mark.parametrize("url", ["file://{}/results", "file://{}/new/folders/", "memory://results"])
async def test_what_was_put_can_be_got(url: str, tmp_path: Path) -> None:
    artifacts = Artifacts(url.format(tmp_path))
    address = await artifacts.put("a.json", "春".encode())
    assert address == f"{url.format(tmp_path).rstrip('/')}/a.json"
    assert await artifacts.get(address, 3) == "春".encode()


async def test_it_may_be_put_again(artifacts: Artifacts) -> None:
    """A broker delivers a request again, and the result is the same or a newer one."""
    assert await artifacts.put("a", b"a long first one") == await artifacts.put("a", b"second")
    assert await artifacts.get(f"{artifacts.url}/a", 100) == b"second"


async def test_a_replica_reads_what_another_has_written(artifacts: Artifacts) -> None:
    address = await artifacts.put("a", b"x")
    assert await Artifacts(artifacts.url).get(address, 1) == b"x"


async def test_more_than_the_limit_is_refused_and_not_read(artifacts: Artifacts) -> None:
    address = await artifacts.put("a", b"x" * 101)
    error = await refused(artifacts, address, 100)
    assert error.kind is problems.RESULT_TOO_LARGE
    assert "100 bytes" in str(error)
    assert len(await artifacts.get(address, 101)) == 101


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/passwd",
        "{root}/secret",
        "{url}",
        "{url}-of-others/secret",
        "{url}/../secret",
        "{url}/x/../../secret",
        "{url}/x::file://{root}/secret",
        "s3://results/a",
        "a",
        "",
    ],
)
async def test_what_lies_elsewhere_is_not_read(artifacts: Artifacts, tmp_path: Path, address: str) -> None:
    """A dataref comes with an event, and could name any file of this container."""
    (tmp_path / "secret").write_bytes(b"x")
    error = await refused(artifacts, address.format(url=artifacts.url, root=f"file://{tmp_path}"))
    assert error.kind is problems.FORBIDDEN
    assert "dataref" in str(error)


@pytest.mark.parametrize("name", ["../a", "x/../../a", "a::memory://b"])
async def test_nothing_is_written_elsewhere(artifacts: Artifacts, tmp_path: Path, name: str) -> None:
    with pytest.raises(ProblemError) as caught:
        await artifacts.put(name, b"x")
    assert caught.value.kind is problems.FORBIDDEN
    assert not (tmp_path / "a").exists()


async def test_what_is_not_there_may_come(artifacts: Artifacts) -> None:
    """Object stores and network folders show a file to all replicas only after a while."""
    error = await refused(artifacts, f"{artifacts.url}/missing")
    assert error.kind is problems.UNAVAILABLE
    assert error.headers == {"Retry-After": "5"}
    assert "could not be read: FileNotFoundError" in str(error)


async def test_what_cannot_be_written_is_said(artifacts: Artifacts, tmp_path: Path) -> None:
    (tmp_path / "results").write_bytes(b"a file where the folder should be")
    with pytest.raises(ProblemError) as caught:
        await artifacts.put("a", b"x")
    assert caught.value.kind is problems.UNAVAILABLE
    assert "could not be written" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "'' is no address such as file:///mnt/artifacts or s3://bucket/folder"),
        ("/mnt/artifacts", "is no address"),
        ("://artifacts", "is no address"),
        ("file:///", "is no address"),
        ("simplecache::file:///mnt", "is no address"),
        ("floppy://a/b", "floppy:// cannot be used here: Protocol not known: floppy"),
    ],
)
def test_an_address_that_cannot_be_used_is_one_line(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        Artifacts(url)
    assert "\n" not in str(caught.value)
