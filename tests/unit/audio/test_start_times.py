"""The times of sound in files whose tracks start late, early or at different times."""

from __future__ import annotations

import struct

import av
import pytest

from diarist.audio import decode
from diarist.audio.decoder_program import recording_start
from diarist.audio.decoder_program.recording_start import read_to_start
from diarist.errors import AudioTooLong, CorruptAudio
from support.audio_files import push, tone, write
from support.films import KINDS, LIMITS, expect_tone_at, film, first_sound

pytestmark = pytest.mark.slow

MATROSKA = [name for name, (container, _, _) in KINDS.items() if container in {"matroska", "webm"}]
MP4 = [name for name, (container, _, _) in KINDS.items() if container in {"mp4", "mov"}]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("audio_start", "video_start", "silence"),
    [(3.5, 0.0, 3.5), (0.0, 3.5, 0.0), (10.0, 10.0, 0.0), (13.5, 10.0, 3.5), (10.0, 13.5, 0.0), (20.0, 0.0, 20.0)],
)
def test_sound_has_its_time_after_the_first_packet_of_any_track(tmp_path, kind, audio_start, video_start, silence):
    path = film(tmp_path / "film", kind, audio_start=audio_start, video_start=video_start)
    expect_tone_at(path, silence)


@pytest.mark.parametrize("kind", MATROSKA)
def test_matroska_moves_negative_times(tmp_path, kind):
    """FFmpeg writes all tracks later, so that the first one starts at 0."""
    expect_tone_at(film(tmp_path / "sound-first", kind, audio_start=-1.0), 0.0)
    expect_tone_at(film(tmp_path / "picture-first", kind, video_start=-1.0), 1.0)


@pytest.mark.parametrize("kind", ["mkv", "webm"])
def test_matroska_may_contain_negative_times(tmp_path, kind):
    path = film(tmp_path / "film", kind, audio_start=-1.0, options={"avoid_negative_ts": "disabled"})
    expect_tone_at(path, 0.0)


@pytest.mark.parametrize("kind", ["mp4", "mp4-opus"])
def test_mp4_cuts_out_what_precedes_zero(tmp_path, kind):
    """FFmpeg writes an edit list that starts the presentation at 0."""
    expect_tone_at(film(tmp_path / "sound-first", kind, audio_start=-1.0), 0.0, seconds=3.0)
    expect_tone_at(film(tmp_path / "picture-first", kind, video_start=-1.0), 0.0)


@pytest.mark.parametrize("kind", MATROSKA)
def test_a_live_recording_states_no_duration(tmp_path, kind):
    path = film(tmp_path / "film", kind, audio_start=13.5, video_start=10.0, options={"live": "1"})
    expect_tone_at(path, 3.5)


@pytest.mark.parametrize("kind", MATROSKA)
@pytest.mark.parametrize(("audio_start", "video_start", "silence"), [(13.5, 10.0, 3.5), (10.0, 13.5, 0.0)])
def test_a_matroska_file_may_state_its_length_without_the_time_before_its_start(
    tmp_path, kind, audio_start, video_start, silence
):
    """mkvmerge writes the length from the first timestamp, FFmpeg the last timestamp."""
    content = film(tmp_path / "film", kind, audio_start=audio_start, video_start=video_start).read_bytes()
    duration = b"\x44\x89\x88"  # the ID of the element Duration, and the size of its value
    at = content.index(duration) + len(duration)
    (end_ms,) = struct.unpack(">d", content[at : at + 8])
    assert end_ms > 15_000
    content = content[:at] + struct.pack(">d", end_ms - 10_000) + content[at + 8 :]
    expect_tone_at(write(tmp_path / "film", content), silence)


@pytest.mark.parametrize("kind", ["mp4", "mp4-opus"])
@pytest.mark.parametrize(("audio_start", "video_start"), [(3.5, 0.0), (0.0, 3.5), (13.5, 10.0)])
def test_packets_have_the_same_times_in_matroska_as_in_mp4(tmp_path, kind, audio_start, video_start):
    path = film(tmp_path / "film.mp4", kind, audio_start=audio_start, video_start=video_start)
    copy = tmp_path / "film.mkv"
    with av.open(str(path)) as source, av.open(str(copy), "w", format="matroska") as file:
        copies = [file.add_stream_from_template(stream) for stream in source.streams]
        for packet in source.demux():
            if packet.pts is not None:
                packet.stream = copies[packet.stream.index]
                file.mux(packet)
    (audio,), (same,) = decode(path, LIMITS), decode(copy, LIMITS)
    assert first_sound(audio) == pytest.approx(first_sound(same), abs=0.05)
    assert audio.duration == pytest.approx(same.duration, abs=0.05)


@pytest.mark.parametrize("kind", ["mkv", "mkv-pcm"])
def test_sound_that_is_stored_long_before_the_picture(tmp_path, kind):
    """An encoder delays the picture by dozens of frames, so that its first packet may follow seconds of sound."""
    path = film(tmp_path / "film", kind, audio_start=4.0, seconds=30.0, video_seconds=34.0, fps=2, sound_first=True)
    with av.open(str(path)) as file:
        tracks = [packet.stream.type for packet in file.demux()]
    assert tracks.index("video") > 200
    expect_tone_at(path, 4.0, 30.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("audio_start", "video_start"), [(3.5, 0.0), (13.0, 0.0), (13.5, 10.0), (10.0, 10.0)])
def test_a_cut_off_film_is_refused_wherever_it_starts(tmp_path, kind, audio_start, video_start):
    # The film is cut after 8 of 20 seconds of sound.
    options = {"movflags": "faststart"} if kind in MP4 else {}
    whole = film(
        tmp_path / "whole", kind, audio_start=audio_start, video_start=video_start, seconds=20.0, video_seconds=24.0,
        options=options,
    )  # fmt: skip
    with av.open(str(whole)) as file:
        sound = [packet for packet in file.demux(audio=0) if packet.pts is not None]
        end = sound[len(sound) * 2 // 5].pos
    with pytest.raises(CorruptAudio, match="cut off"):
        decode(write(tmp_path / "cut", whole.read_bytes()[:end]), LIMITS)


def test_the_limit_counts_from_the_start_of_the_file(tmp_path):
    for kind in KINDS:
        path = film(tmp_path / kind, kind, audio_start=100.0, video_start=100.0)
        expect_tone_at(path, 0.0)
        late = film(tmp_path / kind, kind, audio_start=70.0, video_start=0.0)
        with pytest.raises(AudioTooLong):
            decode(late, LIMITS)


def test_a_picture_of_the_cover_is_no_start(tmp_path):
    """FFmpeg gives the cover the time 0, whenever the sound starts."""
    path = tmp_path / "song.m4a"
    with av.open(str(path), "w", format="mp4") as file:
        sound = file.add_stream("aac", rate=48_000, layout="mono")
        cover = file.add_stream("mjpeg", rate=1)
        cover.width = cover.height = 64
        cover.pix_fmt = "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame(64, 64, "yuvj420p")
        frame.pts = 0
        file.mux(cover.encode(frame))
        file.mux(cover.encode(None))
        push(file, sound, tone(4.0, 48_000), 48_000, "mono", start=5.0)
    with av.open(str(path)) as file:
        assert any(stream.disposition & av.stream.Disposition.attached_pic for stream in file.streams)
    expect_tone_at(path, 0.0)


@pytest.mark.parametrize("container", ["matroska", "mp4"])
def test_a_track_without_packets_delays_nothing(tmp_path, container):
    path = tmp_path / "film"
    with av.open(str(path), "w", format=container) as file:
        sound = file.add_stream("aac", rate=48_000, layout="mono")
        file.add_stream("aac", rate=48_000, layout="mono").codec_context.open()
        push(file, sound, tone(4.0, 48_000), 48_000, "mono")
    expect_tone_at(path, 0.0)


def test_the_memory_for_waiting_packets_is_limited(tmp_path, monkeypatch):
    path = film(tmp_path / "film", "mkv", seconds=30.0, video_start=20.0)
    monkeypatch.setattr(recording_start, "MAX_HELD_BYTES", 100 * recording_start.PACKET_OVERHEAD_BYTES)
    with av.open(str(path)) as file:
        start, held = read_to_start(av, file, file.demux(), 1)
    assert start == pytest.approx(0.0, abs=0.02)
    assert 50 < len(held) <= 100
