"""Recordings that were cut off, and are transcribed as far as they go."""

from __future__ import annotations

import av
import numpy as np
import pytest

from diarist.audio import DecodeLimits, read_recording
from diarist.errors import AudioError, CorruptAudio
from diarist.tracks import AudioTracks
from support.audio_files import encoded_bytes, loudest_hertz, pcm, push, rf64, tone, wav, write

pytestmark = pytest.mark.slow

LIMITS = DecodeLimits(max_duration_s=60.0, timeout_s=30.0, memory_mb=512)
FAST_START = {"options": {"movflags": "faststart"}}
FRAGMENTS = {"options": {"movflags": "frag_keyframe+empty_moov"}}

STATED = [
    ("wav", "pcm_s16le", 44_100, {}),
    ("wav", "adpcm_ms", 44_100, {}),
    ("w64", "pcm_s16le", 44_100, {}),
    ("aiff", "pcm_s16be", 44_100, {}),
    ("au", "pcm_s16be", 44_100, {}),
    ("flac", "flac", 44_100, {}),
    ("mp3", "libmp3lame", 44_100, {}),
    ("ipod", "aac", 44_100, FAST_START),
    ("mp4", "aac", 44_100, FAST_START),
    ("mov", "pcm_s16le", 44_100, FAST_START),
    ("webm", "libopus", 48_000, {}),
    ("matroska", "flac", 48_000, {}),
    ("avi", "libmp3lame", 44_100, {}),
    ("asf", "wmav2", 44_100, {"bit_rate": 128_000}),
]


def half(tmp_path, container, codec, rate, options, part=0.5):
    whole = encoded_bytes(tmp_path, tone(20.0, rate), rate, codec, container, **options)
    return write(tmp_path / "cut", whole[: round(len(whole) * part)])


@pytest.mark.parametrize(("container", "codec", "rate", "options"), STATED)
@pytest.mark.parametrize("part", [0.3, 0.8])
def test_a_recording_that_was_cut_off_is_accepted_on_request(tmp_path, container, codec, rate, options, part):
    path = half(tmp_path, container, codec, rate, options, part)
    with pytest.raises(CorruptAudio, match="partial=accept"):
        read_recording(path, LIMITS)
    recording = read_recording(path, LIMITS, partial="accept")
    (audio,) = recording.channels
    assert audio.duration == pytest.approx(20.0 * part, rel=0.15)
    assert loudest_hertz(audio.samples) == pytest.approx(440, abs=2)
    assert recording.truncation is not None
    assert recording.truncation.available == pytest.approx(audio.duration, abs=0.1)
    # AVI states only its size, which includes an index at its end.
    assert recording.truncation.stated == pytest.approx(20.0, abs=2.0 if container == "avi" else 0.6)
    assert ["was cut off" in warning for warning in recording.warnings] == [True]


def test_an_rf64_file_that_was_cut_off(tmp_path):
    whole = rf64(pcm(tone(20.0)))
    recording = read_recording(write(tmp_path / "a.wav", whole[: len(whole) // 2]), LIMITS, partial="accept")
    assert recording.truncation is not None
    assert recording.truncation.stated == pytest.approx(20.0, abs=0.1)


@pytest.mark.parametrize(
    ("container", "codec", "rate", "options"),
    [("ogg", "libopus", 48_000, {}), ("adts", "aac", 44_100, {}), ("mp3", "libmp3lame", 44_100, {"write_xing": "0"})],
)
def test_a_format_without_a_length_is_never_cut_off(tmp_path, container, codec, rate, options):
    path = half(tmp_path, container, codec, rate, {"options": options})
    for partial in ("refuse", "accept"):
        recording = read_recording(path, LIMITS, partial=partial)
        assert recording.channels[0].duration == pytest.approx(10.0, abs=1.0)
        assert (recording.truncation, recording.warnings) == (None, ())


def test_a_whole_recording_is_not_marked(tmp_path):
    recording = read_recording(write(tmp_path / "a.wav", wav(pcm(tone()))), LIMITS, partial="accept")
    assert (recording.truncation, recording.warnings) == (None, ())


@pytest.mark.parametrize(
    ("container", "codec", "options"),
    [("wav", "pcm_s16le", {}), ("mp4", "aac", FAST_START), ("flac", "flac", {}), ("webm", "libopus", {})],
)
def test_a_header_alone_is_still_an_error(tmp_path, container, codec, options):
    whole = encoded_bytes(tmp_path, tone(20.0, 48_000), 48_000, codec, container, **options)
    with av.open(str(write(tmp_path / "whole", whole))) as file:
        start = min(packet.pos for packet in file.demux() if packet.pos)
    for size in (start, start + 3):
        with pytest.raises(AudioError):
            read_recording(write(tmp_path / "a", whole[:size]), LIMITS, partial="accept")


def test_an_mp4_whose_index_is_missing_is_still_an_error(tmp_path):
    path = half(tmp_path, "mp4", "aac", 44_100, {})
    with pytest.raises(CorruptAudio, match="header is damaged or missing"):
        read_recording(path, LIMITS, partial="accept")


def test_fragments_state_their_length_only_together(tmp_path):
    """Without an index of all fragments, only the header of the file could state a length."""
    path = half(tmp_path, "mp4", "aac", 44_100, FRAGMENTS)
    recording = read_recording(path, LIMITS, partial="accept")
    assert recording.channels[0].duration < 20.0


def test_damage_is_not_accepted(tmp_path):
    content = bytearray(encoded_bytes(tmp_path, tone(20.0, 44_100), 44_100, "libmp3lame", "mp3"))
    noise = np.random.default_rng(4)
    for start in range(2_000, len(content) - 3_000, 3_000):
        content[start : start + 2_000] = noise.bytes(2_000)
    with pytest.raises(CorruptAudio, match=r"packets cannot be decoded|first bytes"):
        read_recording(write(tmp_path / "a.mp3", content), LIMITS, partial="accept")


def interleaved(path, seconds=20):
    """Write three tracks second by second, as a recorder does."""
    with av.open(str(path), "w", format="matroska") as file:
        streams = [file.add_stream("flac", rate=48_000, layout="mono") for _ in range(3)]
        for start in range(seconds):
            for stream, hertz in zip(streams, (440, 880, 1_320), strict=True):
                push(file, stream, tone(1.0, 48_000, hertz), 48_000, "mono", start=start, flush=start == seconds - 1)
    return path


@pytest.mark.parametrize(("track", "used"), [("all", (1, 2, 3)), (2, (2,)), (None, (1,)), ("best", (1,))])
def test_a_file_of_several_tracks_that_was_cut_off(tmp_path, track, used):
    whole = interleaved(tmp_path / "whole").read_bytes()
    path = write(tmp_path / "a", whole[: len(whole) // 2])
    with pytest.raises(CorruptAudio, match=r"of 3: .* partial=accept"):
        read_recording(path, LIMITS, track=track)
    recording = read_recording(path, LIMITS, track=track, partial="accept")
    assert recording.tracks == AudioTracks(used, 3)
    assert recording.truncation is not None
    assert recording.truncation.available == pytest.approx(10.0, abs=1.0)
    assert recording.truncation.stated == pytest.approx(20.0, abs=0.6)


def test_a_track_that_was_cut_off_before_its_start(tmp_path):
    """The file stores one track after the other."""
    options = {"movflags": "faststart", "max_interleave_delta": "1"}
    with av.open(str(tmp_path / "whole"), "w", format="mov", options=options) as file:
        streams = [file.add_stream("pcm_s16le", rate=48_000, layout="mono") for _ in range(2)]
        for stream, hertz in zip(streams, (440, 880), strict=True):
            push(file, stream, tone(10.0, 48_000, hertz), 48_000, "mono")
    content = (tmp_path / "whole").read_bytes()
    with av.open(str(tmp_path / "whole")) as file:
        places = [(packet.stream.index, packet.pos) for packet in file.demux() if packet.size]
    second = min(place for index, place in places if index == 1)
    assert second > len(content) // 3
    path = write(tmp_path / "a", content[:second])
    with pytest.raises(CorruptAudio, match=r"^Audio track . of 2: "):
        read_recording(path, LIMITS, track="all")
    recording = read_recording(path, LIMITS, track="all", partial="accept")
    assert recording.tracks == AudioTracks((1,), 2)
    assert recording.warnings[0] == "Audio track 2 contains no sound, and is left out."
    assert loudest_hertz(recording.channels[0].samples) == pytest.approx(440, abs=2)
    with pytest.raises(CorruptAudio, match="missing"):
        read_recording(path, LIMITS, track=2, partial="accept")
