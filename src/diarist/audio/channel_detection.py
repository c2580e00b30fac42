"""Detection of what the channels of a recording contain: one party each, the same sound, or different mixes of it.

The decision is made from levels and correlations, never from words. The channels are compared in windows of one second:

- The level difference of a window shows which channel a sound belongs to. With one party per channel it has two modes,
  one for each party; between microphones that pick up everyone, or the sides of stereo, it varies little.
- The generalized cross-correlation with phase transform (Knapp and Carter, "The generalized correlation method for
  estimation of time delay", 1976) shows whether both channels contain the same sound, at any level, polarity and delay
  up to ``MAX_LAG_SAMPLES``. Chance correlations are told from real ones by their lags, which do not recur.

Only results of windows are kept, about 60 kB per channel and 80 kB per pair of channels for each hour.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from diarist.types import SAMPLE_RATE

Floats: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]
Relation: TypeAlias = Literal["copy", "shared", "crosstalk", "independent"]
"""``copy``: one channel contains the other one. ``shared``: both contain several sounds in common, or too little is
known. ``crosstalk`` and ``independent``: each contains sound of its own, with or without a faint copy of the other."""

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
"""The number of windows, two minutes, that are correlated for any number of channels."""

PAIRS_PER_WINDOW = 3
"""After ``ALL_WINDOWS``, windows are skipped so that at most this number of pairs is correlated for each window."""

GROUP_WINDOWS = 4
"""The number of successive windows that are skipped or correlated together."""

MIN_BIN, MAX_BIN = 200 * WINDOW_SAMPLES // RATE, 3_600 * WINDOW_SAMPLES // RATE
"""The band of the correlation: that of a telephone, without hum."""

MAX_LAG_SAMPLES = round(0.3 * RATE)

MIN_LEVEL_DB = -90.0
"""Frames below this level are digital silence."""

NOISE_PERCENTILE = 10.0
"""This percentile of a channel's frame levels, without digital silence, is taken for its noise."""

MIN_SNR_DB = 10.0
"""The minimum level above the noise of a fifth of the frames of an active window."""

MIN_RELATIVE_LEVEL = 0.25
"""A pair of channels is compared where the louder one has at least this share of the energy of any other channel."""

MIN_AUDIBLE_SNR_DB = 5.0
"""The same for a channel with any sound at all. A channel is left out only if it has less."""

MIN_MODULATION_DB = 3.0
"""The minimum difference of the levels that a fifth and four fifths of the frames of an active window exceed. Speech
has more, and steady noise less."""

MAX_QUIETER_DB = 55.0
"""A window is not active if it is quieter than the loud windows of the loudest channel by more than this."""

MIN_COHERENCE = 0.08
"""The minimum peak of the correlation of a coherent window; 1 is that of the same sound. The peak of independent sounds
is about 0.055, and above 0.1 in 5% of the windows with two voices."""

MIN_LAG_SHARE = 0.02
"""The minimum share of the coherent windows that have a lag in common, if it is real. By chance it is 0.001."""

LAG_TOLERANCE_SAMPLES = 2

MIN_PARTY_SHARE = 0.02
"""The minimum share of the active windows that are a party's own."""

MIN_PARTY_WINDOWS = 2

MIN_RUN_WINDOWS = 3
"""The minimum number of successive windows of speech, 1.5 s. Knocks and clicks are shorter."""

MAX_COPY_SPREAD_DB = 3.0
"""The maximum difference of the 10th and the 90th percentile of the level difference between a channel and its copy."""

LONG_DELAY_SAMPLES = round(0.02 * RATE)
"""With a longer delay, the level difference of a window varies. Such a delay in a single direction is that of a copy or
an echo, but not that of crosstalk in both directions."""

MIN_COPY_SHARE = 0.8
"""The minimum share of the windows with sound in both channels in which a copy has its one lag."""

MAX_PARTIAL_COPY_DB = 3.0
"""A channel that contains the other one and more is at most this much quieter than it. Otherwise the copy is an
echo."""

RELATED_SHARE = 0.3
"""The minimum share of a party's windows that are coherent, if the other channel contains its sound."""

MIN_INDEPENDENT_DB = 6.0
"""The minimum difference of the level differences of two parties without crosstalk. That of unrelated sounds at once is
above 10 dB; that of distant microphones, whose sound is not coherent, below 3 dB."""

MIN_CROSSTALK_DB = 16.0
"""The minimum difference of the level differences of two parties with crosstalk: in both directions it is 20 dB with
crosstalk of -10 dB, and 12 dB with two microphones at twice the distance from one speaker as from the other."""

MIN_ECHO_DB = 8.0
"""The minimum attenuation of crosstalk in one direction."""

MAX_SHARED_SHARE = 0.05
"""The maximum share of the active windows with sound of somebody else, who is in both channels at a similar level."""

_WINDOW: Floats = np.hanning(WINDOW_SAMPLES + 1)[:-1].astype(np.float32)
_LEVELS_DB = np.arange(math.floor(MIN_LEVEL_DB), 11.0)


@dataclass(frozen=True, slots=True)
class DetectedChannels:
    """What the channels of a recording contain."""

    reason: Literal["mono", "silent", "duplicate", "shared", "crosstalk", "parties"]
    """``mono``: there is one channel. ``silent``: at most one channel has sound. ``duplicate``: one channel contains
    all sound. ``shared``: people are in several channels. ``crosstalk`` and ``parties``: each channel has one party."""

    kept: tuple[int, ...]
    """The indexes of the channels that have sound and are no copy of a better one; the first channel if there are
    none."""


class ChannelDetector:
    """Compares the channels of one recording, block by block.

    Args:
        channels: The number of channels.
    """

    def __init__(self, channels: int) -> None:
        self._channels = channels
        self._pairs = tuple(combinations(range(channels), 2))
        self._stride = -(-len(self._pairs) // PAIRS_PER_WINDOW)
        self._pending: Floats = np.zeros(
            (channels, (BATCH_WINDOWS * HOP_SAMPLES + WINDOW_SAMPLES - HOP_SAMPLES) * DECIMATION), dtype=np.float32
        )
        self._length = 0
        self._windows = 0
        self._histogram = np.zeros((channels, len(_LEVELS_DB) - 1), dtype=np.int64)
        self._levels: list[Floats] = []
        self._correlations: list[tuple[Floats, NDArray[np.int16]]] = []

    def add(self, block: NDArray[np.float32]) -> None:
        """Add a block of shape (samples, channels) at ``SAMPLE_RATE``."""
        if self._channels == 1:
            return
        first = 0
        while first < len(block):
            part = block[first : first + self._pending.shape[1] - self._length]
            self._pending[:, self._length : self._length + len(part)] = part.T
            self._length += len(part)
            first += len(part)
            if self._length == self._pending.shape[1]:
                self._analyze(BATCH_WINDOWS)
                overlap = (WINDOW_SAMPLES - HOP_SAMPLES) * DECIMATION
                self._pending[:, :overlap] = self._pending[:, -overlap:]
                self._length = overlap

    def finish(self) -> DetectedChannels:
        """Return what the channels contain. No block can be added afterwards."""
        if self._channels == 1:
            return DetectedChannels("mono", (0,))
        windows = -(-self._length // (HOP_SAMPLES * DECIMATION)) - (1 if self._windows else 0)
        if windows > 0 or not self._windows:
            self._pending[:, self._length :] = 0.0
            self._analyze(min(max(windows, 1), BATCH_WINDOWS))
        means, loud, soft = np.concatenate(self._levels, axis=1)
        levels = np.array([_percentile_level(counts) for counts in self._histogram])
        loudest_db = 10.0 * np.log10(float(np.percentile(means, 95.0, axis=0).max()) + 1e-12)
        above = loud > max(loudest_db - MAX_QUIETER_DB, MIN_LEVEL_DB)
        audible = (above & (loud > levels + MIN_AUDIBLE_SNR_DB)).sum(axis=0)
        active = above & (loud > levels + MIN_SNR_DB) & (loud - soft > MIN_MODULATION_DB)
        sounding = [channel for channel in range(self._channels) if audible[channel] >= MIN_PARTY_WINDOWS]
        if len(sounding) < 2:
            return DetectedChannels("silent", tuple(sounding) or (int(means.sum(axis=0).argmax()),))
        peaks = np.concatenate([peaks for peaks, _ in self._correlations])
        lags = np.concatenate([lags for _, lags in self._correlations])
        noise = 10.0 ** (levels / 10.0)
        excess = np.maximum(means - 2.0 * noise, 0.1 * noise)
        relations = {}
        for index, (first, second) in enumerate(self._pairs):
            if first in sounding and second in sounding:
                difference = 10.0 * np.log10((excess[:, first] / excess[:, second]).clip(1e-6, 1e6))
                # Where a third channel is louder, a pair contains only crosstalk from there.
                loudest = np.maximum(excess[:, first], excess[:, second]) > MIN_RELATIVE_LEVEL * excess.max(axis=1)
                relations[first, second] = _relation(
                    difference, active[:, first] & loudest, active[:, second] & loudest,
                    peaks[:, index] > MIN_COHERENCE, lags[:, index],
                )  # fmt: skip
        return _combined(sounding, relations, means, active)

    def _analyze(self, windows: int) -> None:
        """Analyze the first windows of the pending samples."""
        samples = (windows * HOP_SAMPLES + WINDOW_SAMPLES - HOP_SAMPLES) * DECIMATION
        # The mean of two is a low-pass filter that is good enough here, since all channels pass the same one.
        signals = (self._pending[:, :samples:DECIMATION] + self._pending[:, 1:samples:DECIMATION]) * np.float32(0.5)
        chosen = [
            window for window in range(windows)
            if self._windows + window < ALL_WINDOWS or (self._windows + window) // GROUP_WINDOWS % self._stride == 0
        ]  # fmt: skip
        self._windows += windows
        # The difference of successive samples suppresses hum and rumble.
        frames = np.diff(signals, axis=1, prepend=signals[:, :1]).reshape(self._channels, -1, FRAME_SAMPLES)
        energy = np.einsum("cfs,cfs->cf", frames, frames) / np.float32(FRAME_SAMPLES)
        decibels = 10.0 * np.log10(energy + np.float32(1e-12))
        for counts, own in zip(self._histogram, decibels[:, : windows * HOP_FRAMES], strict=True):
            counts += np.histogram(own, _LEVELS_DB)[0]
        if not chosen:
            return
        starts = np.array(chosen)
        middle = starts[:, None] * HOP_FRAMES + HOP_FRAMES // 2 + np.arange(HOP_FRAMES)
        self._levels.append(
            np.stack(
                [
                    energy[:, middle].mean(axis=2).T,
                    *(np.percentile(decibels[:, middle], percentile, axis=2).T for percentile in (80.0, 20.0)),
                ]
            ).astype(np.float32)
        )
        slices = np.lib.stride_tricks.sliding_window_view(signals, WINDOW_SAMPLES, axis=1)[:, starts * HOP_SAMPLES]
        spectra = np.fft.rfft(slices * _WINDOW)[:, :, MIN_BIN:MAX_BIN]
        phases = spectra / (np.abs(spectra) + np.float32(1e-12))
        self._correlations.append(_correlate(phases, self._pairs))


def _correlate(
    phases: NDArray[np.complex64], pairs: Sequence[tuple[int, int]]
) -> tuple[Floats, NDArray[np.int16]]:
    """Return the peak of the correlation of each pair, and its lag in samples, both of shape (windows, pairs).

    Args:
        phases: Spectra of magnitude 1 or 0 from ``MIN_BIN`` to before ``MAX_BIN``, (channels, windows, bins).
        pairs: The indexes of channels.
    """
    windows = phases.shape[1]
    peaks = np.zeros((windows, len(pairs)), dtype=np.float32)
    lags = np.zeros((windows, len(pairs)), dtype=np.int16)
    spectrum = np.zeros((windows, WINDOW_SAMPLES // 2 + 1), dtype=np.complex64)
    rows = np.arange(windows)
    scale = np.float32(WINDOW_SAMPLES / (2.0 * (MAX_BIN - MIN_BIN)))
    for index, (first, second) in enumerate(pairs):
        spectrum[:, MIN_BIN:MAX_BIN] = phases[first] * phases[second].conj()
        correlation = np.fft.irfft(spectrum, WINDOW_SAMPLES)
        near = np.abs(np.concatenate([correlation[:, -MAX_LAG_SAMPLES:], correlation[:, : MAX_LAG_SAMPLES + 1]], axis=1))
        best = near.argmax(axis=1)
        peaks[:, index] = near[rows, best] * scale
        lags[:, index] = best - MAX_LAG_SAMPLES
    return peaks, lags


def _percentile_level(counts: NDArray[np.int64]) -> float:
    """Return the ``NOISE_PERCENTILE`` of a histogram of levels, in dB; ``MIN_LEVEL_DB`` if it is empty."""
    if not counts.any():
        return MIN_LEVEL_DB
    index = np.searchsorted(np.cumsum(counts), NOISE_PERCENTILE / 100.0 * counts.sum())
    return float(_LEVELS_DB[index]) + 0.5


def _relation(difference: Floats, first: Mask, second: Mask, coherent: Mask, lags: NDArray[np.int16]) -> Relation:
    """Return how two channels are related.

    Args:
        difference: The level of the first channel relative to the second one, in dB, (windows,).
        first: The active windows of the first channel.
        second: The active windows of the second channel.
        coherent: The windows whose correlation is high, if only by chance.
        lags: The lags of the highest correlation.
    """
    heard = first | second
    needed = max(MIN_PARTY_WINDOWS, math.ceil(MIN_PARTY_SHARE * heard.sum()))
    coherent = coherent & heard
    common = _common_lags(lags[coherent])
    coherent = coherent & np.isin(lags, common)
    if _is_copy(difference, first, second, coherent, lags, needed):
        return "copy"
    if min(_in_long_runs(first), _in_long_runs(second)) < needed:
        return "shared"
    highest = float(np.sort(difference[first])[-needed])
    lowest = float(np.sort(difference[second])[needed - 1])
    middle = (highest + lowest) / 2.0
    parties = first & (difference > middle), second & (difference < middle)
    if min(_in_long_runs(party) for party in parties) < needed:
        return "shared"
    upper, lower = (float(np.median(difference[party])) for party in parties)
    related = [bool(coherent[party].mean() >= RELATED_SHARE) for party in parties]
    if upper - lower < (MIN_CROSSTALK_DB if any(related) else MIN_INDEPENDENT_DB):
        return "shared"
    if related == [True, False] and upper < MIN_ECHO_DB or related == [False, True] and lower > -MIN_ECHO_DB:
        return "shared"
    # Somebody whom both channels contain at a similar level has other lags than the parties.
    own = coherent & ((difference > upper - (upper - lower) / 4.0) | (difference < lower + (upper - lower) / 4.0))
    known = _common_lags(lags[own & (parties[0] | parties[1])], tolerance=2 * LAG_TOLERANCE_SAMPLES) if any(related) else ()
    shared = coherent & ~own & ~np.isin(lags, known)
    if shared.sum() > max(MAX_SHARED_SHARE * heard.sum(), MIN_PARTY_WINDOWS):
        return "shared"
    return "crosstalk" if any(related) else "independent"


def _is_copy(
    difference: Floats, first: Mask, second: Mask, coherent: Mask, lags: NDArray[np.int16], needed: int
) -> bool:
    """Return whether one channel contains what the other one does; the arguments are those of ``_relation``."""
    both = first & second
    same = both & coherent
    if both.sum() < MIN_PARTY_WINDOWS or not same.any():
        return False
    lag = int(np.median(lags[same]))
    if (np.abs(lags[same] - lag) <= LAG_TOLERANCE_SAMPLES).sum() < MIN_COPY_SHARE * both.sum():
        return False
    soft, level, loud = np.percentile(difference[both], [10.0, 50.0, 90.0])
    if abs(lag) > LONG_DELAY_SAMPLES and abs(level) <= MAX_PARTIAL_COPY_DB:
        return True
    if loud - soft > MAX_COPY_SPREAD_DB:
        return False
    # A channel that is active alone has more than the copy. It may be the only one, and not merely repeat the other one.
    first_alone = int((first & ~second & (difference > level + MIN_SNR_DB)).sum()) >= needed
    second_alone = int((second & ~first & (difference < level - MIN_SNR_DB)).sum()) >= needed
    return not (first_alone and second_alone) and (
        (not first_alone or level >= -MAX_PARTIAL_COPY_DB) and (not second_alone or level <= MAX_PARTIAL_COPY_DB)
    )


def _in_long_runs(mask: Mask) -> int:
    """Return the number of windows in runs of at least ``MIN_RUN_WINDOWS``."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    lengths = edges[1::2] - edges[::2]
    return int(lengths[lengths >= MIN_RUN_WINDOWS].sum())


def _common_lags(lags: NDArray[np.int16], tolerance: int = LAG_TOLERANCE_SAMPLES) -> NDArray[np.intp]:
    """Return the lags that recur, with those beside them."""
    counts = np.bincount(lags.astype(np.intp) + MAX_LAG_SAMPLES, minlength=2 * MAX_LAG_SAMPLES + 1)
    near = np.convolve(counts, np.ones(2 * LAG_TOLERANCE_SAMPLES + 1, dtype=np.intp), mode="same")
    recurring = near >= max(2, math.ceil(MIN_LAG_SHARE * len(lags)))
    spread = np.convolve(recurring & (counts > 0), np.ones(2 * tolerance + 1, dtype=np.intp), mode="same")
    return np.flatnonzero(spread) - MAX_LAG_SAMPLES


def _combined(
    sounding: Sequence[int], relations: Mapping[tuple[int, int], Relation], means: Floats, active: Mask
) -> DetectedChannels:
    """Return what the channels with sound contain, by the relation of each pair of them."""
    # The best of the copies has the most sound above its noise.
    ranked = sorted(sounding, key=lambda channel: (-active[:, channel].sum(), -means[:, channel].sum()))
    best: list[int] = []
    for channel in ranked:
        if all(relations[min(channel, other), max(channel, other)] != "copy" for other in best):
            best.append(channel)
    kept = tuple(sorted(best))
    if len(kept) == 1:
        return DetectedChannels("duplicate", kept)
    found = {relations[pair] for pair in combinations(kept, 2)}
    return DetectedChannels("shared" if "shared" in found else "crosstalk" if "crosstalk" in found else "parties", kept)
