"""The times of sound in MPEG transport and program streams, whose clock starts anywhere, wraps around and jumps."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from diarist.audio import decode
from diarist.audio.decoder_program.clock_jumps import ContinuousClock
from support.audio_files import push, tone, write
from support.films import LIMITS, MPEG_KINDS, expect_tone_at, film, first_sound

pytestmark = pytest.mark.slow

TRANSPORT_STREAMS = [kind for kind, (container, _, _) in MPEG_KINDS.items() if container == "mpegts"]

WRAP_S = 2**33 / 90_000
"""The time after which the clock starts again at 0."""


def sounds(audio):
    """Return the beginnings and the ends of the tones, in seconds."""
    loud = np.abs(audio.samples[: len(audio.samples) // 800 * 800].reshape(-1, 800)).max(axis=1) > 0.2
    edges = np.flatnonzero(np.diff(np.concatenate([[False], loud, [False]]).astype(int))) / 20
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def expect_sounds(path, *expected):
    (audio,) = decode(path, LIMITS)
    found = sounds(audio)
    assert len(found) == len(expected), found
    for (start, end), (expected_start, expected_end) in zip(found, expected, strict=True):
        assert start == pytest.approx(expected_start, abs=0.12)
        assert end == pytest.approx(expected_end, abs=0.15)


@pytest.mark.parametrize("kind", MPEG_KINDS)
@pytest.mark.parametrize(
    ("audio_start", "video_start", "silence"),
    [(3.5, 0.0, 3.5), (0.0, 3.5, 0.0), (10.0, 10.0, 0.0), (13.5, 10.0, 3.5), (10.0, 13.5, 0.0), (20.0, 0.0, 20.0)],
)
def test_sound_has_its_time_after_the_first_packet_of_any_track(tmp_path, kind, audio_start, video_start, silence):
    path = film(tmp_path / "film", kind, audio_start=audio_start, video_start=video_start, video_seconds=24.0)
    expect_tone_at(path, silence)


@pytest.mark.parametrize("kind", MPEG_KINDS)
@pytest.mark.parametrize("clock_start", [5_000.0, WRAP_S - 2.0, WRAP_S - 5.0, WRAP_S - 70.0])
def test_sound_has_its_time_wherever_the_clock_starts(tmp_path, kind, clock_start):
    path = film(tmp_path / "film", kind, audio_start=3.5, options={"output_ts_offset": str(clock_start)})
    expect_tone_at(path, 3.5)


@pytest.mark.parametrize(
    ("container", "video_codec", "audio_codec"),
    [("mpegts", "mpeg2video", "mp2"), ("mpeg", "mpeg2video", "mp2"), ("flv", "flv1", "libmp3lame")],
)
@pytest.mark.parametrize("seconds", [16, 20])
def test_sound_that_begins_after_many_megabytes_of_pictures(tmp_path, container, video_codec, audio_codec, seconds):
    """FFmpeg looks for tracks only in the first 5 MB, and some at the end."""
    noise = np.random.default_rng(6)
    frames = [
        av.VideoFrame.from_ndarray(noise.integers(0, 256, (180, 160), dtype=np.uint8), format="yuv420p")
        for _ in range(4)
    ]
    path = tmp_path / "film"
    with av.open(str(path), "w", format=container, options={"max_interleave_delta": "0"}) as file:
        pictures = file.add_stream(video_codec, rate=25)
        pictures.width, pictures.height, pictures.pix_fmt = 160, 120, "yuv420p"
        pictures.bit_rate, pictures.codec_context.gop_size = 8_000_000, 1
        sound = file.add_stream(audio_codec, rate=44_100, layout="mono")
        for i in range(25 * seconds):
            frames[i % 4].pts, frames[i % 4].time_base = i, Fraction(1, 25)
            file.mux(pictures.encode(frames[i % 4]))
            if i == 25 * 12:
                push(file, sound, tone(4.0, 44_100), 44_100, "mono", start=12.0)
        file.mux(pictures.encode(None))
    with av.open(str(path)) as file:
        assert container == "mpegts" or seconds == 16 or not file.streams.audio
    expect_tone_at(path, 12.0)


def test_sound_that_begins_many_minutes_after_the_picture(tmp_path):
    path = film(tmp_path / "film", "ts", audio_start=700.0, video_seconds=710.0, fps=2)
    expect_tone_at(path, 700.0, limits=replace(LIMITS, max_duration_s=800.0))


@pytest.mark.parametrize("kind", MPEG_KINDS)
@pytest.mark.parametrize("second_start", [0.0, 8.0, 100.0, 90_000.0])
def test_joined_recordings_follow_each_other(tmp_path, kind, second_start):
    first = film(tmp_path / "first", kind, options={"output_ts_offset": "20"})
    second = film(tmp_path / "second", kind, audio_start=1.0, options={"output_ts_offset": str(second_start)})
    joined = write(tmp_path / "joined", first.read_bytes() + second.read_bytes())
    expect_sounds(joined, (0.0, 4.0), (7.0, 11.0))


@pytest.mark.parametrize("kind", TRANSPORT_STREAMS)
def test_a_long_pause_of_the_sound_alone_is_kept(tmp_path, kind):
    container, video_codec, audio_codec = MPEG_KINDS[kind]
    path = tmp_path / "film"
    with av.open(str(path), "w", format=container, options={"max_interleave_delta": "0"}) as file:
        pictures = file.add_stream(video_codec, rate=25)
        pictures.width = pictures.height = 64
        pictures.pix_fmt = "yuv420p"
        sound = file.add_stream(audio_codec, rate=48_000, layout="mono")
        for i in range(25 * 30):
            file.mux(pictures.encode(av.VideoFrame(64, 64, "yuv420p")))
            if i in {0, 25 * 20}:
                push(file, sound, tone(2.0, 48_000), 48_000, "mono", start=i / 25, flush=False)
        file.mux(pictures.encode(None))
        file.mux(sound.encode(None))
    expect_sounds(path, (0.0, 2.0), (20.0, 22.0))


@pytest.mark.parametrize(("audio_start", "video_start"), [(3.5, 0.0), (0.0, 3.5), (13.5, 10.0)])
def test_packets_have_the_same_times_in_a_transport_stream_as_in_mp4(tmp_path, audio_start, video_start):
    path = film(tmp_path / "film.mp4", "mp4", audio_start=audio_start, video_start=video_start)
    copy = tmp_path / "film.ts"
    with av.open(str(path)) as source, av.open(str(copy), "w", format="mpegts") as file:
        copies = [file.add_stream_from_template(stream) for stream in source.streams]
        for packet in source.demux():
            if packet.pts is not None:
                packet.stream = copies[packet.stream.index]
                file.mux(packet)
    (audio,), (same,) = decode(path, LIMITS), decode(copy, LIMITS)
    assert first_sound(audio) == pytest.approx(first_sound(same), abs=0.05)
    assert audio.duration == pytest.approx(same.duration, abs=0.05)


@pytest.mark.parametrize("kind", MPEG_KINDS)
def test_a_stream_may_begin_and_end_anywhere(tmp_path, kind):
    content = film(tmp_path / "whole", kind, seconds=20.0, video_seconds=20.0).read_bytes()
    (audio,) = decode(write(tmp_path / "part", content[len(content) // 4 : -len(content) // 4]), LIMITS)
    assert audio.duration == pytest.approx(10.0, abs=1.0)
    assert sounds(audio)[0][0] < 1.0


def move(clock, track, timestamp, duration=0.04):
    return timestamp + clock.offset(track, timestamp, duration, in_order=True)


def test_packets_of_the_old_and_the_new_clock_may_alternate():
    clock = ContinuousClock()
    for i in range(100):
        assert move(clock, 0, 50.0 + i / 25) == pytest.approx(50.0 + i / 25)
        assert move(clock, 1, 49.8 + i / 25) == pytest.approx(49.8 + i / 25)
    new = []
    for i in range(100, 110):
        new.append(move(clock, 0, 9_000.0 + (i - 100) / 25))
        assert move(clock, 1, 49.8 + i / 25) == pytest.approx(49.8 + i / 25)
    assert new == pytest.approx([54.0 + i / 25 for i in range(10)])
    # The other track follows to the same clock.
    assert move(clock, 1, 9_000.2) == pytest.approx(54.2)


def test_one_wrong_timestamp_moves_nothing_else():
    clock = ContinuousClock()
    times = [move(clock, 0, i / 25) for i in range(50)]
    move(clock, 0, 70_000.0)
    times += [move(clock, 0, i / 25) for i in range(51, 100)]
    assert times == pytest.approx([i / 25 for i in range(100) if i != 50], abs=0.05)
