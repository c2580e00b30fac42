"""Quantized LSTM layers give nearly what the same layers give in float32."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from diarist.engines.onnx.quantized_lstm import DOMAIN, quantize_lstms
from diarist.engines.onnx.session import open_graph

INPUTS, UNITS, STEPS, BATCH = 24, 32, 40, 3


def lstm(directions, *, bias=True, scale=0.3, seed=0):
    """Return the nodes and the weights of a graph from ``x`` to ``y`` with one LSTM layer and a Relu."""
    rng = np.random.default_rng(seed)
    shapes = {"w": (directions, 4 * UNITS, INPUTS), "r": (directions, 4 * UNITS, UNITS)}
    if bias:
        shapes["b"] = (directions, 8 * UNITS)
    arrays = {name: (rng.normal(size=shape) * scale).astype(np.float32) for name, shape in shapes.items()}
    direction = "bidirectional" if directions == 2 else "forward"
    nodes = [
        helper.make_node("LSTM", ["x", *arrays], ["h"], direction=direction, hidden_size=UNITS),
        helper.make_node("Relu", ["h"], ["y"]),
    ]
    return nodes, {name: numpy_helper.from_array(array, name) for name, array in arrays.items()}


def run(nodes, weights):
    x = np.random.default_rng(1).normal(size=(STEPS, BATCH, INPUTS)).astype(np.float32)
    values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, None, INPUTS])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4)]
    graph = helper.make_graph(nodes, "lstm", values, outputs, list(weights.values()))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return open_graph(model.SerializeToString(), 1).run(None, {"x": x})[0]


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_are_nearly_the_same(directions, bias):
    nodes, weights = lstm(directions, bias=bias)
    expected, found = run(nodes, weights), run(*quantize_lstms(nodes, weights))
    assert expected.std() > 0.1
    assert 0 < np.abs(found - expected).max() < 0.06
    assert np.abs(found - expected).mean() < 0.006


def test_gates_of_different_sizes_keep_their_precision():
    nodes, weights = lstm(2)
    factors = np.geomspace(1e-3, 1.0, 4 * UNITS).astype(np.float32)[None, :, None]
    weights["w"] = numpy_helper.from_array(numpy_helper.to_array(weights["w"]) * factors, "w")
    expected, found = run(nodes, weights), run(*quantize_lstms(nodes, weights))
    assert np.abs(found - expected).mean() < 0.006


def test_weights_of_zero_stay_zero():
    nodes, weights = lstm(2, scale=0.0)
    assert not run(*quantize_lstms(nodes, weights)).any()


def test_neighboring_weights_cannot_overflow_16_bits():
    nodes, weights = lstm(2)
    _, tensors = quantize_lstms(nodes, weights)
    for name in ("w", "r"):
        sizes = np.abs(numpy_helper.to_array(tensors[f"{name}.int8"]).astype(int))  # (directions, inputs, 4 * units)
        neighbors = np.sort(sizes.reshape(2, -1, 4, 4 * UNITS), axis=2)[:, :, -2:].sum(axis=2)
        assert 120 < neighbors.max() * 255 / 256 < 128
        assert neighbors.max() * 255 <= np.iinfo(np.int16).max


def test_only_lstms_change():
    nodes, weights = lstm(1)
    replaced, tensors = quantize_lstms(nodes, weights)
    assert [node.op_type for node in replaced] == ["DynamicQuantizeLSTM", "Relu"]
    assert replaced[1] == nodes[1]
    assert tensors["b"] == weights["b"]
    assert set(weights) == {"w", "r", "b"}
    assert quantize_lstms(nodes[1:], weights) == (nodes[1:], weights)
