"""Which device is served on, and in which type: never another one than was asked for, and one line says why."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch

from predictor.errors import ModelError
from predictor.loading import device
from predictor.loading.device import choose_device, choose_dtype
from predictor.text.checkpoint import load_checkpoint

DRIVER = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC version: 12\n"
TOO_OLD = "The NVIDIA driver on your system is too old (found version 12020)."


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The root folder of a machine with a GPU and its driver."""
    version = tmp_path / "proc/driver/nvidia/version"
    version.parent.mkdir(parents=True)
    version.write_text(DRIVER)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    return tmp_path


@pytest.fixture
def unusable_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch built for CUDA 13 that cannot use it."""

    def init() -> None:
        raise RuntimeError(f"{TOO_OLD}\nPlease update your GPU driver.")

    monkeypatch.setattr(torch, "__version__", "2.13.0+cu130")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", init)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


NEEDED = "torch 2.13.0+cu130 needs CUDA 13.0, and so an NVIDIA driver 580 or newer"


def refusal(asked: str, root: Path) -> str:
    with pytest.raises(ModelError) as refused:
        choose_device(asked, root)
    return str(refused.value)


@pytest.mark.usefixtures("unusable_cuda")
@pytest.mark.parametrize("asked", ["cuda", "cuda:1"])
def test_cuda_with_an_old_driver_is_refused_in_one_line(machine: Path, asked: str) -> None:
    said = f"the device {asked} cannot be used: {NEEDED}; here is driver 535.104.05 ({TOO_OLD})"
    assert refusal(asked, machine) == said


@pytest.mark.usefixtures("unusable_cuda")
@pytest.mark.parametrize(
    ("text", "driver"),
    [
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (x@y)\n", "570.86.15"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  550.54  Release Build\n", "550.54"),
        ("something else\n", "of unknown version"),
    ],
)
def test_the_version_of_the_driver_is_read_from_any_of_its_modules(machine: Path, text: str, driver: str) -> None:
    (machine / "proc/driver/nvidia/version").write_text(text)
    assert f"here is driver {driver} (" in refusal("cuda", machine)


@pytest.mark.usefixtures("unusable_cuda")
def test_cuda_without_a_driver_is_refused(tmp_path: Path) -> None:
    said = f"the device cuda cannot be used: there is no NVIDIA driver here; {NEEDED}"
    assert refusal("cuda", tmp_path) == said


def test_cuda_with_a_torch_for_cpus_is_refused(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.13.0+cpu")
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said = "torch 2.13.0+cpu is built without it; install a build that has it"
    assert refusal("cuda", machine) == f"the device cuda cannot be used: {said}"


@pytest.mark.usefixtures("unusable_cuda")
def test_auto_says_when_it_passes_a_gpu_over(machine: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert choose_device("auto", machine) == "cpu"
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "535.104.05" in record.message
    assert NEEDED in record.message

    caplog.clear()
    (machine / "dev/nvidia0").unlink()  # the node has a driver, and this pod was given no GPU
    assert choose_device("auto", machine) == "cpu"
    assert not caplog.records


@pytest.mark.usefixtures("two_gpus")
def test_what_is_there_is_taken(tmp_path: Path) -> None:
    assert [choose_device(asked, tmp_path) for asked in ("auto", "cuda", "cuda:1", "cpu", "cpu:0")] == [
        *("cuda", "cuda", "cuda:1"),
        *("cpu", "cpu"),
    ]
    assert refusal("cuda:2", tmp_path) == "there is no device cuda:2: torch sees 2, the last of them cuda:1"
    assert refusal("gpu", tmp_path).startswith("there is no device 'gpu': ")


@pytest.mark.parametrize(
    ("asked", "stored", "on", "has_bfloat16", "chosen"),
    [
        ("auto", "float32", "cuda:1", True, "bfloat16"),
        ("auto", "float32", "cuda", False, "auto"),
        ("auto", "float16", "cuda", True, "auto"),
        ("auto", "bfloat16", "cuda", True, "auto"),
        ("auto", None, "cuda", True, "auto"),
        ("auto", "bfloat16", "cpu", False, "float32"),
        ("float32", "float32", "cuda", True, "float32"),
        ("float16", "bfloat16", "cpu", False, "float16"),
    ],
)
def test_the_type_of_numbers(asked: str, stored: str | None, on: str, has_bfloat16: bool, chosen: str) -> None:
    assert choose_dtype(asked, stored, on, has_bfloat16) == chosen


@pytest.mark.parametrize("says", ["config", "weights"])
def test_a_float32_checkpoint_is_served_in_bfloat16_on_a_gpu(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, says: str
) -> None:
    """The device "meta" stands for the GPU that is not here."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    assert config.pop("dtype") == "float32"
    if says == "weights":
        (folder / "config.json").write_text(json.dumps(config))
    chosen = device.served_dtype
    monkeypatch.setattr(device, "_has_bfloat16", lambda _device: True)
    monkeypatch.setattr(
        device, "served_dtype", lambda asked, stored, _device, config: chosen(asked, stored, "cuda:0", config)
    )
    monkeypatch.setattr(device, "choose_device", lambda _asked: "meta")

    with caplog.at_level(logging.INFO, device.__name__):
        model = load_checkpoint(str(folder), "cuda:0", "auto", lambda _phase: None).model

    assert model.dtype == torch.bfloat16
    said = "a float32 checkpoint is served in bfloat16, which cuda:0 computes; --dtype float32 keeps it"
    assert caplog.messages == [said]
