"""A small writer of ONNX graphs: each method adds one operator and gives back the name of its output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

Tensors = Mapping[str, NDArray[Any]]
Axis = int | str
"""A length that is known, or the name of one that is not."""

OPSET = 17
"""Old enough for every onnxruntime of the last years; everything used here has been in it unchanged."""

IR_VERSION = 8
"""The file format that goes with that operator set."""

EPSILON = 1e-5
"""What both networks' normalisations add to the variance (the default of PyTorch, with which they were trained)."""


@dataclass(frozen=True, slots=True, eq=False)
class GraphWriter:
    """Collects operators and weights; ``model`` makes the file's content of them. Weights are float32."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Add one operator; gives the name of its first output. An empty input name is an optional input left out."""
        names = [f"{kind.lower()}_{len(self.nodes)}" + (f"_{i}" if i else "") for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names[0]

    def weight(self, values: ArrayLike) -> str:
        """Add a constant of float32."""
        return self._constant(np.asarray(values, dtype=np.float32))

    def whole(self, values: int | Sequence[int]) -> str:
        """Add a constant of int64: shapes, axes, indices."""
        return self._constant(np.asarray(values, dtype=np.int64))

    def _constant(self, values: NDArray[Any]) -> str:
        name = f"constant_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def model(
        self, source: tuple[str, str, Sequence[Axis]], result: tuple[str, str, Sequence[Axis]], producer: str
    ) -> onnx.ModelProto:
        """The checked model. ``source`` and ``result`` are (name in the graph, public name, shape), both float32."""
        inner_in, name_in, shape_in = source
        inner_out, name_out, shape_out = result
        nodes = [
            helper.make_node("Identity", [name_in], [inner_in]),
            *self.nodes,
            helper.make_node("Identity", [inner_out], [name_out]),
        ]
        graph = helper.make_graph(
            nodes,
            producer,
            [helper.make_tensor_value_info(name_in, TensorProto.FLOAT, list(shape_in))],
            [helper.make_tensor_value_info(name_out, TensorProto.FLOAT, list(shape_out))],
            self.weights,
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="diarist"
        )
        onnx.checker.check_model(model, full_check=True)
        return model


def batch_norm(tensors: Tensors, prefix: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A trained batch norm as what it is at inference: one factor and one offset a channel, both shape (channels,).

    A norm without learned weights (``affine=False``) has factor 1 and offset 0 before its statistics.
    """
    mean = tensors[f"{prefix}.running_mean"].astype(np.float64)
    deviation = np.sqrt(tensors[f"{prefix}.running_var"].astype(np.float64) + EPSILON)
    weight = tensors.get(f"{prefix}.weight")
    bias = tensors.get(f"{prefix}.bias")
    factor = (np.ones_like(mean) if weight is None else weight.astype(np.float64)) / deviation
    offset = (np.zeros_like(mean) if bias is None else bias.astype(np.float64)) - mean * factor
    return factor, offset


def fold(kernel: NDArray[Any], norm: tuple[NDArray[np.float64], NDArray[np.float64]]) -> tuple[Any, Any]:
    """Kernel and bias of a convolution without bias and the batch norm behind it, as one convolution (exact).

    ``kernel`` has shape (channels out, channels in, ...).
    """
    factor, offset = norm
    return kernel.astype(np.float64) * factor.reshape(-1, *(1,) * (kernel.ndim - 1)), offset
