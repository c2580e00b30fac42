"""Speaker embeddings of windows of a recording, by a NeMo speaker model such as TitaNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diarist.engines.nemo.device import Runtime
from diarist.types import SAMPLE_RATE, Audio, Progress, Seconds, Span

SHORTEST: Seconds = 0.5
"""Shorter windows are padded by repetition, as NeMo does within a batch. This is the minimum in its configurations."""


class NemoSpeakerEncoder:
    """Implements ``diarist.engines.multiscale.diarizer.SpeakerEncoder`` with a NeMo speaker model.

    Args:
        model: An ``EncDecSpeakerLabelModel`` in evaluation mode, on the device of ``runtime``.
        runtime: The device.
        batch: The batch size in windows.
    """

    def __init__(self, model: Any, runtime: Runtime, batch: int) -> None:
        self._model = model
        self._runtime = runtime
        self._batch = batch
        # With masked convolutions, padding does not change an embedding; otherwise a batch has windows of one length.
        self._masked = bool(model.cfg.encoder.get("conv_mask", False))

    def embed(self, audio: Audio, windows: Sequence[Span], progress: Progress) -> NDArray[np.float32]:
        """Return one embedding per window, float32 (windows, values), as ``infer_segment`` does for a single window."""
        if not windows:
            return np.zeros((0, 0), dtype=np.float32)
        pieces = [self._piece(audio, window) for window in windows]  # views, except for windows that are padded
        order = sorted(range(len(pieces)), key=lambda row: len(pieces[row]))
        done = 0

        def run(rows: Sequence[int]) -> Sequence[NDArray[np.float32]]:
            return self._run([pieces[row] for row in rows])

        found: list[NDArray[np.float32]] = []
        for group in [order] if self._masked else _equals(order, pieces):
            before = done

            def report(share: float, group: Sequence[int] = group, before: int = before) -> None:
                progress("embedding", (before + share * len(group)) / len(pieces))

            found += self._runtime.in_batches(group, run, self._batch, report)
            done += len(group)
        embeddings = np.empty((len(pieces), len(found[0])), dtype=np.float32)
        embeddings[order] = found
        return embeddings

    def _run(self, pieces: Sequence[NDArray[np.float32]]) -> Sequence[NDArray[np.float32]]:
        lengths = np.array([len(piece) for piece in pieces], dtype=np.int64)
        batch = np.zeros((len(pieces), int(lengths.max())), dtype=np.float32)
        for row, piece in zip(batch, pieces, strict=True):
            row[: len(piece)] = piece
        with self._runtime.using():
            signal, length = self._runtime.tensor(batch), self._runtime.tensor(lengths)
            _, embeddings = self._model.forward(input_signal=signal, input_signal_length=length)
            return list(embeddings.reshape(len(pieces), -1).to(torch.float32).cpu().numpy())

    @staticmethod
    def _piece(audio: Audio, window: Span) -> NDArray[np.float32]:
        piece = audio.cut(window).samples
        least = round(SHORTEST * SAMPLE_RATE)
        if len(piece) >= least:
            return piece
        if len(piece) == 0:  # shorter than a sample
            return np.zeros(least, dtype=np.float32)
        return np.resize(piece, least)


def _equals(order: Sequence[int], pieces: Sequence[NDArray[np.float32]]) -> list[list[int]]:
    groups: dict[int, list[int]] = {}
    for row in order:
        groups.setdefault(len(pieces[row]), []).append(row)
    return list(groups.values())
