"""Tests of ONNX Runtime sessions: which execution providers a device has, and that a session can be opened."""

from __future__ import annotations

import onnxruntime
import pytest

from diarist.engines.device import COREML, CPU, CUDA_PROVIDER, Device
from diarist.engines.onnx.session import CPU_PROVIDER, cuda_problem, open_graph, providers
from diarist.errors import EngineUnavailable


def test_the_cpu_has_its_provider_alone():
    assert providers(CPU) == [CPU_PROVIDER]


def test_a_gpu_comes_before_the_cpu_and_is_named_by_its_number():
    (name, options), fallback = providers(Device("cuda", 3, "cuda:3 (NVIDIA Big)"))
    assert (name, fallback) == (CUDA_PROVIDER, CPU_PROVIDER)
    assert options["device_id"] == "3"
    assert all(isinstance(value, str) for value in options.values()), "ONNX Runtime takes nothing else"


def test_core_ml_comes_before_the_cpu():
    assert providers(COREML) == ["CoreMLExecutionProvider", CPU_PROVIDER]


@pytest.mark.skipif(
    CUDA_PROVIDER in onnxruntime.get_available_providers(), reason="ONNX Runtime is installed in its build for GPUs"
)
def test_a_build_for_the_cpu_opens_nothing_on_a_gpu():
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"):
        assert cuda_problem() == "its library for CUDA cannot be loaded"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("CUDA failure 2: out of memory", r"titanet does not fit into the memory of cuda:0 \(NVIDIA Small\)"),
        ("CUDA failure 35", r"cannot open a model on cuda:0 \(NVIDIA Small\) \(CUDA failure 35\)"),
    ],
)
def test_a_gpu_that_fails_is_not_replaced_by_the_cpu(monkeypatch, tmp_path, message, expected):
    def fail(*_args: object, enable_fallback: int, **_options: object) -> None:
        assert enable_fallback == 0
        raise RuntimeError(message)

    monkeypatch.setattr(onnxruntime, "InferenceSession", fail)
    with pytest.raises(EngineUnavailable, match=expected):
        open_graph(tmp_path / "titanet" / "model.onnx", 1, Device("cuda", 0, "cuda:0 (NVIDIA Small)"))


def test_a_graph_is_opened_from_its_content():
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "negative", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = open_graph(model.SerializeToString(), 1)
    assert session.run(None, {"x": [3.0]})[0].tolist() == [-3.0]
    assert session.get_providers() == [CPU_PROVIDER]
