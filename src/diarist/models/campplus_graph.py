"""The ONNX graph of CAM++, a network for speaker embeddings of 192 values.

The architecture is that of Wang et al. 2023 (https://arxiv.org/abs/2303.00332) with the sizes of
``iic/speech_campplus_sv_zh_en_16k-common_advanced``: a two-dimensional front end, a TDNN layer, three blocks of densely
connected TDNN layers with context-aware masking, pooled mean and deviation, one linear layer.

Input ``features``: float32 (batch, frames, 80), Kaldi filterbanks of 25 ms every 10 ms from which the mean over the
frames has been subtracted; all rows of a batch have the same number of frames, at least 3. Output ``embedding``:
float32 (batch, 192).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from diarist.models.onnx_writer import EPSILON, GraphWriter, Tensors, batch_norm, fold

FEATURES = 80
VALUES = 192

_BLOCKS = ((12, 1), (24, 2), (16, 2))
"""The number of layers and the dilation of each dense block."""

_SEGMENT_FRAMES = 100
"""The masks depend on the mean over all frames and on the means over segments of this many frames."""


def build_campplus(tensors: Tensors) -> onnx.ModelProto:
    """Return the ONNX model for the tensors of the checkpoint.

    Every batch norm that follows a convolution is folded into it.

    Raises:
        KeyError: If a tensor is missing.
    """
    graph = GraphWriter()
    x = graph.op("Transpose", "input", perm=[0, 2, 1])  # (batch, 80, frames)
    x = _front_end(graph, tensors, graph.op("Unsqueeze", x, graph.integers([1])))
    first = fold(tensors["xvector.tdnn.linear.weight"], batch_norm(tensors, "xvector.tdnn.nonlinear.batchnorm"))
    x = graph.op("Relu", _conv(graph, x, first, strides=[2], pads=[2, 2]))  # (batch, 128, frames / 2)
    frames_to_context, segment_to_frames = _segments(graph, x)
    for block, (layers, dilation) in enumerate(_BLOCKS, start=1):
        for layer in range(1, layers + 1):
            new = _dense_layer(
                graph, tensors, x, f"xvector.block{block}.tdnnd{layer}", dilation, frames_to_context, segment_to_frames
            )
            x = graph.op("Concat", x, new, axis=1)
        transit = f"xvector.transit{block}"
        kernel = tensors[f"{transit}.linear.weight"]
        if block == len(_BLOCKS):
            folded = fold(kernel, batch_norm(tensors, "xvector.out_nonlinear.batchnorm"))
        else:
            folded = kernel, None
        x = _conv(graph, _norm_relu(graph, tensors, x, f"{transit}.nonlinear.batchnorm"), folded)
    x = _statistics(graph, graph.op("Relu", x))  # (batch, 1024)
    kernel, bias = fold(
        tensors["xvector.dense.linear.weight"], batch_norm(tensors, "xvector.dense.nonlinear.batchnorm")
    )
    embedding = graph.op("Gemm", x, graph.weight(kernel[:, :, 0]), graph.weight(bias), transB=1)
    return graph.model(
        [("input", "features", ("batch", "frames", FEATURES))], (embedding, "embedding", ("batch", VALUES)), "campplus"
    )


def _conv(graph: GraphWriter, x: str, kernel_bias: tuple[Any, Any], **attributes: Any) -> str:
    kernel, bias = kernel_bias
    inputs = [graph.weight(kernel)] if bias is None else [graph.weight(kernel), graph.weight(bias)]
    return graph.op("Conv", x, *inputs, kernel_shape=list(kernel.shape[2:]), **attributes)


def _norm_relu(graph: GraphWriter, tensors: Tensors, x: str, name: str) -> str:
    """Add a batch norm and its ReLU that precede a convolution, so that the batch norm cannot be folded into it."""
    factor, offset = batch_norm(tensors, name)
    zeros, ones = np.zeros_like(factor), np.full_like(factor, 1 - EPSILON)
    parts = [graph.weight(part) for part in (factor, offset, zeros, ones)]
    return graph.op("Relu", graph.op("BatchNormalization", x, *parts, epsilon=EPSILON))


def _front_end(graph: GraphWriter, tensors: Tensors, x: str) -> str:
    """Add the two-dimensional front end: (batch, 1, 80, frames) to (batch, 320, frames)."""

    def conv(x: str, name: str, norm: str, stride: int, pad: int = 1) -> str:
        kernel = fold(tensors[f"head.{name}.weight"], batch_norm(tensors, f"head.{norm}"))
        return _conv(graph, x, kernel, strides=[stride, 1], pads=[pad] * 4)

    x = graph.op("Relu", conv(x, "conv1", "bn1", 1))
    for layer in ("layer1", "layer2"):
        for block, stride in ((0, 2), (1, 1)):
            prefix = f"{layer}.{block}"
            inner = graph.op("Relu", conv(x, f"{prefix}.conv1", f"{prefix}.bn1", stride))
            inner = conv(inner, f"{prefix}.conv2", f"{prefix}.bn2", 1)
            shortcut = conv(x, f"{prefix}.shortcut.0", f"{prefix}.shortcut.1", stride, pad=0) if stride > 1 else x
            x = graph.op("Relu", graph.op("Add", inner, shortcut))
    x = graph.op("Relu", conv(x, "conv2", "bn2", 2))  # (batch, 32, 10, frames)
    # The 32 channels of 10 bands each become 320 channels.
    return graph.op("Reshape", x, graph.integers([0, 320, -1]))


def _segments(graph: GraphWriter, x: str) -> tuple[str, str]:
    """Add two matrices that all masks share, for ``x`` of shape (batch, channels, frames).

    Multiplication by the first, (frames, segments), turns frames into the input of the masks: the mean of each segment
    plus the mean over all frames. Multiplication by the second, (segments, frames), repeats the value of each segment
    for all its frames. A mask is therefore computed once per segment; the original computes it once per frame.
    """
    frames = graph.op("Gather", graph.op("Shape", x), graph.integers(2), axis=0)
    one, zero, size = graph.integers(1), graph.integers(0), graph.integers(_SEGMENT_FRAMES)
    segment = graph.op("Div", graph.op("Range", zero, frames, one), size)  # (frames,): the segment of each frame
    count = graph.op("Div", graph.op("Add", frames, graph.integers(_SEGMENT_FRAMES - 1)), size)
    column = graph.op("Unsqueeze", graph.op("Range", zero, count, one), one_axis := graph.integers([1]))
    membership = graph.op("Cast", graph.op("Equal", column, segment), to=onnx.TensorProto.FLOAT)  # (segments, frames)
    lengths = graph.op("ReduceSum", membership, one_axis, keepdims=1)  # (segments, 1): the last segment may be short
    means = graph.op("Transpose", graph.op("Div", membership, lengths), perm=[1, 0])
    mean_weight = graph.op("Reciprocal", graph.op("Cast", frames, to=onnx.TensorProto.FLOAT))
    return graph.op("Add", means, mean_weight), membership


def _dense_layer(
    graph: GraphWriter,
    tensors: Tensors,
    x: str,
    name: str,
    dilation: int,
    frames_to_context: str,
    segment_to_frames: str,
) -> str:
    """Add one densely connected layer: (batch, channels, frames) to its new channels, (batch, 32, frames)."""
    x = _norm_relu(graph, tensors, x, f"{name}.nonlinear1.batchnorm")
    kernel = fold(tensors[f"{name}.linear1.weight"], batch_norm(tensors, f"{name}.nonlinear2.batchnorm"))
    x = graph.op("Relu", _conv(graph, x, kernel))  # (batch, 128, frames)
    cam = f"{name}.cam_layer"
    local = _conv(
        graph, x, (tensors[f"{cam}.linear_local.weight"], None), pads=[dilation, dilation], dilations=[dilation]
    )
    mask = graph.op("MatMul", x, frames_to_context)  # (batch, 128, segments)
    for layer, activation in (("linear1", "Relu"), ("linear2", "Sigmoid")):
        kernel = tensors[f"{cam}.{layer}.weight"], tensors[f"{cam}.{layer}.bias"]
        mask = graph.op(activation, _conv(graph, mask, kernel))
    return graph.op("Mul", local, graph.op("MatMul", mask, segment_to_frames))


def _statistics(graph: GraphWriter, x: str) -> str:
    """Add the mean and the sample standard deviation over the frames: (batch, 512, frames) to (batch, 1024)."""
    mean = graph.op("ReduceMean", x, axes=[2], keepdims=1)
    centered = graph.op("Sub", x, mean)
    squares = graph.op("ReduceSum", graph.op("Mul", centered, centered), graph.integers([2]), keepdims=1)
    frames = graph.op("Cast", graph.op("Gather", graph.op("Shape", x), graph.integers(2), axis=0), to=1)
    deviation = graph.op("Sqrt", graph.op("Div", squares, graph.op("Sub", frames, graph.weight(1.0))))
    return graph.op("Squeeze", graph.op("Concat", mean, deviation, axis=1), graph.integers([2]))
