"""The ONNX graph of segmentation-3.0, which detects the active speakers in each frame of a window of up to 10 s.

The architecture is PyanNet as trained for https://huggingface.co/pyannote/segmentation-3.0 (Bredin 2023; powerset of
Plaquet and Bredin, Interspeech 2023): SincNet (Ravanelli and Bengio 2018), four bidirectional LSTM layers, two linear
layers, a softmax over the sets of at most two of three speakers.

Input ``samples``: float32 (batch, 1, samples) in -1..1 at 16 kHz. Output ``scores``: float32 (batch, frames, 7),
natural logarithms of the probabilities of silence, 1, 2, 3, 1+2, 1+3, 2+3. 160,000 samples give 589 frames.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from diarist.models.onnx_writer import EPSILON, GraphWriter, Tensors

CLASSES = 7
LSTM_LAYERS = 4
LSTM_UNITS = 128

_SAMPLE_RATE = 16_000
_FIRST_STRIDE = 10
_LEAKY_RELU_SLOPE = 0.01
_MIN_LOW_HZ = 50.0
_MIN_BAND_HZ = 50.0
_ONNX_GATES = (0, 3, 1, 2)
"""PyTorch's order of the gates is input, forget, cell, output; ONNX's is input, output, forget, cell."""


def sinc_filters(tensors: Tensors) -> NDArray[np.float32]:
    """Return the band-pass filters for the learned cutoff frequencies, float32 (2 * bands, 1, 251).

    The even filters come first, then the odd ones. The even filters are formula (4) of SincNet (arXiv 1808.00158); the
    odd ones are their Hilbert pairs (Pariente et al. 2020, arXiv 1910.10400). They are windowed, and their peak is
    scaled to 1. As in training, the computation is in float32 and uses the checkpoint's own time axis and window; in
    float64 the probabilities change by up to 2e-4.
    """
    low_hz, band_hz, window, time = (
        tensors[f"sincnet.conv1d.0.filterbank.{part}"].astype(np.float32)
        for part in ("low_hz_", "band_hz_", "window_", "n_")
    )  # (bands, 1), (bands, 1), (125,), (1, 125): the left half, which the right half mirrors
    low = _MIN_LOW_HZ + np.abs(low_hz)
    high = np.clip(low + _MIN_BAND_HZ + np.abs(band_hz), _MIN_LOW_HZ, _SAMPLE_RATE / 2)
    band = high - low
    even = (np.sin(high * time) - np.sin(low * time)) / (time / 2) * window  # (bands, 125)
    odd = (np.cos(low * time) - np.cos(high * time)) / (time / 2) * window
    left, middle = np.concatenate([even, odd]), np.concatenate([2 * band, np.zeros_like(band)])
    right = np.concatenate([even, -odd])[:, ::-1]
    filters: NDArray[np.float32] = np.concatenate([left, middle, right], axis=1) / (2 * np.concatenate([band, band]))
    return filters[:, np.newaxis, :]


def build_segmentation(tensors: Tensors) -> onnx.ModelProto:
    """Return the ONNX model for the tensors of the checkpoint.

    Raises:
        KeyError: If a tensor is missing.
    """
    graph = GraphWriter()
    x = graph.op(
        "InstanceNormalization",
        "input",
        graph.weight(tensors["sincnet.wav_norm1d.weight"]),
        graph.weight(tensors["sincnet.wav_norm1d.bias"]),
        epsilon=EPSILON,
    )
    x = graph.op("Abs", graph.op("Conv", x, graph.weight(sinc_filters(tensors)), strides=[_FIRST_STRIDE]))
    x = _pool_and_norm(graph, tensors, x, 0)
    for layer in (1, 2):
        kernel, bias = (tensors[f"sincnet.conv1d.{layer}.{part}"] for part in ("weight", "bias"))
        x = _pool_and_norm(graph, tensors, graph.op("Conv", x, graph.weight(kernel), graph.weight(bias)), layer)
    x = graph.op("Transpose", x, perm=[2, 0, 1])  # (frames, batch, 60)
    for layer in range(LSTM_LAYERS):
        x = _lstm(graph, tensors, x, layer)  # (frames, batch, 256)
    for name in ("linear.0", "linear.1"):
        x = graph.op("LeakyRelu", _linear(graph, tensors, x, name), alpha=_LEAKY_RELU_SLOPE)
    x = graph.op("LogSoftmax", _linear(graph, tensors, x, "classifier"), axis=-1)
    scores = graph.op("Transpose", x, perm=[1, 0, 2])
    return graph.model(
        [("input", "samples", ("batch", 1, "samples"))],
        (scores, "scores", ("batch", "frames", CLASSES)),
        "segmentation",
    )


def _pool_and_norm(graph: GraphWriter, tensors: Tensors, x: str, layer: int) -> str:
    pooled = graph.op("MaxPool", x, kernel_shape=[3], strides=[3])
    weight, bias = (graph.weight(tensors[f"sincnet.norm1d.{layer}.{part}"]) for part in ("weight", "bias"))
    return graph.op(
        "LeakyRelu", graph.op("InstanceNormalization", pooled, weight, bias, epsilon=EPSILON), alpha=_LEAKY_RELU_SLOPE
    )


def _linear(graph: GraphWriter, tensors: Tensors, x: str, name: str) -> str:
    product = graph.op("MatMul", x, graph.weight(tensors[f"{name}.weight"].T))
    return graph.op("Add", product, graph.weight(tensors[f"{name}.bias"]))


def _lstm(graph: GraphWriter, tensors: Tensors, x: str, layer: int) -> str:
    def both_directions(kind: str) -> NDArray[np.float32]:
        """Return the parameter of both directions with its gates in ONNX's order, shape (2, 4 * units, ...)."""
        halves = [tensors[f"lstm.{kind}_l{layer}{direction}"] for direction in ("", "_reverse")]
        gates = [half.reshape(4, LSTM_UNITS, *half.shape[1:])[list(_ONNX_GATES)] for half in halves]
        return np.stack([part.reshape(4 * LSTM_UNITS, *part.shape[2:]) for part in gates])

    out = graph.op(
        "LSTM",
        x,
        graph.weight(both_directions("weight_ih")),
        graph.weight(both_directions("weight_hh")),
        graph.weight(np.concatenate([both_directions("bias_ih"), both_directions("bias_hh")], axis=1)),
        direction="bidirectional",
        hidden_size=LSTM_UNITS,
    )  # (frames, 2, batch, 128)
    out = graph.op("Transpose", out, perm=[0, 2, 1, 3])
    return graph.op("Reshape", out, graph.integers([0, 0, 2 * LSTM_UNITS]))
