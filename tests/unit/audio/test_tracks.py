"""Files with several audio tracks, of which some are silent, if no track is chosen."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import av
import numpy as np
import pytest

from diarist.audio import DecodeLimits, decode, decoding, read_recording
from diarist.errors import CorruptAudio, EmptyAudio
from support.audio_files import encode_tracks, loudest_hertz, rms, tone

LIMITS = DecodeLimits(max_duration_s=60.0, timeout_s=30.0, memory_mb=512)
SILENCE = 0.0
WARNING = "Audio track {} is silent. The transcript is that of audio track {}."


def tracks(path, *hertz, container="matroska", codec="pcm_s16le", default=0, level=0.5, channels=1):
    """Write one audio track for each frequency; 0 Hz is silence, and None a track without packets."""
    sounds = [
        None if each is None else tone(2.0, 48_000, each or 1_000.0, level if each else 0.0, channels) for each in hertz
    ]
    return encode_tracks(path, *sounds, container=container, codec=codec, default=default)


def expect_tone(path, hertz, *warnings):
    recording = read_recording(path, LIMITS)
    (audio,) = recording.channels
    assert loudest_hertz(audio.samples) == pytest.approx(hertz, abs=2)
    assert audio.duration == pytest.approx(2.0, abs=0.15)
    assert recording.warnings == warnings


@pytest.mark.parametrize(
    ("container", "codec"),
    [("matroska", "pcm_s16le"), ("matroska", "libopus"), ("mp4", "aac"), ("mov", "aac"), ("matroska", "aac")],
)
def test_a_track_with_sound_replaces_a_silent_one(tmp_path, container, codec, caplog):
    options = {"container": container, "codec": codec}
    expect_tone(tracks(tmp_path / "a", SILENCE, 440, **options), 440, WARNING.format(1, 2))
    assert WARNING.format(1, 2) in caplog.messages
    expect_tone(tracks(tmp_path / "b", SILENCE, SILENCE, 440, 880, **options), 440, WARNING.format(1, 3))
    expect_tone(tracks(tmp_path / "c", 440, SILENCE, default=1, **options), 440, WARNING.format(2, 1))


def test_a_track_with_sound_is_kept(tmp_path):
    expect_tone(tracks(tmp_path / "first", 440, 880), 440)
    expect_tone(tracks(tmp_path / "default", 440, 880, default=1), 880)
    expect_tone(tracks(tmp_path / "alone", 440), 440)


@pytest.mark.parametrize(("decibels", "replaced"), [(-80, True), (-60, False)])
def test_a_track_below_minus_70_db_is_silent(tmp_path, decibels, replaced):
    path = tracks(tmp_path / "a", 880, 440, codec="pcm_f32le", level=0.5)
    quiet = tmp_path / "b"
    with av.open(str(path)) as source, av.open(str(quiet), "w", format="matroska") as file:
        copies = [file.add_stream_from_template(stream) for stream in source.streams]
        for packet in source.demux():
            if packet.dts is None:
                continue
            if packet.stream.index == 0:
                samples = np.frombuffer(bytes(packet), dtype="<f4") * np.float32(2 * 10 ** (decibels / 20))
                pts, time_base = packet.pts, packet.time_base
                packet = av.Packet(samples.tobytes())  # noqa: PLW2901
                packet.pts = packet.dts = pts
                packet.time_base = time_base
                packet.stream = copies[0]
            else:
                packet.stream = copies[1]
            file.mux(packet)
    if replaced:
        expect_tone(quiet, 440, WARNING.format(1, 2))
    else:
        expect_tone(quiet, 880)


def test_silence_in_all_tracks_is_silence(tmp_path):
    recording = read_recording(tracks(tmp_path / "a", SILENCE, SILENCE), LIMITS)
    (audio,) = recording.channels
    assert (audio.duration, rms(audio.samples), recording.warnings) == (2.0, 0.0, ())


def test_a_track_without_packets_is_silent(tmp_path):
    expect_tone(tracks(tmp_path / "a", None, 440), 440, WARNING.format(1, 2))
    expect_tone(tracks(tmp_path / "b", SILENCE, None, 440), 440, WARNING.format(1, 3))
    (audio,) = decode(tracks(tmp_path / "c", SILENCE, None), LIMITS)
    assert rms(audio.samples) == 0.0
    with pytest.raises(EmptyAudio):
        decode(tracks(tmp_path / "d", None, SILENCE), LIMITS)


def test_the_channels_of_a_track_with_sound_are_separated(tmp_path):
    path = tracks(tmp_path / "a", SILENCE, 440, channels=2)
    separate = decode(path, LIMITS, channels="separate")
    assert [loudest_hertz(audio.samples) for audio in separate] == [pytest.approx(440, abs=2)]


def test_progress_never_falls_while_another_track_is_decoded(tmp_path):
    told = []
    decode(tracks(tmp_path / "a", SILENCE, SILENCE, 440), LIMITS, progress=told.append)
    assert all(a <= b for a, b in pairwise(told))
    assert told[-1] == 1.0


def test_many_silent_tracks_cannot_occupy_the_decoder(tmp_path, monkeypatch):
    path = tracks(tmp_path / "a", SILENCE, SILENCE, 440)
    times = iter((0.0, LIMITS.timeout_s - 1, LIMITS.timeout_s))
    monkeypatch.setattr(decoding, "time", SimpleNamespace(monotonic=lambda: next(times)))
    recording = read_recording(path, LIMITS)
    assert rms(recording.channels[0].samples) == 0.0
    assert ["DECODE_TIMEOUT_S" in warning for warning in recording.warnings] == [True]


def test_damage_in_the_track_with_sound_is_no_silence(tmp_path):
    content = bytearray(tracks(tmp_path / "a", SILENCE, 440, codec="flac").read_bytes())
    with av.open(str(tmp_path / "a")) as file:
        places = [(packet.pos, packet.size) for packet in file.demux(audio=1) if packet.size]
    for position, size in places:
        content[position + 12 : position + size] = bytes(size - 12)
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(CorruptAudio):
        decode(tmp_path / "a", LIMITS)
