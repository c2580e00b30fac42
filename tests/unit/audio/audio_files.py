"""Recordings made on the spot: tones in any container and codec that the installed FFmpeg can write."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from diarist.types import SAMPLE_RATE


def tone(seconds=2.0, rate=SAMPLE_RATE, hertz=440.0, level=0.5, channels=1):
    """A sine in every channel, float64 of shape (samples, channels)."""
    time = np.arange(round(seconds * rate)) / rate
    return np.repeat(level * np.sin(2 * np.pi * hertz * time)[:, None], channels, axis=1)


def tones(*hertz, seconds=2.0, rate=SAMPLE_RATE, level=0.5):
    """Another sine in each channel; 0 is silence."""
    return np.concatenate([tone(seconds, rate, h, level if h else 0.0) for h in hertz], axis=1)


def loudest_hertz(samples, rate=SAMPLE_RATE):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax() * rate / len(samples))


def rms(samples):
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def encode(
    path, sound, rate, codec, *, container=None, layout=None, options=None, codec_options=None, bit_rate=None, start=0.0
):
    """Write float sound of shape (samples, channels) with PyAV."""
    channels = sound.shape[1]
    layout = layout or {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[channels]
    with av.open(str(path), "w", format=container, options=options or {}) as file:
        stream = file.add_stream(codec, rate=rate, layout=layout)
        stream.codec_context.options = codec_options or {}
        if bit_rate:
            stream.bit_rate = bit_rate
        push(file, stream, sound, rate, layout, start=start)
    return path


def push(file, stream, sound, rate, layout, *, start=0.0, flush=True):
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


def encoded_bytes(tmp_path, sound, rate, codec, container, **options):
    path = tmp_path / f"encoded-{codec}.{container}"
    encode(path, sound, rate, codec, container=container, **options)
    content = path.read_bytes()
    path.unlink()
    return content


PCM = {8: (1, "u1"), 16: (1, "<i2"), 32: (1, "<i4"), "f32": (3, "<f4"), "f64": (3, "<f8")}


def pcm(sound, kind=16):
    if kind in {"f32", "f64"}:
        return sound.astype(PCM[kind][1]).tobytes()
    if kind == 24:
        return (sound * (2**23 - 1)).astype("<i4").reshape(-1, 1).view("u1")[:, :3].tobytes()
    if kind == 8:
        return (sound * 127 + 128).astype("u1").tobytes()
    return (sound * (2 ** (kind - 1) - 1)).astype(PCM[kind][1]).tobytes()


def chunk(name, body):
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def fmt(rate, channels=1, kind=16):
    tag = 3 if kind in {"f32", "f64"} else 1
    bits = int(str(kind).lstrip("f"))
    frame_bytes = channels * bits // 8
    return struct.pack("<HHIIHH", tag, channels, rate, rate * frame_bytes & 0xFFFFFFFF, frame_bytes & 0xFFFF, bits)


def wav(body, rate=SAMPLE_RATE, channels=1, kind=16, *, riff_size=None, data_size=None, before=b"", after=b""):
    """A WAV file by hand, true or with other sizes in its header."""
    data = chunk(b"data", body)
    if data_size is not None:
        data = b"data" + struct.pack("<I", data_size) + body
    content = b"WAVE" + chunk(b"fmt ", fmt(rate, channels, kind)) + before + data + after
    return b"RIFF" + struct.pack("<I", len(content) if riff_size is None else riff_size) + content


def rf64(body, rate=SAMPLE_RATE):
    ds64 = struct.pack("<QQQI", len(body) + 72, len(body), len(body) // 2, 0)
    content = b"WAVE" + chunk(b"ds64", ds64) + chunk(b"fmt ", fmt(rate))
    return b"RF64" + b"\xff" * 4 + content + b"data" + b"\xff" * 4 + body


def sphere(sound, rate):
    body = (sound * 32767).astype("<i2").tobytes()
    fields = (
        f"NIST_1A\n   1024\nsample_count -i {len(sound)}\nsample_n_bytes -i 2\nchannel_count -i {sound.shape[1]}\n"
        f"sample_byte_format -s2 01\nsample_rate -i {rate}\nsample_coding -s3 pcm\nend_head\n"
    )
    return fields.encode().ljust(1024, b" ") + body


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
