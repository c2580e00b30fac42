"""A builder for ONNX graphs, with functions to fold batch norms into convolutions."""

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
"""The length of a dimension, or a name if the length is not fixed."""

Value = tuple[str, str, Sequence[Axis]]
"""An input or output of a model: its name within the graph, its public name, and its shape."""

OPSET = 17
"""The version of the operator set. Every onnxruntime of recent years supports it and every operator used here."""

IR_VERSION = 8
"""The version of the file format that belongs to that operator set."""

EPSILON = 1e-5
"""The value that both networks' normalizations add to the variance: PyTorch's default, with which they were trained."""


@dataclass(frozen=True, slots=True, eq=False)
class GraphWriter:
    """Collects operators and weights, from which ``model`` creates an ONNX model. Weights are float32.

    Each method that adds something returns the name of its output, to be used as the input of other operators.
    """

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Add one operator and return the name of its first output. An empty input name omits an optional input."""
        names = [f"{kind.lower()}_{len(self.nodes)}" + (f"_{i}" if i else "") for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names[0]

    def weight(self, values: ArrayLike) -> str:
        """Add a float32 constant and return its name."""
        return self._constant(np.asarray(values, dtype=np.float32))

    def integers(self, values: int | Sequence[int]) -> str:
        """Add an int64 constant, for shapes, axes and indices, and return its name."""
        return self._constant(np.asarray(values, dtype=np.int64))

    def _constant(self, values: NDArray[Any]) -> str:
        name = f"constant_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def model(self, sources: Sequence[Value], result: Value, producer: str) -> onnx.ModelProto:
        """Return the checked model. ``sources`` are its inputs, and ``result`` is its output; all are float32."""
        inner_out, name_out, shape_out = result
        nodes = [
            *(helper.make_node("Identity", [name], [inner]) for inner, name, _ in sources),
            *self.nodes,
            helper.make_node("Identity", [inner_out], [name_out]),
        ]
        graph = helper.make_graph(
            nodes,
            producer,
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for _, name, shape in sources],
            [helper.make_tensor_value_info(name_out, TensorProto.FLOAT, list(shape_out))],
            self.weights,
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="diarist"
        )
        onnx.checker.check_model(model, full_check=True)
        return model


def batch_norm(tensors: Tensors, prefix: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the factor and the offset per channel that a batch norm applies at inference, both of shape (channels,).

    A norm without learned weights (``affine=False``) only normalizes by its statistics.
    """
    mean = tensors[f"{prefix}.running_mean"].astype(np.float64)
    deviation = np.sqrt(tensors[f"{prefix}.running_var"].astype(np.float64) + EPSILON)
    weight = tensors.get(f"{prefix}.weight")
    bias = tensors.get(f"{prefix}.bias")
    factor = (np.ones_like(mean) if weight is None else weight.astype(np.float64)) / deviation
    offset = (np.zeros_like(mean) if bias is None else bias.astype(np.float64)) - mean * factor
    return factor, offset


def fold(kernel: NDArray[Any], norm: tuple[NDArray[np.float64], NDArray[np.float64]]) -> tuple[Any, Any]:
    """Fold the batch norm that follows a convolution into it, and return the kernel and the bias. The result is exact.

    The convolution has no bias. ``kernel`` has shape (output channels, input channels, ...).
    """
    factor, offset = norm
    return kernel.astype(np.float64) * factor.reshape(-1, *(1,) * (kernel.ndim - 1)), offset
