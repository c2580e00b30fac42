"""The networks in PyTorch, in its own layers and in the form they were trained in: what the graphs must equal."""

# mypy: disallow-subclassing-any=False
# mypy does not read PyTorch, so its classes are of type Any.

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - as everyone names it


def segmentation(tensors: Mapping[str, np.ndarray], samples: np.ndarray) -> np.ndarray:
    weights = {name: torch.from_numpy(value.copy()) for name, value in tensors.items()}

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.instance_norm(x, weight=weights[f"{name}.weight"], bias=weights[f"{name}.bias"])

    lstm = nn.LSTM(60, 128, num_layers=4, batch_first=True, bidirectional=True)
    lstm.load_state_dict({name[5:]: value for name, value in weights.items() if name.startswith("lstm.")})
    with torch.no_grad():
        x = norm(torch.from_numpy(samples), "sincnet.wav_norm1d")
        x = F.conv1d(x, _filters(weights), stride=10).abs()
        for layer in range(3):
            if layer:
                x = F.conv1d(x, *(weights[f"sincnet.conv1d.{layer}.{part}"] for part in ("weight", "bias")))
            x = F.leaky_relu(norm(F.max_pool1d(x, 3), f"sincnet.norm1d.{layer}"))
        x, _ = lstm(x.transpose(1, 2))
        for name in ("linear.0", "linear.1"):
            x = F.leaky_relu(F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"]))
        x = F.linear(x, weights["classifier.weight"], weights["classifier.bias"])
        scores: np.ndarray = F.log_softmax(x, dim=-1).numpy()
    return scores


def _filters(weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
    bank = "sincnet.conv1d.0.filterbank"
    time, window = weights[f"{bank}.n_"], weights[f"{bank}.window_"]
    low = 50 + weights[f"{bank}.low_hz_"].abs()
    high = torch.clamp(low + 50 + weights[f"{bank}.band_hz_"].abs(), 50, 8_000)
    band = high - low
    half = (torch.sin(high @ time) - torch.sin(low @ time)) / (time / 2) * window
    even = torch.cat([half, 2 * band, half.flip(1)], dim=1)
    half = (torch.cos(low @ time) - torch.cos(high @ time)) / (time / 2) * window
    odd = torch.cat([half, torch.zeros_like(band), -half.flip(1)], dim=1)
    return (torch.cat([even, odd]) / (2 * torch.cat([band, band])))[:, None]


class _Residual(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(32, 32, 3, stride=(stride, 1), padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 32, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(32)
        self.shortcut = nn.Sequential()
        if stride > 1:
            conv = nn.Conv2d(32, 32, 1, stride=(stride, 1), bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(inner + self.shortcut(x))


class _FrontEnd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.layer1 = nn.Sequential(_Residual(2), _Residual(1))
        self.layer2 = nn.Sequential(_Residual(2), _Residual(1))
        self.conv2 = nn.Conv2d(32, 32, 3, stride=(2, 1), padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x[:, None])))))
        return F.relu(self.bn2(self.conv2(x))).flatten(1, 2)


class _NormRelu(nn.Module):
    def __init__(self, channels: int, *, affine: bool = True, relu: bool = True) -> None:
        super().__init__()
        self.batchnorm = nn.BatchNorm1d(channels, affine=affine)
        self.relu = relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.batchnorm(x)
        return F.relu(x) if self.relu else x


class _Mask(nn.Module):
    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.linear_local = nn.Conv1d(128, 32, 3, padding=dilation, dilation=dilation, bias=False)
        self.linear1 = nn.Conv1d(128, 64, 1)
        self.linear2 = nn.Conv1d(64, 32, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        segments = F.avg_pool1d(x, 100, stride=100, ceil_mode=True)
        context = x.mean(-1, keepdim=True) + segments.repeat_interleave(100, dim=-1)[..., : x.shape[-1]]
        return self.linear_local(x) * torch.sigmoid(self.linear2(F.relu(self.linear1(context))))


class _Dense(nn.Module):
    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.nonlinear1 = _NormRelu(channels)
        self.linear1 = nn.Conv1d(channels, 128, 1, bias=False)
        self.nonlinear2 = _NormRelu(128)
        self.cam_layer = _Mask(dilation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.cam_layer(self.nonlinear2(self.linear1(self.nonlinear1(x))))], dim=1)


class _Affine(nn.Module):
    """A convolution and a norm with its ReLU, in either order."""

    def __init__(self, conv: nn.Module, norm: _NormRelu, *, norm_first: bool = False) -> None:
        super().__init__()
        self.linear, self.nonlinear, self.norm_first = conv, norm, norm_first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.nonlinear(x)) if self.norm_first else self.nonlinear(self.linear(x))


class CamPlusPlus(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = _FrontEnd()
        parts: dict[str, Any] = {"tdnn": _Affine(nn.Conv1d(320, 128, 5, 2, 2, bias=False), _NormRelu(128))}
        channels = 128
        for block, (layers, dilation) in enumerate(((12, 1), (24, 2), (16, 2)), start=1):
            dense = {f"tdnnd{i + 1}": _Dense(channels + 32 * i, dilation) for i in range(layers)}
            parts[f"block{block}"] = nn.Sequential()
            for name, layer in dense.items():
                parts[f"block{block}"].add_module(name, layer)
            channels += 32 * layers
            conv = nn.Conv1d(channels, channels // 2, 1, bias=False)
            parts[f"transit{block}"] = _Affine(conv, _NormRelu(channels), norm_first=True)
            channels //= 2
        parts["out_nonlinear"] = _NormRelu(channels)
        parts["dense"] = _Affine(nn.Conv1d(1024, 192, 1, bias=False), _NormRelu(192, affine=False, relu=False))
        self.xvector = nn.ModuleDict(parts)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        x = self.head(features.transpose(1, 2))
        for name, part in self.xvector.items():
            if name == "dense":
                x = torch.cat([x.mean(-1), x.std(-1, unbiased=True)], dim=1)[..., None]
            x = part(x)
        return x[..., 0]


def campplus(tensors: Mapping[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    network = CamPlusPlus().eval()
    weights = {name: torch.from_numpy(value.copy()) for name, value in tensors.items()}
    missing, unexpected = network.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    with torch.no_grad():
        embeddings: np.ndarray = network(torch.from_numpy(features)).numpy()
    return embeddings


class _Block34(nn.Module):
    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if before != width:
            conv = nn.Conv2d(before, width, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.shortcut(x))


class ResNet34(nn.Module):
    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        before, layers = channels, []
        for layer, blocks in enumerate((3, 4, 6, 3)):
            width = channels * 2**layer
            first = _Block34(before, width, 1 if layer == 0 else 2)
            layers.append(nn.Sequential(first, *(_Block34(width, width, 1) for _ in range(blocks - 1))))
            before = width
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        self.seg_1 = nn.Linear(2 * 10 * before, 256)

    def forward(self, features: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(features.transpose(1, 2)[:, None])))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x)))).flatten(1, 2)
        speakers = []
        for activity in weights.unbind(1):
            rows = []
            for frames, active in zip(x, activity > 0, strict=True):
                own = frames[:, active]  # without the others: the mean and the sample deviation of those frames
                deviation = own.std(-1, unbiased=True) if own.shape[1] > 1 else torch.zeros(len(own))
                rows.append(torch.cat([own.mean(-1), deviation]))
            speakers.append(torch.stack(rows))
        return self.seg_1(torch.stack(speakers, dim=1))


def resnet34(tensors: Mapping[str, np.ndarray], features: np.ndarray, activity: np.ndarray) -> np.ndarray:
    network = ResNet34(len(tensors["resnet.conv1.weight"])).eval()
    weights = {name.removeprefix("resnet."): torch.from_numpy(value.copy()) for name, value in tensors.items()}
    missing, unexpected = network.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    with torch.no_grad():
        embeddings: np.ndarray = network(torch.from_numpy(features), torch.from_numpy(activity)).numpy()
    return embeddings
