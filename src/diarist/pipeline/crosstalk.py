"""Removal of crosstalk: turns that only repeat, attenuated and delayed, what another channel contains.

In a call with one party per channel, each party is often heard in the channel of the other one: by electrical coupling,
by the acoustic echo of a loudspeaker, or because two microphones are in one room. A channel's own speech is then told
from that of the others by level and correlation, never by the words:

- The path from each channel to each other one is estimated as an impulse response: the Wiener solution in the frequency
  domain, which is the generalized cross-correlation of Knapp and Carter, "The generalized correlation method for
  estimation of time delay" (1976), scaled to the gain of the path. Each window and bin is weighted by the inverse of
  the power of the channel that receives the sound, so that it is estimated where the receiving channel has no speech of
  its own. Only lags whose correlation is significant are kept.
- The energy that the path predicts is compared with that of the channel, frame by frame, as a residual echo suppressor
  or a double-talk detector of telephony does (Benesty, Morgan and Cho, "A new class of doubletalk detectors based on
  cross-correlation", 2000; for meetings Wrigley, Brown, Wan and Renals, "Speech and crosstalk detection in multichannel
  audio", 2005). Frames that have more energy are the channel's own speech. So both parties are kept if they speak at
  once.
- If two channels explain each other, as when only one person speaks in a room with two microphones, the louder channel
  keeps the frame.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from diarist.types import SAMPLE_RATE, Audio, Diarization, Samples, Seconds, Span

Floats: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]

DECIMATION = 2
RATE = SAMPLE_RATE // DECIMATION
"""The rate of the analysis, in Hz: nearly all energy of speech is below 4 kHz."""

FRAME_S: Seconds = 0.02
FRAME_SAMPLES = round(FRAME_S * RATE)
SMOOTHING_FRAMES = 15
"""Energies are averaged over 0.3 s, about the length of a syllable with its reverberation."""

BLOCK_FRAMES = 3_000
"""The path is estimated anew for each minute, since people and levels move."""

FORGETTING = 0.5
"""The weight of earlier minutes in an estimate, relative to that of the following one."""

WINDOW_SAMPLES = 8_192
"""The analysis window of 1.024 s contains the longest lag several times."""

HOP_SAMPLES = WINDOW_SAMPLES // 2

MIN_LAG_SAMPLES = -round(0.05 * RATE)
"""The copy may come this much earlier, as between the microphones of one room, or with channels that are not aligned.
"""

MAX_LAG_SAMPLES = round(0.3 * RATE)
"""The maximum delay of an echo, with its reverberation."""

MAX_ATTENUATION = 1e-6
"""The minimum power of a copy relative to its source (-60 dB)."""

SIGNIFICANCE = 5.0
"""A lag belongs to the path if its correlation exceeds this many standard deviations of that at impossible lags."""

BAND_BINS = 32
"""Weights and significance are those of bands of this many bins, 31 Hz."""

BANDS = WINDOW_SAMPLES // 2 // BAND_BINS

OWN_SPEECH_RATIO = 4.0
"""A frame with more than this multiple of the predicted energy (6 dB), and of the noise, is the channel's own speech.
The prediction leaves out late reverberation and whatever changes within a minute."""

NOISE_PERCENTILE = 5.0
"""This percentile of a channel's frame energies is taken for its noise."""

LOUD_PERCENTILE = 99.0
"""This percentile of a channel's frame energies is taken for its loud speech."""

QUIET_SOURCE = 1e-4
"""Windows in which a source is always quieter than this part of its loud speech in the block say nothing of a path."""

QUIETEST_SPEECH = 10**-3.5
"""The minimum energy of own speech between crosstalk, relative to the channel's loud speech. What is fainter is taken
for noise, since noise may change its level, as that of a gate does."""

INAUDIBLE = 1e-5
"""The minimum energy of own speech between crosstalk, relative to loud speech in the loudest channel."""

OWN_MARGIN_FRAMES = 15
"""Frames beside own speech, 0.3 s, that are too faint to be called own speech or crosstalk are kept with it."""

MIN_CROSSTALK_FRAMES = 15
"""Shorter crosstalk between own speech, 0.3 s, is not cut out of it."""

MIN_PART_S: Seconds = 0.2
"""A shorter part of a turn is no word, and is dropped."""


_WINDOW: Floats = np.hanning(WINDOW_SAMPLES + 1)[:-1].astype(np.float32)
_WINDOW_OVERLAP: Floats = np.array(
    [
        float(_WINDOW[abs(lag) :] @ _WINDOW[: WINDOW_SAMPLES - abs(lag)] / (_WINDOW @ _WINDOW))
        for lag in range(MIN_LAG_SAMPLES, MAX_LAG_SAMPLES + 1)
    ],
    dtype=np.float32,
)
"""The correlation that is left at each lag of two windows at the same position."""


def find_crosstalk(
    channels: Sequence[Audio], speech: Sequence[Sequence[Span]], check: Callable[[], None]
) -> tuple[tuple[Span, ...], ...]:
    """Return the time in which each channel contains nothing but sound of another one: ordered, disjoint spans.

    Args:
        channels: The channels of one recording; they may differ in length.
        speech: The speech of each channel.
        check: Called about once for each minute of the recording. Its exceptions are propagated.
    """
    count = max(-(-len(audio.samples) * RATE // (SAMPLE_RATE * FRAME_SAMPLES)) for audio in channels)
    energy, predicted = _energies(channels, np.stack([_frame_mask(own, count) for own in speech]), check)
    return tuple(
        tuple(Span(first * FRAME_S, stop * FRAME_S) for first, stop in _runs(_crosstalk(channel, energy, predicted)))
        for channel in range(len(channels))
    )


def without_crosstalk(diarization: Diarization, crosstalk: Sequence[Span]) -> Diarization:
    """Return the diarization with the spans cut out of its turns and of its possible speech.

    Parts of turns that become shorter than ``MIN_PART_S`` are dropped, and so is a speaker without any turn left.
    """
    turns = tuple(
        sorted(replace(turn, span=span) for turn in diarization.turns for span in _parts(turn.span, crosstalk))
    )
    possible = tuple(part for span in diarization.possible_speech for part in _parts(span, crosstalk)) if turns else ()
    if turns == diarization.turns:
        return (
            diarization if possible == diarization.possible_speech else replace(diarization, possible_speech=possible)
        )
    remaining = Diarization(turns)
    rows = [diarization.speakers.index(speaker) for speaker in remaining.speakers]
    activity = diarization.activity
    if activity is not None:
        activity = replace(activity, scores=activity.scores[:, rows]) if rows else None
    return replace(
        diarization, turns=turns, embeddings=diarization.embeddings[rows], activity=activity, possible_speech=possible
    )


def _energies(channels: Sequence[Audio], speech: Mask, check: Callable[[], None]) -> tuple[Floats, Floats]:
    """Return the energy of each channel's frames, and that of each channel as it is predicted from each other one.

    Args:
        channels: The channels.
        speech: The frames of each channel's turns, (channels, frames).
        check: Called once for each block.

    Returns:
        Smoothed mean squares: (channels, frames), and (channels, sources, frames) with zeros on the diagonal.
    """
    count = speech.shape[1]
    pairs = tuple(permutations(range(len(channels)), 2))
    paths = {pair: _PathEstimate() for pair in pairs}
    energy = np.zeros((len(channels), count), dtype=np.float32)
    predicted = np.zeros((len(channels), len(channels), count), dtype=np.float32)
    for first in range(0, count, BLOCK_FRAMES):
        check()
        frames = min(BLOCK_FRAMES, count - first)
        start, length = first * FRAME_SAMPLES, frames * FRAME_SAMPLES
        before, after = MAX_LAG_SAMPLES, -MIN_LAG_SAMPLES
        signals = [_decimated(audio, start - before, start + length + after) for audio in channels]
        blocks = [signal[before : before + length] for signal in signals]
        for channel, block in enumerate(blocks):
            energy[channel, first : first + frames] = _frame_energy(block)
        speaks = [mask[first : first + frames] for mask in speech]
        recent = energy[:, first : first + frames]
        sounds = recent > QUIET_SOURCE * np.percentile(recent, LOUD_PERCENTILE, axis=1, keepdims=True)
        chosen = {
            (channel, source): _windows_with(speaks[channel], WINDOW_SAMPLES // 4)
            & _windows_with(sounds[source], WINDOW_SAMPLES // 2)
            for channel, source in pairs
        }
        used = np.logical_or.reduce(list(chosen.values()))
        spectra = [_Spectra.of(block, used) for block in blocks]
        for channel, source in pairs:
            path = paths[channel, source]
            path.add(spectra[channel], spectra[source], chosen[channel, source][used])
            response = path.impulse_response()
            if response is not None and speaks[channel].any():
                copy = _convolve(signals[source], response)[:length]
                predicted[channel, source, first : first + frames] = _frame_energy(copy)
    for row in (*energy, *predicted.reshape(-1, count)):
        row[:] = _smoothed(row)
    return energy, predicted


@dataclass(frozen=True, slots=True, eq=False)
class _Spectra:
    """The spectra of windows of a block, in bands. The bin at half the rate is left out."""

    values: NDArray[np.complex64]
    """(windows, bands, bins)."""

    power: Floats
    """(windows, bands, bins)."""

    band_power: Floats
    """The mean power of the bins of each band, (windows, bands)."""

    @classmethod
    def of(cls, block: Floats, used: Mask) -> _Spectra:
        """Return the spectra of the used windows of a block."""
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(block, (HOP_SAMPLES, WINDOW_SAMPLES)), WINDOW_SAMPLES)
        spectra = _rfft(windows[::HOP_SAMPLES][used] * _WINDOW, WINDOW_SAMPLES)
        values = spectra[:, :-1].reshape(len(spectra), BANDS, BAND_BINS)
        power = np.square(values.real) + np.square(values.imag)
        return cls(values, power, power.mean(axis=2))


class _PathEstimate:
    """The path of sound from a source channel to another one, from the windows so far."""

    def __init__(self) -> None:
        self._cross: NDArray[np.complex128] = np.zeros((BANDS, BAND_BINS), dtype=np.complex128)
        self._weight = np.zeros((BANDS, BAND_BINS))

    def add(self, channel: _Spectra, source: _Spectra, chosen: Mask) -> None:
        """Add the chosen windows of a block.

        Args:
            channel: The spectra of the channel that receives the sound.
            source: The spectra of the source.
            chosen: Which windows to use, (windows,).
        """
        self._cross *= FORGETTING
        self._weight *= FORGETTING
        if not chosen.any():
            return
        # The power of single bins would give most weight to those where the copy and the noise happen to cancel, and
        # that of single windows to those where the source has begun and its echo has not.
        bands = channel.band_power.copy()
        bands[1:-1] = np.maximum(np.maximum(bands[:-2], bands[2:]), bands[1:-1])
        floor = np.float32(MAX_ATTENUATION) * source.band_power + np.float32(1e-12)
        inverse = chosen[:, None] / (bands + floor)
        weighted = source.values * inverse[:, :, None]
        np.conj(weighted, out=weighted)
        self._cross += np.einsum("wkb,wkb->kb", weighted, channel.values)
        self._weight += np.einsum("wk,wkb->kb", inverse, source.power)

    def impulse_response(self) -> Floats | None:
        """Return the path at the lags from ``MIN_LAG_SAMPLES`` to ``MAX_LAG_SAMPLES``, or None if there is none."""
        if not self._weight.any():
            return None
        gain = self._cross / (self._weight + 1e-30)
        # The inverse of the weight is the variance of the gain if the channel has no relation to the source.
        significance = (np.abs(gain) ** 2 * self._weight).mean(axis=1, keepdims=True)
        shrinkage = np.maximum(0.0, 1.0 - 1.5 / (significance + 1e-30))
        response = np.fft.irfft(np.append(shrinkage * gain, 0.0), WINDOW_SAMPLES)
        inside = np.concatenate([response[MIN_LAG_SAMPLES:], response[: MAX_LAG_SAMPLES + 1]])
        outside = response[MAX_LAG_SAMPLES + 1 : MIN_LAG_SAMPLES]
        deviation = float(np.median(np.abs(outside))) / 0.6745  # that of a normal distribution, in spite of outliers
        significant = np.abs(inside) > SIGNIFICANCE * deviation
        if not significant.any():
            return None
        kept: Floats = np.where(significant, inside / _WINDOW_OVERLAP, 0.0).astype(np.float32)
        return kept


def _crosstalk(channel: int, energy: Floats, predicted: Floats) -> Mask:
    """Return in which frames a channel contains nothing but sound of another one.

    Args:
        channel: The index of the channel.
        energy: (channels, frames).
        predicted: (channels, sources, frames).
    """
    own_energy = energy[channel]
    copy = np.zeros(len(own_energy), dtype=np.bool_)
    for source, source_energy in enumerate(energy):
        if source == channel:
            continue
        explained = _is_explained(own_energy, predicted[channel, source])
        mutual = explained & _is_explained(source_energy, predicted[source, channel])
        louder = own_energy >= source_energy if channel < source else own_energy > source_energy
        copy |= explained & ~(mutual & louder)
    # Nobody hears a copy in the noise. Without this, faint relations of the noise would cut into clean channels.
    noise = OWN_SPEECH_RATIO * float(np.percentile(own_energy, NOISE_PERCENTILE))
    copy &= own_energy > noise
    rest = own_energy[~copy]
    own = ~copy
    if len(rest):
        quietest = QUIETEST_SPEECH * float(np.percentile(rest, LOUD_PERCENTILE))
        inaudible = INAUDIBLE * max(float(np.percentile(each, LOUD_PERCENTILE)) for each in energy)
        own &= own_energy > max(noise, quietest, inaudible)
    # A pause belongs to what is before and after it. Between own speech and a copy, only its edge is kept.
    pauses = ~copy & ~own
    near_own = np.convolve(own, np.ones(2 * OWN_MARGIN_FRAMES + 1), mode="same") > 0.5
    for first, stop in _runs(pauses):
        if copy[first - 1 : first].any() or copy[stop : stop + 1].any():
            copy[first:stop] |= ~near_own[first:stop]
    for first, stop in _runs(copy):
        if stop - first < MIN_CROSSTALK_FRAMES and first > 0 and stop < len(copy):
            copy[first:stop] = False
    return copy


def _is_explained(energy: Floats, predicted: Floats) -> Mask:
    explained: Mask = (predicted > 0) & (energy <= OWN_SPEECH_RATIO * predicted)
    return explained


def _parts(span: Span, crosstalk: Sequence[Span]) -> Iterator[Span]:
    """Yield what is left of a span without crosstalk, except for parts that are too short."""
    start, cut = span.start, False
    for at in range(bisect_left(crosstalk, span.start, key=lambda other: other.end), len(crosstalk)):
        if crosstalk[at].start >= span.end:
            break
        if crosstalk[at].start - start >= MIN_PART_S:
            yield Span(start, crosstalk[at].start)
        start, cut = crosstalk[at].end, True
    if not cut or span.end - start >= MIN_PART_S:
        yield Span(start, span.end)


def _decimated(audio: Audio, start: int, stop: int) -> Floats:
    """Return samples at ``RATE``, from ``start`` to before ``stop``; there is silence outside of the audio."""
    samples: Samples = np.zeros((stop - start) * DECIMATION, dtype=np.float32)
    part = audio.part(start * DECIMATION, stop * DECIMATION)
    offset = max(0, -start * DECIMATION)
    samples[offset : offset + len(part)] = part
    # The mean of two is a low-pass filter that is good enough here, since all channels pass the same one.
    decimated: Floats = (samples[::DECIMATION] + samples[1::DECIMATION]) * np.float32(0.5)
    return decimated


def _frame_energy(samples: Floats) -> Floats:
    frames = samples.reshape(-1, FRAME_SAMPLES)
    energy: Floats = np.einsum("fs,fs->f", frames, frames) / np.float32(FRAME_SAMPLES)
    return energy


def _rfft(samples: Floats, size: int) -> NDArray[np.complex64]:
    """Return the transform of the last axis. Without a norm, NumPy takes twice as long, with double precision."""
    spectra = np.fft.rfft(samples, size, norm="forward").astype(np.complex64, copy=False)
    spectra *= np.float32(size)
    return spectra


def _windows_with(frames: Mask, reach_samples: int) -> Mask:
    """Return which windows of a block have one of these frames up to a distance from their middle, (windows,).

    The first window has its middle at the start of the block.
    """
    centers = np.arange(0, len(frames) * FRAME_SAMPLES + HOP_SAMPLES + 1, HOP_SAMPLES) // FRAME_SAMPLES
    reach = reach_samples // FRAME_SAMPLES
    before = np.concatenate([[0], np.cumsum(frames)])
    chosen: Mask = before[np.clip(centers + reach, 0, len(frames))] > before[np.clip(centers - reach, 0, len(frames))]
    return chosen


def _convolve(signal: Floats, response: Floats) -> Floats:
    """Return the signal through the path, without the edges, by the overlap-save method."""
    size = 4 * WINDOW_SAMPLES
    step = size - len(response) + 1
    length = len(signal) - len(response) + 1
    spectrum = _rfft(response, size)
    pieces = []
    for first in range(0, length, step):
        piece = np.fft.irfft(_rfft(signal[first : first + size], size) * spectrum, size)
        pieces.append(piece[len(response) - 1 :])
    return np.concatenate(pieces)[:length].astype(np.float32, copy=False)


def _smoothed(energy: Floats) -> Floats:
    """Return the mean of ``SMOOTHING_FRAMES`` around each frame."""
    padded = np.pad(energy, SMOOTHING_FRAMES // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, SMOOTHING_FRAMES)
    smoothed: Floats = windows.mean(axis=1, dtype=np.float32)
    return smoothed


def _frame_mask(spans: Sequence[Span], count: int) -> Mask:
    """Return which of ``count`` frames the spans touch."""
    mask = np.zeros(count, dtype=np.bool_)
    for span in spans:
        mask[math.floor(span.start / FRAME_S) : math.ceil(span.end / FRAME_S)] = True
    return mask


def _runs(mask: Mask) -> list[tuple[int, int]]:
    """Return the first frame and the end of each run of frames that are true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    return [(first, stop) for first, stop in edges.reshape(-1, 2).tolist()]
