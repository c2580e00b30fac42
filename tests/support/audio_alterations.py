"""Alterations of a recording (gain, delay, sample rate, codec), and sounds without speech."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from diarist.types import SAMPLE_RATE

Sound = NDArray[np.float32]


def read(path: Path) -> Sound:
    """Read a mono WAV file at 16 kHz as float32 of shape (samples,)."""
    samples: Sound
    samples, rate = soundfile.read(path, dtype="float32")
    assert rate == SAMPLE_RATE
    return samples


def write(path: Path, samples: Sound, rate: int = SAMPLE_RATE) -> Path:
    """Write the samples unchanged as WAV."""
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return path


def gain(samples: Sound, decibels: float) -> Sound:
    return (samples * 10 ** (decibels / 20)).astype(np.float32)


def after_silence(samples: Sound, seconds: float) -> Sound:
    return np.concatenate([np.zeros(round(seconds * SAMPLE_RATE), dtype=np.float32), samples])


def encode(path: Path, samples: Sound, codec: str, rate: int = SAMPLE_RATE, bit_rate: int | None = None) -> Path:
    """Encode the samples at another rate with an FFmpeg codec, in the container that the file extension selects."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=rate, layout="mono")
        assert isinstance(stream, av.AudioStream)
        if bit_rate is not None:
            stream.codec_context.bit_rate = bit_rate
        whole = np.rint(samples * 32768).clip(-32768, 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(whole, format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, 0, Fraction(1, SAMPLE_RATE)
        stream.codec_context.open()
        made = stream.codec_context
        resampler = av.AudioResampler(made.format, "mono", made.sample_rate, made.frame_size or 1024)
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    return path


def noise(seconds: float, colour: str, level: float = 0.05, seed: int = 0) -> Sound:
    """Return ``white``, ``pink`` or ``brown`` noise, mains ``hum``, or ``clicks``, with an RMS of ``level``."""
    rng = np.random.default_rng(seed)
    count = round(seconds * SAMPLE_RATE)
    time = np.arange(count) / SAMPLE_RATE
    if colour == "hum":
        raw = sum(np.sin(2 * np.pi * 50 * k * time) / k for k in range(1, 12)) + 0.01 * rng.standard_normal(count)
    elif colour == "clicks":
        raw = np.where(rng.random(count) < 3 / SAMPLE_RATE, rng.uniform(-1, 1, count), 0.0)
        raw = np.convolve(raw, np.exp(-np.arange(400) / 60.0))[:count]
    else:
        slope = {"white": 0.0, "pink": 0.5, "brown": 1.0}[colour]
        spectrum = np.fft.rfft(rng.standard_normal(count))
        raw = np.fft.irfft(spectrum / np.maximum(np.arange(len(spectrum)), 20 * seconds) ** slope, count)
    levelled: NDArray[np.float64] = raw * level / np.sqrt(np.mean(np.square(raw)))
    return levelled.clip(-1, 1).astype(np.float32)


def melody(seconds: float, seed: int = 0) -> Sound:
    """Return instrumental music: chords, bass and a melody of decaying harmonic notes, with a drum."""
    rng = np.random.default_rng(seed)
    beat = round(0.4 * SAMPLE_RATE)
    beats = int(seconds * SAMPLE_RATE) // beat
    made = np.zeros(beats * beat + 4 * beat)
    scale = np.array([0, 2, 4, 5, 7, 9, 11])

    def note(at: int, pitch: int, beats_long: int, level: float) -> None:
        time = np.arange(beats_long * beat) / SAMPLE_RATE
        hertz = 440 * 2 ** ((pitch - 69) / 12)
        tone = sum(np.sin(2 * np.pi * hertz * k * time) / k**1.5 for k in range(1, 8))
        made[at * beat : at * beat + len(time)] += level * tone * np.exp(-2.5 * time) * np.minimum(1, time / 0.01)

    for at in range(beats):
        root = (0, 9, 5, 7)[at // 4 % 4]
        if at % 4 == 0:
            for third in (0, 4, 7):
                note(at, 48 + root + third, 4, 0.3)
        note(at, 36 + root, 1, 0.5)
        note(at, int(60 + rng.choice(scale) + 12 * rng.integers(0, 2)), 1, 0.6)
        drum = rng.standard_normal(beat // 4) * np.exp(-np.arange(beat // 4) / 300)
        made[at * beat : at * beat + len(drum)] += 0.3 * drum
    loudest = float(np.abs(made[: beats * beat]).max())
    return (0.5 * made[: beats * beat] / loudest).astype(np.float32)
