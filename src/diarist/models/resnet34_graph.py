"""The ONNX graph of WeSpeaker's ResNet34, a network for speaker embeddings of several speakers in one recording.

The architecture is that of Wang et al., "WeSpeaker: A research and production oriented speaker embedding learning
toolkit" (ICASSP 2023), as pyannote.audio trains it for ``pyannote/speaker-diarization-community-1``: a two-dimensional
ResNet of 34 layers (He et al. 2016), the weighted mean and standard deviation over the frames, one linear layer. The
frames are computed once for all speakers; each speaker has weights of its own.

Input ``features``: float32 (batch, rows, 80), Kaldi filter banks of 25 ms every 10 ms from which the mean over the rows
has been subtracted. Input ``weights``: float32 (batch, speakers, frames), 0 or 1: whether a speaker speaks in a frame,
where 8 rows make one frame, rounded up (``frame_count``). Output ``embedding``: float32 (batch, speakers, 256).
"""

from __future__ import annotations

import onnx

from diarist.models.onnx_writer import GraphWriter, Tensors, batch_norm, fold

FEATURES = 80
VALUES = 256

_LAYERS = ((3, 1), (4, 2), (6, 2), (3, 2))
"""The number of residual blocks of each layer, and the stride of the first of them, in bands and in frames."""

_WEIGHT_EPSILON = 1e-8
"""The value that pyannote.audio adds to the sums of weights by which it divides."""


def frame_count(rows: int) -> int:
    """Return the number of frames of the network's output for this number of rows of filter banks."""
    for _, stride in _LAYERS:
        rows = -(-rows // stride)
    return rows


def build_resnet34(tensors: Tensors) -> onnx.ModelProto:
    """Return the ONNX model for the tensors of the checkpoint, with every batch norm folded into its convolution.

    The number of channels is that of the tensors.

    Raises:
        KeyError: If a tensor is missing.
    """
    graph = GraphWriter()
    projection, bias = (tensors[f"resnet.seg_1.{part}"] for part in ("weight", "bias"))
    channels = projection.shape[1] // 2
    x = graph.op("Unsqueeze", graph.op("Transpose", "rows", perm=[0, 2, 1]), graph.integers([1]))
    x = graph.op("Relu", _conv(graph, tensors, x, "resnet.conv1", "resnet.bn1"))  # (batch, channels, bands, rows)
    for layer, (blocks, stride) in enumerate(_LAYERS, start=1):
        for block in range(blocks):
            x = _residual_block(graph, tensors, x, f"resnet.layer{layer}.{block}", stride if block == 0 else 1)
    x = graph.op("Reshape", x, graph.integers([0, channels, -1]))  # each band of a channel becomes a channel
    x = graph.op("MatMul", _weighted_statistics(graph, x, "activity"), graph.weight(projection.T))
    embedding = graph.op("Add", x, graph.weight(bias))
    return graph.model(
        [
            ("rows", "features", ("batch", "rows", FEATURES)),
            ("activity", "weights", ("batch", "speakers", "frames")),
        ],
        (embedding, "embedding", ("batch", "speakers", len(bias))),
        "resnet34",
    )


def _conv(graph: GraphWriter, tensors: Tensors, x: str, name: str, norm: str, stride: int = 1) -> str:
    kernel, bias = fold(tensors[f"{name}.weight"], batch_norm(tensors, norm))
    size = kernel.shape[2]
    return graph.op(
        "Conv",
        x,
        graph.weight(kernel),
        graph.weight(bias),
        kernel_shape=[size, size],
        strides=[stride, stride],
        pads=[size // 2] * 4,
    )


def _residual_block(graph: GraphWriter, tensors: Tensors, x: str, name: str, stride: int) -> str:
    """Add two convolutions, with a convolution of size 1 around them where they change the number of channels."""
    inner = graph.op("Relu", _conv(graph, tensors, x, f"{name}.conv1", f"{name}.bn1", stride))
    inner = _conv(graph, tensors, inner, f"{name}.conv2", f"{name}.bn2")
    if f"{name}.shortcut.0.weight" in tensors:
        x = _conv(graph, tensors, x, f"{name}.shortcut.0", f"{name}.shortcut.1", stride)
    return graph.op("Relu", graph.op("Add", inner, x))


def _weighted_statistics(graph: GraphWriter, x: str, weights: str) -> str:
    """Add the weighted mean and the weighted sample standard deviation over the frames.

    ``x`` has shape (batch, channels, frames), ``weights`` (batch, speakers, frames), and the result (batch, speakers,
    2 * channels). The deviation is that of reliability weights, whose square sums correct the bias. A speaker without
    any weight has zeros.
    """
    epsilon, last = graph.weight(_WEIGHT_EPSILON), graph.integers([-1])
    total = graph.op("Add", graph.op("ReduceSum", weights, last, keepdims=1), epsilon)  # (batch, speakers, 1)
    mean = graph.op("Div", graph.op("MatMul", weights, graph.op("Transpose", x, perm=[0, 2, 1])), total)
    centered = graph.op("Sub", graph.op("Unsqueeze", x, graph.integers([1])), graph.op("Unsqueeze", mean, last))
    squares = graph.op("Mul", graph.op("Mul", centered, centered), graph.op("Unsqueeze", weights, graph.integers([2])))
    square_total = graph.op("ReduceSum", graph.op("Mul", weights, weights), last, keepdims=1)
    degrees = graph.op("Add", graph.op("Sub", total, graph.op("Div", square_total, total)), epsilon)
    variance = graph.op("Div", graph.op("ReduceSum", squares, last, keepdims=0), degrees)
    return graph.op("Concat", mean, graph.op("Sqrt", variance), axis=-1)
