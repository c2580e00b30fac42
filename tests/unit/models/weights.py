"""Made-up weights of the networks, the same on every machine: what the graphs are built of where no model is."""

from __future__ import annotations

import math
from itertools import product

import numpy as np

Tensors = dict[str, np.ndarray]


class _Maker:
    def __init__(self, seed: int, gain: float) -> None:
        # The legacy generator: its numbers are promised never to change, and stored results depend on them.
        self.random = np.random.RandomState(seed)
        self.gain = gain  # so that the input still shows at the end, and nothing saturates
        self.tensors: Tensors = {}

    def weight(self, name: str, *shape: int) -> None:
        distribute = self.gain / math.sqrt(max(1, math.prod(shape[1:])))
        self.tensors[name] = (self.random.standard_normal(shape) * distribute).astype(np.float32)

    def norm(self, name: str, channels: int, *, affine: bool = True) -> None:
        if affine:
            self.tensors[f"{name}.weight"] = self.random.uniform(-0.5, 1.5, channels).astype(np.float32)
            self.tensors[f"{name}.bias"] = self.random.uniform(-0.5, 0.5, channels).astype(np.float32)
        self.tensors[f"{name}.running_mean"] = self.random.uniform(-0.5, 0.5, channels).astype(np.float32)
        self.tensors[f"{name}.running_var"] = self.random.uniform(0.5, 2.0, channels).astype(np.float32)


def segmentation_weights(seed: int = 3) -> Tensors:
    make = _Maker(seed, gain=1.4)
    bank = "sincnet.conv1d.0.filterbank"
    edges = np.linspace(0, 7_000, 41, dtype=np.float32)
    make.tensors[f"{bank}.low_hz_"] = edges[:-1, np.newaxis]
    make.tensors[f"{bank}.band_hz_"] = np.diff(edges)[:, np.newaxis]
    make.tensors[f"{bank}.window_"] = np.hamming(251)[:125].astype(np.float32)
    make.tensors[f"{bank}.n_"] = (2 * np.pi * np.arange(-125, 0)[np.newaxis] / 16_000).astype(np.float32)
    make.tensors["sincnet.wav_norm1d.weight"] = np.array([0.1], dtype=np.float32)
    make.tensors["sincnet.wav_norm1d.bias"] = np.array([0.01], dtype=np.float32)
    for layer, (channels_in, channels_out) in enumerate(((0, 80), (80, 60), (60, 60))):
        if channels_in:
            make.weight(f"sincnet.conv1d.{layer}.weight", channels_out, channels_in, 5)
            make.weight(f"sincnet.conv1d.{layer}.bias", channels_out)
        make.weight(f"sincnet.norm1d.{layer}.weight", channels_out)
        make.weight(f"sincnet.norm1d.{layer}.bias", channels_out)
    for layer, direction in product(range(4), ("", "_reverse")):
        make.weight(f"lstm.weight_ih_l{layer}{direction}", 512, 256 if layer else 60)
        make.weight(f"lstm.weight_hh_l{layer}{direction}", 512, 128)
        make.weight(f"lstm.bias_ih_l{layer}{direction}", 512)
        make.weight(f"lstm.bias_hh_l{layer}{direction}", 512)
    for name, channels_in, channels_out in (("linear.0", 256, 128), ("linear.1", 128, 128), ("classifier", 128, 7)):
        make.weight(f"{name}.weight", channels_out, channels_in)
        make.weight(f"{name}.bias", channels_out)
    return make.tensors


def campplus_weights(seed: int = 4) -> Tensors:
    make = _Maker(seed, gain=2)
    make.weight("head.conv1.weight", 32, 1, 3, 3)
    make.weight("head.conv2.weight", 32, 32, 3, 3)
    for norm in ("bn1", "bn2"):
        make.norm(f"head.{norm}", 32)
    for layer, block in product(("layer1", "layer2"), (0, 1)):
        for part in (1, 2):
            make.weight(f"head.{layer}.{block}.conv{part}.weight", 32, 32, 3, 3)
            make.norm(f"head.{layer}.{block}.bn{part}", 32)
        if block == 0:
            make.weight(f"head.{layer}.0.shortcut.0.weight", 32, 32, 1, 1)
            make.norm(f"head.{layer}.0.shortcut.1", 32)
    make.weight("xvector.tdnn.linear.weight", 128, 320, 5)
    make.norm("xvector.tdnn.nonlinear.batchnorm", 128)
    channels = 128
    for number, layers in enumerate((12, 24, 16), start=1):
        for place in range(1, layers + 1):
            name = f"xvector.block{number}.tdnnd{place}"
            make.norm(f"{name}.nonlinear1.batchnorm", channels)
            make.weight(f"{name}.linear1.weight", 128, channels, 1)
            make.norm(f"{name}.nonlinear2.batchnorm", 128)
            make.weight(f"{name}.cam_layer.linear_local.weight", 32, 128, 3)
            make.weight(f"{name}.cam_layer.linear1.weight", 64, 128, 1)
            make.weight(f"{name}.cam_layer.linear1.bias", 64)
            make.weight(f"{name}.cam_layer.linear2.weight", 32, 64, 1)
            make.weight(f"{name}.cam_layer.linear2.bias", 32)
            channels += 32
        make.norm(f"xvector.transit{number}.nonlinear.batchnorm", channels)
        make.weight(f"xvector.transit{number}.linear.weight", channels // 2, channels, 1)
        channels //= 2
    make.norm("xvector.out_nonlinear.batchnorm", channels)
    make.weight("xvector.dense.linear.weight", 192, 2 * channels, 1)
    make.norm("xvector.dense.nonlinear.batchnorm", 192, affine=False)
    return make.tensors


def resnet34_weights(seed: int = 7, channels: int = 32) -> Tensors:
    """WeSpeaker's ResNet34 has 32 channels in its first layer; fewer make it quick."""
    make = _Maker(seed, gain=1.4)
    make.weight("resnet.conv1.weight", channels, 1, 3, 3)
    make.norm("resnet.bn1", channels)
    before = channels
    for layer, blocks in enumerate((3, 4, 6, 3), start=1):
        width = channels * 2 ** (layer - 1)
        for block in range(blocks):
            name = f"resnet.layer{layer}.{block}"
            make.weight(f"{name}.conv1.weight", width, before, 3, 3)
            make.norm(f"{name}.bn1", width)
            make.weight(f"{name}.conv2.weight", width, width, 3, 3)
            make.norm(f"{name}.bn2", width)
            if before != width:
                make.weight(f"{name}.shortcut.0.weight", width, before, 1, 1)
                make.norm(f"{name}.shortcut.1", width)
            before = width
    make.weight("resnet.seg_1.weight", 256, 2 * 10 * before)
    make.weight("resnet.seg_1.bias", 256)
    return make.tensors


def samples(count: int, batch: int = 2) -> np.ndarray:
    """Something like voices: tones that swell, fade and change, and a little noise; float32 (batch, 1, count)."""
    random = np.random.RandomState(5)
    time = np.arange(count) / 16_000
    rows = []
    for row in range(batch):
        tone = sum(np.sin(2 * np.pi * (110 + 35 * row) * k * time + np.sin(3 * time)) / k for k in range(1, 20))
        swell = np.clip(np.sin(2 * np.pi * (0.3 + 0.1 * row) * time), 0, 1)
        rows.append(0.1 * tone * swell + 0.003 * random.standard_normal(count))
    return np.stack(rows)[:, np.newaxis].astype(np.float32)


def features(frames: int, batch: int = 2) -> np.ndarray:
    """Filterbanks of nothing in particular, the mean over the frames taken off; float32 (batch, frames, 80)."""
    random = np.random.RandomState(6)
    rows = np.cumsum(random.standard_normal((batch, frames, 80)), axis=1) * 0.3 + random.standard_normal((batch, 1, 80))
    centred: np.ndarray = rows - rows.mean(axis=1, keepdims=True)
    return centred.astype(np.float32)
