"""Audio files generated for tests: tones in any container and codec that the installed FFmpeg can write."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import av
import numpy as np
from av.container import OutputContainer
from numpy.typing import NDArray

from diarist.types import SAMPLE_RATE, Samples

Sound = NDArray[np.float64]


def tone(
    seconds: float = 2.0, rate: int = SAMPLE_RATE, hertz: float = 440.0, level: float = 0.5, channels: int = 1
) -> Sound:
    """Return the same sine in every channel, float64 of shape (samples, channels)."""
    time = np.arange(round(seconds * rate)) / rate
    return np.repeat(level * np.sin(2 * np.pi * hertz * time)[:, None], channels, axis=1)


def tones(*hertz: float, seconds: float = 2.0, rate: int = SAMPLE_RATE, level: float = 0.5) -> Sound:
    """Return a different sine in each channel; 0 Hz is silence."""
    return np.concatenate([tone(seconds, rate, h, level if h else 0.0) for h in hertz], axis=1)


def loudest_hertz(samples: Sound | Samples, rate: int = SAMPLE_RATE) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax() * rate / len(samples))


def rms(samples: Sound | Samples) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def encode(
    path: Path,
    sound: Sound,
    rate: int,
    codec: str,
    *,
    container: str | None = None,
    layout: str | None = None,
    options: dict[str, str] | None = None,
    codec_options: dict[str, str] | None = None,
    bit_rate: int | None = None,
    start: float = 0.0,
) -> Path:
    """Encode float samples of shape (samples, channels) with PyAV."""
    channels = sound.shape[1]
    layout = layout or {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[channels]
    with av.open(str(path), "w", format=container, options=options or {}) as file:
        stream = file.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(stream, av.AudioStream)
        stream.codec_context.options = codec_options or {}
        if bit_rate:
            stream.bit_rate = bit_rate
        push(file, stream, sound, rate, layout, start=start)
    return path


def push(
    file: OutputContainer,
    stream: av.AudioStream,
    sound: Sound,
    rate: int,
    layout: str,
    *,
    start: float = 0.0,
    flush: bool = True,
) -> None:
    codec = stream.codec_context
    if not codec.is_open:
        codec.open()
    resampler = av.AudioResampler(codec.format, layout, rate, codec.frame_size or 1024)
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(sound.astype(np.float32).reshape(1, -1)), format="flt", layout=layout
    )
    frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
    frame.pts = round(start * rate)
    blocks = resampler.resample(frame) + resampler.resample(None)
    at = round(start * rate)
    for block in blocks:
        block.pts, block.time_base = at, Fraction(1, rate)
        at += block.samples
        file.mux(stream.encode(block))
    if flush:
        file.mux(stream.encode(None))


def encode_tracks(
    path: Path,
    *sounds: Sound | None,
    container: str = "matroska",
    codec: str = "pcm_s16le",
    rate: int = 48_000,
    default: int = 0,
    starts: Sequence[float] = (),
    codecs: Sequence[str] = (),
) -> Path:
    """Write a file with one audio track for each sound, of shape (samples, channels); None is a track without packets.

    ``starts`` are the times at which the tracks begin, in seconds; ``codecs`` replace ``codec`` for the first tracks.
    """
    with av.open(str(path), "w", format=container) as file:
        streams = []
        for index, sound in enumerate(sounds):
            layout = {1: "mono", 2: "stereo", 6: "5.1"}[1 if sound is None else sound.shape[1]]
            name = codecs[index] if index < len(codecs) else codec
            stream = file.add_stream(name, rate=rate, layout=layout)
            assert isinstance(stream, av.AudioStream)
            stream.disposition = av.stream.Disposition.default if index == default else av.stream.Disposition(0)
            stream.codec_context.open()
            streams.append(stream)
        for index, (stream, sound) in enumerate(zip(streams, sounds, strict=True)):
            if sound is not None:
                start = starts[index] if index < len(starts) else 0.0
                push(file, stream, sound, rate, stream.codec_context.layout.name, start=start)
    return path


def encoded_bytes(tmp_path: Path, sound: Sound, rate: int, codec: str, container: str, **options: Any) -> bytes:
    path = tmp_path / f"encoded-{codec}.{container}"
    encode(path, sound, rate, codec, container=container, **options)
    content = path.read_bytes()
    path.unlink()
    return content


Kind: TypeAlias = int | str
"""The number of bits per sample, or ``f32`` or ``f64``."""

PCM: dict[Kind, tuple[int, str]] = {8: (1, "u1"), 16: (1, "<i2"), 32: (1, "<i4"), "f32": (3, "<f4"), "f64": (3, "<f8")}


def pcm(sound: Sound, kind: Kind = 16) -> bytes:
    if isinstance(kind, str):
        return sound.astype(PCM[kind][1]).tobytes()
    if kind == 24:
        return (sound * (2**23 - 1)).astype("<i4").reshape(-1, 1).view("u1")[:, :3].tobytes()
    if kind == 8:
        return (sound * 127 + 128).astype("u1").tobytes()
    loudest = 2.0 ** (kind - 1) - 1
    return (sound * loudest).astype(PCM[kind][1]).tobytes()


def chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def fmt(rate: int, channels: int = 1, kind: Kind = 16) -> bytes:
    tag = 3 if kind in {"f32", "f64"} else 1
    bits = int(str(kind).lstrip("f"))
    frame_bytes = channels * bits // 8
    return struct.pack("<HHIIHH", tag, channels, rate, rate * frame_bytes & 0xFFFFFFFF, frame_bytes & 0xFFFF, bits)


def wav(
    body: bytes,
    rate: int = SAMPLE_RATE,
    channels: int = 1,
    kind: Kind = 16,
    *,
    riff_size: int | None = None,
    data_size: int | None = None,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """Return the bytes of a WAV file, with correct or other sizes in its header."""
    data = chunk(b"data", body)
    if data_size is not None:
        data = b"data" + struct.pack("<I", data_size) + body
    content = b"WAVE" + chunk(b"fmt ", fmt(rate, channels, kind)) + before + data + after
    return b"RIFF" + struct.pack("<I", len(content) if riff_size is None else riff_size) + content


def rf64(body: bytes, rate: int = SAMPLE_RATE) -> bytes:
    ds64 = struct.pack("<QQQI", len(body) + 72, len(body), len(body) // 2, 0)
    content = b"WAVE" + chunk(b"ds64", ds64) + chunk(b"fmt ", fmt(rate))
    return b"RF64" + b"\xff" * 4 + content + b"data" + b"\xff" * 4 + body


def sphere(sound: Sound, rate: int) -> bytes:
    body = (sound * 32767).astype("<i2").tobytes()
    fields = (
        f"NIST_1A\n   1024\nsample_count -i {len(sound)}\nsample_n_bytes -i 2\nchannel_count -i {sound.shape[1]}\n"
        f"sample_byte_format -s2 01\nsample_rate -i {rate}\nsample_coding -s3 pcm\nend_head\n"
    )
    return fields.encode().ljust(1024, b" ") + body


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
