"""Speaker embeddings of windows of a recording, by a NeMo speaker model such as TitaNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diarist.engines.nemo.device import Runtime
from diarist.types import SAMPLE_RATE, Audio, Progress, Seconds, Span

MIN_WINDOW: Seconds = 0.5
"""Shorter windows are padded by repetition, as NeMo does within a batch. This is the minimum in its configurations."""


class NemoSpeakerEncoder:
    """Implements ``diarist.engines.multiscale.diarizer.SpeakerEncoder`` with a NeMo speaker model.

    Args:
        model: An ``EncDecSpeakerLabelModel`` in evaluation mode, on the device of ``runtime``.
        runtime: The device.
        batch_size: The batch size in windows.
    """

    def __init__(self, model: Any, runtime: Runtime, batch_size: int) -> None:
        self._model = model
        self._runtime = runtime
        self._batch_size = batch_size
        # With masked convolutions, padding does not change an embedding; otherwise a batch has windows of one length.
        self._has_masked_convolutions = bool(model.cfg.encoder.get("conv_mask", False))

    def embed(self, audio: Audio, windows: Sequence[Span], progress: Progress) -> NDArray[np.float32]:
        """Return one embedding per window, float32 (windows, values), as ``infer_segment`` does for a single window."""
        if not windows:
            return np.zeros((0, 0), dtype=np.float32)
        signals = [self._signal(audio, window) for window in windows]  # views, except for windows that are padded
        order = sorted(range(len(signals)), key=lambda row: len(signals[row]))
        finished = 0

        def run(rows: Sequence[int]) -> Sequence[NDArray[np.float32]]:
            return self._embed_batch([signals[row] for row in rows])

        embeddings_in_order: list[NDArray[np.float32]] = []
        for group in [order] if self._has_masked_convolutions else _group_by_length(order, signals):
            finished_before = finished

            def report(share: float, group: Sequence[int] = group, finished_before: int = finished_before) -> None:
                progress("embedding", (finished_before + share * len(group)) / len(signals))

            embeddings_in_order += self._runtime.in_batches(group, run, self._batch_size, report)
            finished += len(group)
        embeddings = np.empty((len(signals), len(embeddings_in_order[0])), dtype=np.float32)
        embeddings[order] = embeddings_in_order
        return embeddings

    def _embed_batch(self, signals: Sequence[NDArray[np.float32]]) -> Sequence[NDArray[np.float32]]:
        lengths = np.array([len(signal) for signal in signals], dtype=np.int64)
        batch = np.zeros((len(signals), int(lengths.max())), dtype=np.float32)
        for row, signal in zip(batch, signals, strict=True):
            row[: len(signal)] = signal
        with self._runtime.inference():
            input_signal, input_length = self._runtime.tensor(batch), self._runtime.tensor(lengths)
            _, embeddings = self._model.forward(input_signal=input_signal, input_signal_length=input_length)
            return list(embeddings.reshape(len(signals), -1).to(torch.float32).cpu().numpy())

    @staticmethod
    def _signal(audio: Audio, window: Span) -> NDArray[np.float32]:
        signal = audio.cut(window).samples
        min_samples = round(MIN_WINDOW * SAMPLE_RATE)
        if len(signal) >= min_samples:
            return signal
        if len(signal) == 0:  # shorter than a sample
            return np.zeros(min_samples, dtype=np.float32)
        return np.resize(signal, min_samples)


def _group_by_length(order: Sequence[int], signals: Sequence[NDArray[np.float32]]) -> list[list[int]]:
    groups: dict[int, list[int]] = {}
    for row in order:
        groups.setdefault(len(signals[row]), []).append(row)
    return list(groups.values())
