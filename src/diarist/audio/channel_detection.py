"""Detection of what the channels of a recording contain: one party each, the same sound, or different mixes of it.

The decision is made from levels and correlations, never from words. The channels are compared in windows of one second:

- The level difference of a window shows which channel a sound belongs to. With one party per channel it has two modes,
  one for each party; between microphones that pick up everyone, or the sides of stereo, it varies little.
- The generalized cross-correlation with phase transform (Knapp and Carter, "The generalized correlation method for
  estimation of time delay", 1976) shows whether both channels contain the same sound, at any level, polarity and delay
  up to ``MAX_LAG_SAMPLES``. Chance correlations are told from real ones by their lags, which do not recur.

Only a few numbers for each window are kept: 90 kB per channel and 45 kB per pair of channels for each hour.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from diarist.audio.channel_relations import MAX_LAG_SAMPLES, ChannelPair, Floats, Mask, Relation
from diarist.types import SAMPLE_RATE

DECIMATION = 2
RATE = SAMPLE_RATE // DECIMATION
"""The rate of the analysis, in Hz."""

WINDOW_SAMPLES = RATE
HOP_SAMPLES = RATE // 2
FRAME_SAMPLES = RATE // 40
HOP_FRAMES = HOP_SAMPLES // FRAME_SAMPLES
BATCH_WINDOWS = 16
"""The number of windows that are analyzed together."""

ALL_WINDOWS = 240
"""The number of windows, two minutes, that are analyzed for any number of channels."""

PAIRS_PER_WINDOW = 3
"""After ``ALL_WINDOWS``, windows are skipped so that on average at most this number of pairs is correlated in each."""

GROUP_WINDOWS = 4
"""The number of successive windows that are skipped or analyzed together."""

MIN_BIN, MAX_BIN = 200 * WINDOW_SAMPLES // RATE, 3_600 * WINDOW_SAMPLES // RATE
"""The band of the correlation: that of a telephone, without hum."""

MIN_LEVEL_DB = -90.0
"""Frames below this level are digital silence."""

NOISE_PERCENTILE = 10.0
"""This percentile of a channel's frame levels, without digital silence, is taken for its noise."""

MIN_AUDIBLE_SNR_DB = 5.0
"""The minimum level above the noise of a fifth of the frames of a window with any sound. A channel without such windows
is left out."""

MIN_SNR_DB = 10.0
"""The same for an active window."""

MIN_MODULATION_DB = 3.0
"""The minimum difference of the 20th and the 80th percentile of the frame levels of an active window. Speech has more,
and steady noise less."""

MAX_QUIETER_DB = 55.0
"""A window is silent if it is quieter than the loud windows of the loudest channel by more than this."""

MIN_RELATIVE_LEVEL = 0.25
"""A pair of channels is compared where the louder one has at least this share of the energy of any other channel."""

MIN_COHERENCE = 0.08
"""The minimum peak of the correlation of a coherent window; 1 is that of the same sound. The peak of independent sounds
is about 0.055, and above 0.1 in 5% of the windows with two voices."""

_WINDOW: Floats = np.hanning(WINDOW_SAMPLES + 1)[:-1].astype(np.float32)
_LEVELS_DB = np.arange(MIN_LEVEL_DB, 11.0)


@dataclass(frozen=True, slots=True)
class DetectedChannels:
    """What the channels of a recording contain."""

    reason: Literal["mono", "silent", "duplicate", "shared", "crosstalk", "parties"]
    """As for ``ChannelChoice``."""

    kept: tuple[int, ...]
    """The indices of the channels that have sound and are no copy of a better one; never empty."""


class ChannelDetector:
    """Compares the channels of one recording, block by block.

    Args:
        channels: The number of channels.
    """

    def __init__(self, channels: int) -> None:
        self._channels = channels
        self._pairs = tuple(combinations(range(channels), 2))
        self._stride = max(1, math.ceil(len(self._pairs) / PAIRS_PER_WINDOW))
        overlap = WINDOW_SAMPLES - HOP_SAMPLES
        self._pending: Floats = np.zeros(
            (channels, (BATCH_WINDOWS * HOP_SAMPLES + overlap) * DECIMATION), dtype=np.float32
        )
        self._length = 0
        self._windows = 0
        self._histograms = np.zeros((channels, len(_LEVELS_DB) - 1), dtype=np.int64)
        self._levels: list[Floats] = []
        self._peaks: list[Floats] = []
        self._lags: list[NDArray[np.int16]] = []

    def add(self, block: NDArray[np.float32]) -> None:
        """Add a block of shape (samples, channels) at ``SAMPLE_RATE``."""
        if self._channels == 1:
            return
        overlap = (WINDOW_SAMPLES - HOP_SAMPLES) * DECIMATION
        first = 0
        while first < len(block):
            part = block[first : first + self._pending.shape[1] - self._length]
            self._pending[:, self._length : self._length + len(part)] = part.T
            self._length += len(part)
            first += len(part)
            if self._length == self._pending.shape[1]:
                self._analyze(BATCH_WINDOWS)
                self._pending[:, :overlap] = self._pending[:, -overlap:]
                self._length = overlap

    def finish(self) -> DetectedChannels:
        """Return what the channels contain. No block can be added afterwards."""
        if self._channels == 1:
            return DetectedChannels("mono", (0,))
        windows = math.ceil(self._length / (HOP_SAMPLES * DECIMATION)) - 1
        if windows > 0 or not self._windows:
            self._pending[:, self._length :] = 0.0
            self._analyze(max(windows, 1))
        means, loud, soft = np.concatenate(self._levels, axis=1)
        noise_db = np.array([_noise_level(counts) for counts in self._histograms])
        loudest_db = float(_decibels(np.percentile(means, 95.0, axis=0).max()))
        audible = loud > np.maximum(noise_db + MIN_AUDIBLE_SNR_DB, max(loudest_db - MAX_QUIETER_DB, MIN_LEVEL_DB))
        active = audible & (loud > noise_db + MIN_SNR_DB) & (loud - soft > MIN_MODULATION_DB)
        sounding = [channel for channel in range(self._channels) if audible[:, channel].sum() >= 2]
        if len(sounding) < 2:
            return DetectedChannels("silent", tuple(sounding) or (int(means.sum(axis=0).argmax()),))
        noise = 10.0 ** (noise_db / 10.0)
        relations = self._relations(sounding, np.maximum(means - 1.3 * noise, 0.1 * noise), active)
        # The best one of several copies has the most sound above its noise.
        ranked = sorted(sounding, key=lambda channel: (-active[:, channel].sum(), -means[:, channel].sum()))
        return _combined(ranked, relations)

    def _analyze(self, windows: int) -> None:
        """Analyze the first windows of the pending samples."""
        samples = (windows * HOP_SAMPLES + WINDOW_SAMPLES - HOP_SAMPLES) * DECIMATION
        # The mean of two is a low-pass filter that is good enough here, since all channels pass the same one.
        signals = (self._pending[:, :samples:DECIMATION] + self._pending[:, 1:samples:DECIMATION]) * np.float32(0.5)
        # The difference of successive samples suppresses hum and rumble.
        frames = np.diff(signals, axis=1, prepend=signals[:, :1]).reshape(self._channels, -1, FRAME_SAMPLES)
        energy = np.einsum("cfs,cfs->cf", frames, frames) / np.float32(FRAME_SAMPLES)
        decibels = _decibels(energy)
        for index, own in enumerate(decibels[:, : windows * HOP_FRAMES]):
            self._histograms[index] += np.histogram(own, _LEVELS_DB)[0]
        numbers = np.arange(self._windows, self._windows + windows)
        self._windows += windows
        chosen = np.flatnonzero((numbers < ALL_WINDOWS) | (numbers // GROUP_WINDOWS % self._stride == 0))
        if not len(chosen):
            return
        middle = chosen[:, None] * HOP_FRAMES + HOP_FRAMES // 2 + np.arange(HOP_FRAMES)
        loud, soft = np.percentile(decibels[:, middle], [80.0, 20.0], axis=2)
        self._levels.append(np.stack([energy[:, middle].mean(axis=2).T, loud.T, soft.T]).astype(np.float32))
        # Only the phases are needed. Without a norm, NumPy takes twice as long, with double precision.
        slices = np.lib.stride_tricks.sliding_window_view(signals, WINDOW_SAMPLES, axis=1)[:, chosen * HOP_SAMPLES]
        spectra = np.fft.rfft(slices * _WINDOW, norm="forward")[:, :, MIN_BIN:MAX_BIN].astype(np.complex64, copy=False)
        peaks, lags = _correlate(spectra / (np.abs(spectra) + np.float32(1e-12)), self._pairs)
        self._peaks.append(peaks)
        self._lags.append(lags)

    def _relations(self, sounding: Sequence[int], energy: Floats, active: Mask) -> dict[tuple[int, int], Relation]:
        """Return the relation of each pair of channels with sound.

        Args:
            sounding: The indices of the channels with sound.
            energy: The energy of each window above the noise, (windows, channels).
            active: The active windows, (windows, channels).
        """
        peaks, lags = np.concatenate(self._peaks), np.concatenate(self._lags)
        loudest = energy.max(axis=1)
        relations: dict[tuple[int, int], Relation] = {}
        for index, (first, second) in enumerate(self._pairs):
            if first in sounding and second in sounding:
                # Where a third channel is louder, a pair contains only crosstalk from there.
                compared = np.maximum(energy[:, first], energy[:, second]) > MIN_RELATIVE_LEVEL * loudest
                relations[first, second] = ChannelPair(
                    _decibels(energy[:, first]) - _decibels(energy[:, second]),
                    active[:, first] & compared,
                    active[:, second] & compared,
                    peaks[:, index] > MIN_COHERENCE,
                    lags[:, index],
                ).relation()
        return relations


def _correlate(phases: NDArray[np.complex64], pairs: Sequence[tuple[int, int]]) -> tuple[Floats, NDArray[np.int16]]:
    """Return the peak of the correlation of each pair, and its lag in samples, both of shape (windows, pairs).

    Args:
        phases: Spectra of magnitude 1 or 0 from ``MIN_BIN`` to before ``MAX_BIN``, (channels, windows, bins).
        pairs: Pairs of indices of channels.
    """
    windows = phases.shape[1]
    peaks = np.zeros((windows, len(pairs)), dtype=np.float32)
    lags = np.zeros((windows, len(pairs)), dtype=np.int16)
    spectrum = np.zeros((windows, WINDOW_SAMPLES // 2 + 1), dtype=np.complex64)
    scale = np.float32(WINDOW_SAMPLES / (2.0 * (MAX_BIN - MIN_BIN)))
    for index, (first, second) in enumerate(pairs):
        spectrum[:, MIN_BIN:MAX_BIN] = phases[first] * phases[second].conj()
        correlation = np.fft.irfft(spectrum, WINDOW_SAMPLES)
        near = np.abs(
            np.concatenate([correlation[:, -MAX_LAG_SAMPLES:], correlation[:, : MAX_LAG_SAMPLES + 1]], axis=1)
        )
        best = near.argmax(axis=1)
        peaks[:, index] = near[np.arange(windows), best] * scale
        lags[:, index] = best - MAX_LAG_SAMPLES
    return peaks, lags


def _decibels(energy: Floats) -> Floats:
    decibels: Floats = 10.0 * np.log10(energy + np.float32(1e-12))
    return decibels


def _noise_level(counts: NDArray[np.int64]) -> float:
    """Return the ``NOISE_PERCENTILE`` of a histogram of levels, in dB; ``MIN_LEVEL_DB`` if it is empty."""
    if not counts.any():
        return MIN_LEVEL_DB
    index = int(np.searchsorted(np.cumsum(counts), NOISE_PERCENTILE / 100.0 * counts.sum()))
    return float(_LEVELS_DB[index]) + 0.5


def _combined(ranked: Sequence[int], relations: Mapping[tuple[int, int], Relation]) -> DetectedChannels:
    """Return what the channels with sound contain.

    Args:
        ranked: The indices of the channels, the best one of copies first.
        relations: The relation of each pair, by ascending indices.
    """
    kept: list[int] = []
    for channel in ranked:
        if all(relations[min(channel, other), max(channel, other)] != "copy" for other in kept):
            kept.append(channel)
    kept.sort()
    if len(kept) == 1:
        return DetectedChannels("duplicate", tuple(kept))
    found = {relations[pair] for pair in combinations(kept, 2)}
    reason: Literal["shared", "crosstalk", "parties"] = (
        "shared" if "shared" in found else "crosstalk" if "crosstalk" in found else "parties"
    )
    return DetectedChannels(reason, tuple(kept))
