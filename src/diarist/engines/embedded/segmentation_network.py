"""The graph of segmentation-3.0 in two parts, so that what windows share is computed once.

The network begins with a normalisation over the window, a bank of band-pass filters, and the greatest absolute value of
each three of their outputs. It is half of the work with windows that overlap by nine tenths, and all of it but the
normalisation is the same in every window. Normalising is ``gain * sample + offset``, and filters are linear, so a
filter's output is ``gain * filtered + offset * (sum of the filter)``; of three such the greatest absolute value is
``gain * (|middle + shift| + reach)``, where ``middle`` and ``reach`` are the middle and half the width of the range of
the three, and ``shift`` is what the window's mean and offset add. Windows differ in ``gain`` and ``shift`` alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from diarist.engines.onnx.session import session_options
from diarist.types import Samples

FILTER_SAMPLES = 251
STRIDE_SAMPLES = 10
POOLED = 3
"""Outputs of a filter of which the greatest is kept."""

POOL_SAMPLES = STRIDE_SAMPLES * POOLED
"""What windows of one stretch have to be apart by a multiple of."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Filtered:
    """A stretch of a recording behind the filters."""

    samples: Samples
    """Without their mean: a steady offset would leave too few digits for what is quiet beside it."""

    middle: Floats
    """Shape (filters, samples / 30)."""

    reach: Floats
    """As ``middle``."""


class SegmentationNetwork:
    """The two parts as sessions. Several threads may use it at once.

    Args:
        path: the ONNX graph that ``diarist.models.segmentation_graph`` builds.
        threads: of each call.
    """

    def __init__(self, path: Path, threads: int) -> None:
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
        self._sums = numpy_helper.to_array(bank).astype(np.float64).sum(axis=(1, 2))
        self._front = _session(_front_nodes(bank.name), ("samples",), ("middle", "reach"), [bank], threads)
        behind = list(model.graph.node)[list(model.graph.node).index(pool) + 1 :]
        used = {name for node in behind for name in node.input}
        self._behind = _session(
            [*_window_nodes(pool.output[0]), *behind],
            ("middle", "reach", "shift", "gain"),
            ("scores",),
            [each for each in model.graph.initializer if each.name in used],
            threads,
        )

    def hear(self, samples: Samples) -> Filtered:
        """What all windows of ``samples``, (samples,), share. Takes 21 bytes a sample, for a moment five times that."""
        centred = samples - np.float32(samples.mean(dtype=np.float64))
        middle, reach = self._front.run(None, {"samples": centred[None, None]})
        return Filtered(centred, middle[0], reach[0])

    def score(self, heard: Filtered, starts: Sequence[int], length: int) -> Floats:
        """Log-probabilities of the 7 classes, (windows, frames, 7).

        Args:
            starts: where windows start within what was heard, in samples, multiples of 30.
            length: of each window, in samples, all of them within what was heard.
        """
        pieces = [heard.samples[start : start + length] for start in starts]
        means = np.array([piece.mean(dtype=np.float64) for piece in pieces])
        variances = np.array([np.dot(piece, piece) / length for piece in pieces], dtype=np.float64) - means**2
        gains = self._scale / np.sqrt(np.maximum(variances, 0.0) + self._epsilon)
        shifts = (self._offset / gains - means)[:, None] * self._sums
        width = ((length - FILTER_SAMPLES) // STRIDE_SAMPLES + 1) // POOLED
        parts = [slice(start // POOL_SAMPLES, start // POOL_SAMPLES + width) for start in starts]
        scores: Floats = self._behind.run(
            None,
            {
                "middle": np.stack([heard.middle[:, part] for part in parts]),
                "reach": np.stack([heard.reach[:, part] for part in parts]),
                "shift": shifts[:, :, None].astype(np.float32),
                "gain": gains[:, None, None].astype(np.float32),
            },
        )[0]
        return scores


def _front_nodes(bank: str) -> list[onnx.NodeProto]:
    def pool(name: str, of: str) -> onnx.NodeProto:
        return helper.make_node("MaxPool", [of], [name], kernel_shape=[POOLED], strides=[POOLED])

    return [
        helper.make_node("Conv", ["samples", bank], ["filtered"], strides=[STRIDE_SAMPLES]),
        pool("greatest", of="filtered"),
        helper.make_node("Neg", ["filtered"], ["negative"]),
        pool("least", of="negative"),  # and its sign turned
        helper.make_node("Constant", [], ["half"], value=numpy_helper.from_array(np.array(0.5, dtype=np.float32))),
        helper.make_node("Sub", ["greatest", "least"], ["sum"]),
        helper.make_node("Mul", ["sum", "half"], ["middle"]),
        helper.make_node("Add", ["greatest", "least"], ["width"]),
        helper.make_node("Mul", ["width", "half"], ["reach"]),
    ]


def _window_nodes(output: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Add", ["middle", "shift"], ["shifted"]),
        helper.make_node("Abs", ["shifted"], ["distance"]),
        helper.make_node("Add", ["distance", "reach"], ["farthest"]),
        helper.make_node("Mul", ["farthest", "gain"], [output]),
    ]


def _session(
    nodes: Sequence[onnx.NodeProto],
    inputs: Iterable[str],
    outputs: Iterable[str],
    weights: Sequence[onnx.TensorProto],
    threads: int,
) -> onnxruntime.InferenceSession:
    """A session over three-dimensional float32 inputs and outputs."""

    def described(names: Iterable[str]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 3) for name in names]

    graph = helper.make_graph(list(nodes), "segmentation", described(inputs), described(outputs), list(weights))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="diarist")
    return onnxruntime.InferenceSession(
        model.SerializeToString(), session_options(threads), providers=["CPUExecutionProvider"]
    )
