from __future__ import annotations

import os

import pytest

from diarist.engines import registry
from diarist.jobs.workers.worker_placement import NEMO_DIARIZERS, NEMO_RECOGNIZERS, may_use_gpus, worker_slots

TWO = {"CUDA_VISIBLE_DEVICES": "4,GPU-7"}


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
    assert worker_slots(make_settings(), TWO)[0].environment is None
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


def test_only_nemo_diarizers_and_recognizers_may_use_gpus(make_settings):
    for name in registry.DIARIZERS:
        assert may_use_gpus(make_settings(diarizer=name)) == (name in NEMO_DIARIZERS)
    for name in registry.RECOGNIZERS:
        assert may_use_gpus(make_settings(recognizer=name)) == (name in NEMO_RECOGNIZERS)
    assert set(registry.DIARIZERS) - set(NEMO_DIARIZERS) == {"embedded", "community-1", "onnx"}
    assert set(registry.RECOGNIZERS) - set(NEMO_RECOGNIZERS) == {"whisper", "onnx"}
