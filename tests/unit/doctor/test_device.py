"""Tests of the check of the device, for machines that are described rather than there."""

from __future__ import annotations

import pytest

from diarist.doctor import device
from diarist.doctor.findings import run_concurrently
from diarist.engines.cuda_driver import Gpu
from diarist.engines.device import Machine
from diarist.settings import Settings

BIG = Gpu(0, "NVIDIA Big", 24 << 30, (8, 9))
BOTH = ("onnxruntime", "ctranslate2")


@pytest.fixture(autouse=True)
def one_build_of_onnxruntime(monkeypatch):
    monkeypatch.setattr(device, "onnxruntime_clash", lambda: None)


@pytest.fixture
def make(tmp_path):
    return lambda **changes: Settings(_env_file=None, data_dir=tmp_path / "data", **changes)


def test_a_gpu_that_everything_uses_is_described():
    found = device.describe_choice("auto", BOTH, Machine((BIG,), compute_types=(("float16", "int8"),)))
    assert found.level == "ok"
    assert found.message == (
        "ONNX models run on cuda:0 (NVIDIA Big); Whisper runs on cuda:0 (NVIDIA Big); cuda:0 (NVIDIA Big) has 24.0 GiB"
        " of memory and compute capability 8.9, and CTranslate2 supports float16, int8 there"
    )


def test_a_library_that_cannot_use_the_gpu_is_a_warning():
    machine = Machine((BIG,), problems={"onnxruntime": "libcudnn.so.9 cannot be loaded. Install the extra `gpu`."})
    found = device.describe_choice("auto", BOTH, machine)
    assert found.level == "warning"
    assert found.message.startswith("ONNX models run on cpu; Whisper runs on cuda:0 (NVIDIA Big)")
    assert "libcudnn.so.9 cannot be loaded. Install the extra `gpu`." in found.message
    assert device.describe_choice("auto", ("ctranslate2",), machine).level == "ok", "nothing needs that library"


def test_a_gpu_that_was_asked_for_and_cannot_be_used_is_an_error(make, monkeypatch):
    monkeypatch.setattr(
        device, "probe_machine", lambda _setting: Machine(driver_problem="The driver fails. Repair it.")
    )
    ((_, found),) = run_concurrently({"device": device.check_device}, make(device="cuda"))
    assert found.level == "error"
    assert "DEVICE=cuda: The driver fails. Repair it." in found.message


def test_both_builds_of_onnxruntime_are_a_warning(monkeypatch):
    monkeypatch.setattr(device, "onnxruntime_clash", lambda: "Run `pip uninstall -y onnxruntime`.")
    found = device.describe_choice("cpu", BOTH, Machine())
    assert found.level == "warning"
    assert "pip uninstall" in found.message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "ONNX models run on cpu; Whisper runs on cpu"),
        ({"device": "cpu"}, "ONNX models run on cpu; Whisper runs on cpu"),
        ({"engine": "nemo", "device": "cuda:1"}, "cuda:1: PyTorch examines it when NeMo's models are loaded"),
        ({"engine": "nemo", "nemo_device": "cpu", "diarizer": "embedded"}, "ONNX models run on cpu"),
    ],
)
def test_a_machine_without_a_gpu_is_ok(make, monkeypatch, changes, message):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = device.check_device(make(**changes))
    assert (found.level, found.message) == ("ok", message)
