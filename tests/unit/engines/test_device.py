"""Tests of the choice of a device, for machines that are described rather than there."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from diarist.engines import device, device_probe
from diarist.engines.cuda_driver import DriverError, Gpu
from diarist.engines.device import COREML, CPU, LIBRARIES, Device, Machine, choose, describe_machine, onnxruntime_clash
from diarist.engines.device_probe import probe_machine
from diarist.errors import ConfigurationError, EngineUnavailable

BIG = Gpu(0, "NVIDIA Big", 24 << 30, (9, 0))
SMALL = Gpu(1, "NVIDIA Small", 6 << 30, (7, 5))
FIRST, SECOND = Device("cuda", 0, "cuda:0 (NVIDIA Big)"), Device("cuda", 1, "cuda:1 (NVIDIA Small)")

NOTHING = Machine()
TWO = Machine((BIG, SMALL))
NO_DRIVER = Machine(driver_problem="NVIDIA's driver is not installed. Install it.")
NO_CUDNN = Machine((BIG,), problems={"onnxruntime": "libcudnn.so.9 cannot be loaded. Install the extra `gpu`."})
MAC = Machine(has_coreml=True)


@pytest.mark.parametrize("library", ["ctranslate2", "onnxruntime"])
@pytest.mark.parametrize(
    ("setting", "machine", "expected"),
    [
        ("cpu", NOTHING, CPU),
        ("cpu", TWO, CPU),
        ("cpu", NO_DRIVER, CPU),
        ("auto", NOTHING, CPU),
        ("auto", MAC, CPU),
        ("auto", TWO, FIRST),
        ("cuda", TWO, FIRST),
        ("cuda:0", TWO, FIRST),
        ("cuda:1", TWO, SECOND),
    ],
)
def test_the_device_of_every_library(library, setting, machine, expected):
    choice = choose(setting, library, machine)
    assert (choice.device, choice.notice) == (expected, None)


def test_auto_uses_the_gpu_for_what_can_use_it_and_says_what_cannot():
    assert choose("auto", "ctranslate2", NO_CUDNN).device == FIRST
    choice = choose("auto", "onnxruntime", NO_CUDNN)
    assert choice.device == CPU
    assert choice.notice == (
        "This machine has a GPU, but ONNX models run on the CPU: libcudnn.so.9 cannot be loaded. Install the extra"
        " `gpu`. Set DEVICE to cpu if this is intended."
    )


@pytest.mark.parametrize("library", ["ctranslate2", "onnxruntime"])
def test_auto_with_a_driver_that_fails_uses_the_cpu_and_says_so(library):
    choice = choose("auto", library, NO_DRIVER)
    assert choice.device == CPU
    assert choice.notice.startswith(
        "This machine has a GPU, but models run on the CPU: NVIDIA's driver is not installed."
    )


@pytest.mark.parametrize("setting", ["cuda", "cuda:0", "cuda:3"])
def test_a_gpu_that_was_asked_for_and_cannot_be_used_is_an_error(setting):
    with pytest.raises(EngineUnavailable, match=rf"DEVICE={setting}: NVIDIA's driver is .*set DEVICE to auto or cpu"):
        choose(setting, "ctranslate2", NO_DRIVER)
    with pytest.raises(EngineUnavailable, match=rf"DEVICE={setting}: libcudnn\.so\.9 .*extra `gpu`"):
        choose(setting, "onnxruntime", NO_CUDNN)


@pytest.mark.parametrize(
    ("setting", "machine", "count"),
    [("cuda", NOTHING, "0 GPUs"), ("cuda:1", NO_CUDNN, "1 GPU "), ("cuda:2", TWO, "2 GPUs")],
)
def test_a_gpu_that_does_not_exist_is_an_error(setting, machine, count):
    with pytest.raises(ConfigurationError, match=rf"DEVICE={setting}: NVIDIA's driver reports {count}"):
        choose(setting, "ctranslate2", machine)


def test_core_ml_runs_onnx_models_alone():
    assert choose("coreml", "onnxruntime", MAC).device == COREML
    assert choose("coreml", "ctranslate2", MAC).device == CPU


@pytest.mark.parametrize("library", ["ctranslate2", "onnxruntime"])
def test_core_ml_elsewhere_is_an_error(library):
    with pytest.raises(ConfigurationError, match=r"DEVICE=coreml: .*macOS only"):
        choose("coreml", library, TWO)


def test_every_part_without_pytorch_has_its_library():
    from diarist.engines import registry

    without_pytorch = {n for n, path in {**registry.DIARIZERS, **registry.RECOGNIZERS}.items() if ".nemo." not in path}
    assert without_pytorch == LIBRARIES.keys()


@pytest.fixture
def machine(monkeypatch) -> Any:
    """Set what the driver and the libraries report; by default, one GPU that all can use."""
    describe_machine.cache_clear()

    def replace(gpus: Any = (BIG,), visible: tuple[str, ...] = ("0",), **others: Any) -> Machine:
        def usable() -> tuple[Gpu, ...]:
            if isinstance(gpus, Exception):
                raise gpus
            return gpus

        monkeypatch.setattr(device, "visible_gpus", lambda _environment: visible)
        monkeypatch.setattr(device, "usable_gpus", usable)
        monkeypatch.setattr(
            device, "load_libraries", lambda names: [n for n in names if n in others.get("missing", ())]
        )
        monkeypatch.setattr("ctranslate2.get_cuda_device_count", lambda: others.get("count", 1))
        monkeypatch.setattr("ctranslate2.get_supported_compute_types", lambda _kind, _index: {"int8", "float16"})
        providers = others.get("providers", ["CUDAExecutionProvider", "CPUExecutionProvider"])
        monkeypatch.setattr("onnxruntime.get_available_providers", lambda: providers)
        monkeypatch.setattr("diarist.engines.onnx.session.cuda_problem", lambda: others.get("cuda_problem"))
        describe_machine.cache_clear()
        return describe_machine(others.get("setting", "auto"))

    yield replace
    describe_machine.cache_clear()


def test_a_machine_where_everything_works(machine):
    assert machine() == Machine((BIG,), compute_types=(("float16", "int8"),))


def test_a_machine_without_a_gpu_has_no_problem_unless_one_is_asked_for(machine):
    assert machine(gpus=DriverError("no driver"), visible=()) == Machine()
    assert machine(gpus=DriverError("no driver"), visible=(), setting="cuda").driver_problem.startswith("no driver. ")


def test_nothing_is_examined_if_the_cpu_is_selected(machine):
    assert machine(gpus=DriverError("no driver"), setting="cpu") == Machine()


def test_a_driver_that_fails_is_described(machine):
    described = machine(gpus=DriverError("NVIDIA's driver cannot be used (error 803)"))
    assert described.gpus == ()
    assert described.driver_problem.startswith("NVIDIA's driver cannot be used (error 803). Install NVIDIA's driver")


def test_each_library_has_its_own_problem(machine):
    described = machine(missing=("libcudnn.so.9", "libcurand.so.10"))
    assert dict(described.problems) == {
        "onnxruntime": "libcurand.so.10 and libcudnn.so.9 cannot be loaded. Install the extra `gpu` as docs/gpu.md"
        " says."
    }
    described = machine(missing=("libcublas.so.12",), providers=["CPUExecutionProvider"])
    assert described.problems["ctranslate2"].startswith("libcublas.so.12 cannot be loaded")
    assert described.problems["onnxruntime"].startswith("ONNX Runtime is installed in its build for the CPU")
    assert described.compute_types == ()
    assert "finds no GPU" in machine(count=0).problems["ctranslate2"]
    assert "cannot use CUDA (CUDA failure 35)." in machine(cuda_problem="CUDA failure 35").problems["onnxruntime"]


def test_core_ml_is_what_onnx_runtime_says_it_has(machine):
    assert machine(setting="coreml", providers=["CoreMLExecutionProvider"]).has_coreml
    assert not machine(setting="coreml").has_coreml


def test_both_builds_of_onnx_runtime_are_a_clash(monkeypatch, machine):
    versions = {"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.26.0"}
    monkeypatch.setattr(device, "_version", versions.get)
    clash = onnxruntime_clash()
    assert "pip uninstall -y onnxruntime`" in clash
    assert "pip install --no-deps --force-reinstall onnxruntime-gpu==1.26.0" in clash
    assert machine(providers=["CPUExecutionProvider"]).problems["onnxruntime"] == clash
    del versions["onnxruntime"]
    assert onnxruntime_clash() is None


def test_another_process_describes_the_same_machine(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert probe_machine("auto") == Machine()


def test_a_description_survives_the_way_between_processes(monkeypatch):
    described = Machine((BIG, SMALL), problems={"onnxruntime": "a\nproblem"}, compute_types=(("float16",), ("int8",)))
    text = f"a line that a library prints\n{json.dumps(device_probe.asdict(described))}\n"
    monkeypatch.setattr(subprocess, "run", lambda *_args, **_options: subprocess.CompletedProcess([], 0, text, ""))
    assert probe_machine("auto") == described


def test_a_library_that_takes_its_process_down_is_an_error(monkeypatch, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import os; os.abort()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(EngineUnavailable, match=r"libraries for GPUs fail \(status -6\)"):
        probe_machine("auto")
