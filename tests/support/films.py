"""Films generated for tests: a picture and a tone, in the containers and codecs of cameras and broadcasts."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from diarist.audio import DecodeLimits, decode
from diarist.types import Audio
from support.audio_files import push, tone

LIMITS = DecodeLimits(max_duration_s=60.0, timeout_s=30.0, memory_mb=512)

KINDS = {
    # name: container, video encoder, audio encoder
    "mkv": ("matroska", "libx264", "libopus"),
    "mkv-aac": ("matroska", "libx264", "aac"),
    "mkv-pcm": ("matroska", "mpeg4", "pcm_s16le"),
    "webm": ("webm", "libvpx-vp9", "libopus"),
    "mp4": ("mp4", "libx264", "aac"),
    "mp4-opus": ("mp4", "libx264", "libopus"),
    "mov": ("mov", "mpeg4", "pcm_s16le"),
    "wmv": ("asf", "wmv2", "wmav2"),
    "flv": ("flv", "libx264", "aac"),
}
"""The containers whose timestamps are kept."""

MPEG_KINDS = {
    "ts": ("mpegts", "libx264", "aac"),
    "ts-mpeg2": ("mpegts", "mpeg2video", "mp2"),
    "m2ts": ("mpegts", "libx264", "ac3"),
    "mpg": ("mpeg", "mpeg2video", "mp2"),
    "vob": ("vob", "mpeg2video", "ac3"),
}
"""MPEG transport and program streams, whose clock starts anywhere and may jump."""


def film(
    path: Path,
    kind: str,
    *,
    audio_start: float = 0.0,
    video_start: float = 0.0,
    seconds: float = 4.0,
    video_seconds: float = 6.0,
    fps: int = 10,
    options: dict[str, str] | None = None,
    sound_first: bool = False,
) -> Path:
    """Write a film with a tone. Its tracks start at the times given. ``sound_first`` stores the sound ahead."""
    container, video_codec, audio_codec = (KINDS | MPEG_KINDS)[kind]
    rate = 44_100 if audio_codec == "wmav2" else 48_000
    tick = Fraction(1, 1_000)
    if video_codec == "mpeg2video":
        fps, tick = 25, Fraction(1, 25)  # MPEG-2 has only a few frame rates
    options = dict(options or {})
    if kind in MPEG_KINDS:
        options["max_interleave_delta"] = "0"  # otherwise FFmpeg stores the pictures first
    if kind == "m2ts":
        options["mpegts_m2ts_mode"] = "1"
    with av.open(str(path), "w", format=container, options=options) as file:
        pictures = file.add_stream(video_codec, rate=fps)
        assert isinstance(pictures, av.VideoStream)
        pictures.width = pictures.height = 64
        pictures.pix_fmt = "yuv420p"
        pictures.codec_context.time_base = tick
        sound = file.add_stream(audio_codec, rate=rate, layout="mono")
        assert isinstance(sound, av.AudioStream)
        if audio_codec == "wmav2":
            sound.bit_rate = 128_000
        if sound_first:
            push(file, sound, tone(seconds, rate), rate, "mono", start=audio_start)
        for i in range(round(video_seconds * fps)):
            frame = av.VideoFrame(64, 64, "yuv420p")
            frame.pts, frame.time_base = round(video_start / tick) + round(i / fps / tick), tick
            file.mux(pictures.encode(frame))
        file.mux(pictures.encode(None))
        if not sound_first:
            push(file, sound, tone(seconds, rate), rate, "mono", start=audio_start)
    return path


def first_sound(audio: Audio) -> float:
    """Return the time in seconds at which the tone begins."""
    return float(np.flatnonzero(np.abs(audio.samples) > 0.2)[0]) / 16_000


def expect_tone_at(path: Path, start: float, seconds: float = 4.0, limits: DecodeLimits = LIMITS) -> None:
    (audio,) = decode(path, limits)
    assert first_sound(audio) == pytest.approx(start, abs=0.05)
    assert audio.duration == pytest.approx(start + seconds, abs=0.15)
    # No gap within the tone.
    sound = audio.samples[round((start + 0.1) * 16_000) : round((start + seconds - 0.1) * 16_000)]
    assert np.sqrt(np.square(sound[: len(sound) // 800 * 800].reshape(-1, 800)).mean(axis=1)).min() > 0.2
