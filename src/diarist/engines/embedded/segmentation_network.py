"""The graph of segmentation-3.0 in two parts, so that what overlapping windows share is computed once.

The network starts with a normalization over the window, a bank of band-pass filters, and the maximum of the absolute
values of each three filter outputs. For windows that overlap by nine tenths this is half of the work, and everything
except the normalization is the same in every window. The normalization is ``gain * sample + offset``, and filters are
linear, so a filter's output is ``gain * filtered + offset * (sum of the filter)``. The maximum absolute value of three
outputs is ``gain * (|center + shift| + radius)``, where ``center`` and ``radius`` are the center and half the width of
the range of the three, and ``shift`` is the contribution of the window's mean and offset. Windows differ in ``gain``
and ``shift`` alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from diarist.engines.device import CPU, Device
from diarist.engines.onnx.session import open_graph
from diarist.types import Samples

FILTER_SAMPLES = 251
STRIDE_SAMPLES = 10
POOL_SIZE = 3
"""The number of consecutive filter outputs of which the maximum is kept."""

POOL_SAMPLES = STRIDE_SAMPLES * POOL_SIZE
"""The starts of windows in one block have to differ by multiples of this."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class FilteredBlock:
    """The filter outputs of a part of a recording."""

    samples: Samples
    """The samples minus their mean: a constant offset would leave too few digits for quiet sound."""

    center: Floats
    """Shape (filters, samples / 30)."""

    radius: Floats
    """Shape (filters, samples / 30)."""


class SegmentationNetwork:
    """The two parts as ONNX sessions. Several threads may use it at once.

    Args:
        path: The ONNX graph that ``diarist.models.segmentation_graph`` builds.
        threads: The number of threads of each call.
        device: The device that both parts run on.
    """

    def __init__(self, path: Path, threads: int, device: Device = CPU) -> None:
        model = onnx.load(path)
        weights = {each.name: each for each in model.graph.initializer}
        first: dict[str, onnx.NodeProto] = {}
        for node in model.graph.node:
            first.setdefault(node.op_type, node)
        norm, filters, pool = (first[kind] for kind in ("InstanceNormalization", "Conv", "MaxPool"))
        scale, offset = (numpy_helper.to_array(weights[name]) for name in norm.input[1:3])
        self._scale, self._offset = float(scale[0]), float(offset[0])
        self._epsilon = next(each.f for each in norm.attribute if each.name == "epsilon")
        bank = weights[filters.input[1]]
        self._filter_sums = numpy_helper.to_array(bank).astype(np.float64).sum(axis=(1, 2))
        self._front_end = open_graph(
            _graph(_front_end_nodes(bank.name), ("samples",), ("center", "radius"), [bank]), threads, device
        )
        rest = list(model.graph.node)[list(model.graph.node).index(pool) + 1 :]
        used = {name for node in rest for name in node.input}
        back_end = _graph(
            [*_window_nodes(pool.output[0]), *rest],
            ("center", "radius", "shift", "gain"),
            ("scores",),
            [each for each in model.graph.initializer if each.name in used],
        )
        self._back_end = open_graph(back_end, threads, device)

    def filter(self, samples: Samples) -> FilteredBlock:
        """Compute what all windows of ``samples``, (samples,), share.

        The result takes 21 bytes per sample, and its computation briefly five times that.
        """
        centered = samples - np.float32(samples.mean(dtype=np.float64))
        center, radius = self._front_end.run(None, {"samples": centered[None, None]})
        return FilteredBlock(centered, center[0], radius[0])

    def score(self, block: FilteredBlock, starts: Sequence[int], length: int) -> Floats:
        """Return the log-probabilities of the 7 classes, (windows, frames, 7).

        Args:
            block: The filtered samples.
            starts: The starts of the windows within the block in samples, multiples of 30.
            length: The length of each window in samples; all windows end within the block.
        """
        windows = [block.samples[start : start + length] for start in starts]
        means = np.array([window.mean(dtype=np.float64) for window in windows])
        variances = np.array([np.dot(window, window) / length for window in windows], dtype=np.float64) - means**2
        gains = self._scale / np.sqrt(np.maximum(variances, 0.0) + self._epsilon)
        shifts = (self._offset / gains - means)[:, None] * self._filter_sums
        width = ((length - FILTER_SAMPLES) // STRIDE_SAMPLES + 1) // POOL_SIZE
        columns = [slice(start // POOL_SAMPLES, start // POOL_SAMPLES + width) for start in starts]
        scores: Floats = self._back_end.run(
            None,
            {
                "center": np.stack([block.center[:, each] for each in columns]),
                "radius": np.stack([block.radius[:, each] for each in columns]),
                "shift": shifts[:, :, None].astype(np.float32),
                "gain": gains[:, None, None].astype(np.float32),
            },
        )[0]
        return scores


def _front_end_nodes(bank: str) -> list[onnx.NodeProto]:
    def pool(name: str, of: str) -> onnx.NodeProto:
        return helper.make_node("MaxPool", [of], [name], kernel_shape=[POOL_SIZE], strides=[POOL_SIZE])

    return [
        helper.make_node("Conv", ["samples", bank], ["filtered"], strides=[STRIDE_SAMPLES]),
        pool("maximum", of="filtered"),
        helper.make_node("Neg", ["filtered"], ["negative"]),
        pool("negative_minimum", of="negative"),
        helper.make_node("Constant", [], ["half"], value=numpy_helper.from_array(np.array(0.5, dtype=np.float32))),
        helper.make_node("Sub", ["maximum", "negative_minimum"], ["sum"]),
        helper.make_node("Mul", ["sum", "half"], ["center"]),
        helper.make_node("Add", ["maximum", "negative_minimum"], ["width"]),
        helper.make_node("Mul", ["width", "half"], ["radius"]),
    ]


def _window_nodes(output: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Add", ["center", "shift"], ["shifted"]),
        helper.make_node("Abs", ["shifted"], ["distance"]),
        helper.make_node("Add", ["distance", "radius"], ["maximum_distance"]),
        helper.make_node("Mul", ["maximum_distance", "gain"], [output]),
    ]


def _graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Iterable[str],
    outputs: Iterable[str],
    weights: Sequence[onnx.TensorProto],
) -> bytes:
    """Return a serialized graph with three-dimensional float32 inputs and outputs."""

    def described(names: Iterable[str]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 3) for name in names]

    graph = helper.make_graph(list(nodes), "segmentation", described(inputs), described(outputs), list(weights))
    model: onnx.ModelProto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="diarist"
    )
    return bytes(model.SerializeToString())
