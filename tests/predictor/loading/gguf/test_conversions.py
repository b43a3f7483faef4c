"""Conversions are made once and kept: by one start at a time, whole or not at all, and a few of them."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import threading
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from predictor.errors import ModelError
from predictor.loading.cache_folders import CacheFolders
from predictor.loading.gguf import conversions, temporary_folder
from predictor.loading.gguf.conversions import KEPT, conversion_key, converted, read_conversion
from predictor.loading.gguf.folder_lock import FolderLock
from predictor.loading.gguf.header import GgufHeader, read_header
from predictor.loading.gguf.temporary_folder import remove_temporary_folder
from tests.predictor.loading.gguf.tiny_files import random_model, write_gguf
from tests.support.waiting import SECONDS, wait_until

PEAK = 123


class Program:
    """In the place of the one that converts."""

    def __init__(self) -> None:
        self.files: list[Path] = []
        self.during: Callable[[Path], None] = lambda _folder: None

    def run(self, file: Path, folder: Path, report: Callable[[int], None]) -> int:
        self.files.append(file)
        (folder / "config.json").write_text("{}")
        self.during(folder)
        report(40)
        (folder / "model.safetensors").write_text(file.name)
        return PEAK


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Program:
    program = Program()
    monkeypatch.setattr(conversions, "run_conversion", program.run)
    return program


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "gguf"


@pytest.fixture
def folders(place: Path) -> CacheFolders:
    return CacheFolders([place.parent], [place.parent])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("written") / "it.gguf", random_model())


@pytest.fixture
def header(written: Path) -> GgufHeader:
    return read_header(written)


def others(written: Path, folder: Path, count: int) -> list[GgufHeader]:
    """Files of other contents."""
    headers = []
    for number in range(count):
        file = folder / f"{number}.gguf"
        file.write_bytes(written.read_bytes().replace(b"<|im_end|>\n", b"<|im_end|>%d" % number))
        headers.append(read_header(file))
    return headers


def convert(header: GgufHeader, folders: CacheFolders) -> tuple[Path, list[str]]:
    """The folder, and the phases that were reported."""
    phases: list[str] = []
    with converted(header, folders, phases.append) as folder:
        assert (folder / "model.safetensors").is_file()
        return folder, phases


def test_a_file_is_converted_once_wherever_it_lies(
    program: Program, header: GgufHeader, folders: CacheFolders, place: Path, tmp_path: Path
) -> None:
    folder, phases = convert(header, folders)
    assert phases == ["converting the GGUF file", "converting the GGUF file, 40 %"]
    assert folder == place / conversion_key(header)
    clone = tmp_path / "clone.gguf"
    shutil.copyfile(header.path, clone)
    assert convert(read_header(clone), folders) == (folder, [])
    assert program.files == [header.path]


def test_what_was_written_is_recorded(program: Program, header: GgufHeader, folders: CacheFolders) -> None:
    folder, _ = convert(header, folders)
    known = read_conversion(folder)
    assert known is not None
    assert (sorted(known.files), known.peak_bytes, known.size) == (["config.json", "model.safetensors"], PEAK, 9)
    expected = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"  # of {}
    assert known.files["config.json"].sha256 == expected


@pytest.mark.parametrize("harm", ["shorter", "missing", "no record", "a foreign record"])
def test_what_does_not_fit_its_record_is_converted_anew(
    harm: str, program: Program, header: GgufHeader, folders: CacheFolders
) -> None:
    folder, _ = convert(header, folders)
    match harm:
        case "shorter":
            (folder / "model.safetensors").write_text("it")
        case "missing":
            (folder / "config.json").unlink()
        case "no record":
            (folder / "conversion.json").unlink()
        case _:
            (folder / "conversion.json").write_text('{"files": {}, "peak_bytes": 1}')
    assert convert(header, folders)[0] == folder
    assert read_conversion(folder) is not None
    assert len(program.files) == 2


def test_two_starts_at_once_convert_once_and_the_other_one_says_that_it_waits(
    program: Program, header: GgufHeader, folders: CacheFolders
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def hold(_folder: Path) -> None:
        begun.set()
        go_on.wait(SECONDS)

    program.during = hold
    first = threading.Thread(target=convert, args=(header, folders))
    first.start()
    assert begun.wait(SECONDS)
    phases: list[str] = []

    def wait() -> None:
        with converted(header, folders, phases.append):
            pass

    second = threading.Thread(target=wait)
    second.start()
    wait_until(lambda: bool(phases), "the second start to wait")
    go_on.set()
    for thread in (first, second):
        thread.join(SECONDS)
    assert phases == ["waiting for another start to convert the GGUF file"]
    assert len(program.files) == 1


def test_starts_that_load_do_not_wait_for_each_other(
    program: Program, header: GgufHeader, folders: CacheFolders
) -> None:
    with converted(header, folders, lambda _phase: None) as folder:
        assert convert(header, folders) == (folder, [])


def _convert_and_die(header: GgufHeader, folders: CacheFolders) -> None:
    def die(_file: Path, folder: Path, _report: object) -> int:
        (folder / "model.safetensors").write_text("half")
        os.kill(os.getpid(), 9)
        return 0

    setattr(conversions, "run_conversion", die)  # noqa: B010  in this process alone
    convert(header, folders)


def test_a_killed_start_leaves_nothing_in_the_way(
    program: Program, written: Path, tmp_path: Path, folders: CacheFolders, place: Path
) -> None:
    killed, other = others(written, tmp_path, 2)
    process = multiprocessing.get_context("fork").Process(target=_convert_and_die, args=(killed, folders))
    process.start()
    process.join(SECONDS)
    assert process.exitcode == -9
    assert len(list(place.glob(".*"))) == 1
    folder, phases = convert(other, folders)
    assert phases[0] == "converting the GGUF file", "it waits for nobody"
    assert sorted(path.name for path in place.iterdir()) == [folder.name, f"{folder.name}.lock"]
    convert(killed, folders)


def test_a_conversion_that_fails_leaves_nothing(
    program: Program, header: GgufHeader, folders: CacheFolders, place: Path
) -> None:
    def fail(_folder: Path) -> None:
        raise ModelError("no")

    program.during = fail
    with pytest.raises(ModelError, match="no"):
        convert(header, folders)
    assert list(place.iterdir()) == []


def test_a_few_are_kept_and_the_one_that_is_unused_for_longest_is_forgotten(
    program: Program, written: Path, tmp_path: Path, folders: CacheFolders, place: Path
) -> None:
    headers = others(written, tmp_path, KEPT + 2)
    kept = [convert(header, folders)[0] for header in headers[:KEPT]]
    for age, folder in enumerate(kept):
        os.utime(folder / "conversion.json", ns=(age, age))
    convert(headers[0], folders)  # used again
    with converted(headers[1], folders, lambda _phase: None) as used:  # the oldest in use
        os.utime(used / "conversion.json", ns=(0, 0))
        kept.append(convert(headers[KEPT], folders)[0])
        assert used.is_dir()
    kept.append(convert(headers[KEPT + 1], folders)[0])
    left = {path.name.removesuffix(".lock") for path in place.iterdir()}
    assert left == {kept[0].name, *(folder.name for folder in kept[-3:])}
    assert len(left) == KEPT


def test_a_disk_without_space_is_told_before_anything_is_written(
    program: Program, header: GgufHeader, folders: CacheFolders, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _place: usage(100_000))
    with pytest.raises(ModelError) as refused:
        convert(header, folders)
    assert str(refused.value) == (
        f"the conversion of {header.path} takes 0.5 MB in {place}, where 0.1 MB are free: --cache-folder "
        "(PREDICTOR_CACHE_FOLDER) can name "
        "another folder"
    )
    assert program.files == []


def test_one_that_came_with_the_model_is_used_without_a_lock(
    program: Program, header: GgufHeader, folders: CacheFolders, place: Path, tmp_path: Path
) -> None:
    folder, _ = convert(header, folders)
    own = tmp_path / "own"
    assert convert(header, CacheFolders([own, place.parent], [own])) == (folder, [])
    assert not (own / "gguf" / f"{folder.name}.lock").exists()


def test_without_a_folder_it_lives_as_long_as_the_process_and_the_log_says_so(
    program: Program,
    header: GgufHeader,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    (tmp_path / "file").touch()
    abandoned = tmp_path / "tmp" / f"{temporary_folder.PREFIX}abandoned"
    abandoned.mkdir()
    os.utime(abandoned, (0, 0))
    cannot = CacheFolders([tmp_path / "file"], [tmp_path / "file"])
    folder, _ = convert(header, cannot)
    assert f"there is no cache folder: the converted GGUF file is in {folder.parent} while" in caplog.text
    assert convert(header, CacheFolders((), ())) == (folder, []), "a model that wakes up"
    assert not abandoned.exists()
    os.utime(folder.parent, (0, 0))
    temporary_folder._remove_abandoned()
    assert folder.exists(), "this process runs"
    remove_temporary_folder()
    assert list((tmp_path / "tmp").iterdir()) == []
    remove_temporary_folder()


def test_a_lock_is_of_the_folder_that_is_there(tmp_path: Path) -> None:
    first, second = FolderLock(tmp_path / "it"), FolderLock(tmp_path / "it")
    assert first.try_to_own()
    assert not second.try_to_own()
    first.remove()
    assert second.try_to_own(), "of a new file"
    first.release()
    first.share(lambda: second.release())
    assert not second.try_to_own()


def test_the_log_says_where_a_conversion_is(
    program: Program, header: GgufHeader, folders: CacheFolders, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    folder, _ = convert(header, folders)
    assert f"the conversion of {header.path} is in {folder}" in caplog.text
