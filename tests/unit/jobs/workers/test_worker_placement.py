from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import pytest

from diarist.engines import registry
from diarist.engines.cuda_driver import Gpu
from diarist.engines.device import Machine
from diarist.errors import EngineUnavailable
from diarist.jobs.workers import worker_placement
from diarist.jobs.workers.worker_placement import NEMO_DIARIZERS, NEMO_RECOGNIZERS, may_use_gpus, worker_slots

TWO = {"CUDA_VISIBLE_DEVICES": "4,GPU-7"}
GPUS = (Gpu(0, "A", 1, (8, 0)), Gpu(1, "B", 1, (8, 0)))
NO_CUBLAS = Machine(GPUS, problems={"ctranslate2": "libcublas.so.12 is missing"})
NO_LIBRARIES = Machine(GPUS, problems={"ctranslate2": "libcublas.so.12 is missing", "onnxruntime": "a CPU build"})
NO_DRIVER = Machine(driver_problem="NVIDIA's driver cannot be used")


@pytest.fixture(autouse=True)
def machine(monkeypatch) -> Callable[[Machine | Exception], None]:
    """Set what the other process finds out about the GPUs; by default, that their libraries are missing."""

    def replace(found: Machine | Exception) -> None:
        def probe(_setting: str, environment: Mapping[str, str]) -> Machine:
            assert environment == TWO, "nothing is examined unless there are several GPUs"
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setattr(worker_placement, "probe_machine", probe)

    replace(NO_LIBRARIES)
    return replace


def gpus(settings, environment=TWO) -> list[str | None]:
    return [slot.gpu for slot in worker_slots(settings, environment)]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, [None]),
        ({"engine": "nemo"}, ["4", "GPU-7"]),
        ({"engine": "nemo", "nemo_device": "cuda"}, ["4", "GPU-7"]),
        ({"engine": "nemo", "nemo_device": "cuda:1"}, [None]),
        ({"engine": "nemo", "nemo_device": "cpu"}, [None]),
        ({"engine": "nemo", "device": "cpu"}, [None]),
        ({"engine": "nemo", "device": "cpu", "nemo_device": "cuda"}, ["4", "GPU-7"]),
        ({"engine": "nemo", "device": "coreml"}, [None]),
        ({"device": "cuda"}, ["4", "GPU-7"]),
        ({"device": "cuda", "recognizer": "onnx", "diarizer": "onnx"}, ["4", "GPU-7"]),
        ({"device": "cuda:1"}, [None]),
        ({"device": "cpu"}, [None]),
        ({"diarizer": "sortformer"}, ["4", "GPU-7"]),
        ({"recognizer": "nemo"}, ["4", "GPU-7"]),
        ({"engine": "nemo", "diarizer": "embedded", "recognizer": "whisper"}, [None]),
        ({"engine": "nemo", "workers": 1}, ["4"]),
        ({"engine": "nemo", "workers": 5}, ["4", "GPU-7", "4", "GPU-7", "4"]),
        ({"engine": "nemo", "nemo_device": "cuda:1", "workers": 2}, [None, None]),
        ({"workers": 3}, [None] * 3),
    ],
)
def test_there_is_one_slot_per_usable_gpu_by_default(make_settings, chosen, expected):
    assert gpus(make_settings(**chosen)) == expected


@pytest.mark.parametrize(("visible", "expected"), [("", [None]), ("4", [None])])
def test_a_single_gpu_is_not_assigned_explicitly(make_settings, visible, expected):
    assert gpus(make_settings(engine="nemo"), {"CUDA_VISIBLE_DEVICES": visible}) == expected


def test_each_slot_sees_only_its_own_gpu(make_settings):
    first, second = worker_slots(make_settings(engine="nemo"), TWO)
    assert first.environment == {**os.environ, "CUDA_VISIBLE_DEVICES": "4"}
    assert second.environment == {**os.environ, "CUDA_VISIBLE_DEVICES": "GPU-7"}
    assert worker_slots(make_settings(), TWO)[0].environment == os.environ
    assert [first.number, second.number] == [0, 1]


def test_cores_are_divided_unless_cpu_threads_is_set(make_settings, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)), raising=False)

    def threads(**chosen: object) -> list[int]:
        return [slot.settings.threads for slot in worker_slots(make_settings(**chosen), {})]

    assert threads() == [8]
    assert threads(workers=1) == [8]
    assert threads(workers=3) == [4] * 3
    assert threads(workers=20) == [1] * 20
    assert threads(workers=3, cpu_threads=7) == [7] * 3


@pytest.mark.parametrize(
    ("found", "chosen", "expected"),
    [
        (Machine(GPUS), {}, ["4", "GPU-7"]),
        (NO_CUBLAS, {}, ["4", "GPU-7"]),
        (NO_CUBLAS, {"diarizer": "sortformer", "nemo_device": "cpu"}, [None]),
        (NO_LIBRARIES, {}, [None]),
        (NO_LIBRARIES, {"workers": 3}, [None] * 3),
        (NO_LIBRARIES, {"diarizer": "sortformer"}, ["4", "GPU-7"]),
        (NO_DRIVER, {}, [None]),
        (EngineUnavailable("the libraries crash"), {}, [None]),
    ],
)
def test_auto_starts_a_worker_per_gpu_only_if_the_gpus_are_used(make_settings, machine, found, chosen, expected):
    machine(found)
    assert gpus(make_settings(**chosen)) == expected


def test_the_reason_for_a_single_worker_is_logged(make_settings, machine, caplog):
    machine(EngineUnavailable("The libraries for GPUs fail (status -11)."))
    gpus(make_settings())
    assert "One worker is started for all GPUs: The libraries for GPUs fail (status -11)." in caplog.text


def test_nemo_device_applies_to_nemo_alone(make_settings):
    for name in registry.DIARIZERS:
        chosen = make_settings(diarizer=name, device="cpu", nemo_device="auto")
        assert may_use_gpus(chosen) == (name in NEMO_DIARIZERS)
    for name in registry.RECOGNIZERS:
        chosen = make_settings(recognizer=name, device="cpu", nemo_device="auto")
        assert may_use_gpus(chosen) == (name in NEMO_RECOGNIZERS)
    assert set(registry.DIARIZERS) - set(NEMO_DIARIZERS) == {"embedded", "community-1", "onnx"}
    assert set(registry.RECOGNIZERS) - set(NEMO_RECOGNIZERS) == {"whisper", "onnx"}
