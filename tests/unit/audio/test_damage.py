"""Damaged files: lost audio is an error, but estimated durations in headers are tolerated."""

from __future__ import annotations

from itertools import pairwise

import av
import numpy as np
import pytest

from diarist.audio import DecodeLimits, decode
from diarist.audio.completeness import check_complete
from diarist.audio.decoder_process import Report
from diarist.audio.decoder_program.timeline import Timeline
from diarist.audio.headers import Header
from diarist.errors import AudioError, CorruptAudio, EmptyAudio
from support.audio_files import encoded_bytes, loudest_hertz, pcm, push, rf64, rms, tone, wav, write

pytestmark = pytest.mark.slow

LIMITS = DecodeLimits(max_duration_s=60.0, timeout_s=30.0, memory_mb=512)
FAST_START = {"options": {"movflags": "faststart"}}
FRAGMENTS = {"options": {"movflags": "frag_keyframe+empty_moov"}}
NO_METADATA = {"options": {"flvflags": "no_metadata"}}
NO_XING = {"options": {"write_xing": "0"}}

STATED = [
    ("wav", "pcm_s16le", 44_100, {}),
    ("wav", "adpcm_ms", 44_100, {}),
    ("w64", "pcm_s16le", 44_100, {}),
    ("aiff", "pcm_s16be", 44_100, {}),
    ("au", "pcm_s16be", 44_100, {}),
    ("flac", "flac", 44_100, {}),
    ("mp3", "libmp3lame", 44_100, {}),
    ("ipod", "aac", 44_100, {}),
    ("ipod", "aac", 44_100, FAST_START),
    ("mp4", "aac", 44_100, FRAGMENTS),
    ("caf", "alac", 44_100, {}),
    ("caf", "pcm_s16be", 44_100, {}),
    ("webm", "libopus", 48_000, {}),
    ("wv", "wavpack", 44_100, {}),
    ("tta", "tta", 44_100, {}),
    ("flv", "aac", 44_100, {}),
    ("flv", "libmp3lame", 44_100, {}),
    ("avi", "libmp3lame", 44_100, {}),
    ("asf", "wmav2", 44_100, {"bit_rate": 128_000}),
]


@pytest.mark.parametrize(("container", "codec", "rate", "options"), STATED)
def test_a_file_cut_in_two_is_refused(tmp_path, container, codec, rate, options):
    whole = encoded_bytes(tmp_path, tone(10.0, rate), rate, codec, container, **options)
    (audio,) = decode(write(tmp_path / "whole", whole), LIMITS)
    assert audio.duration == pytest.approx(10.0, abs=0.15)
    with pytest.raises(CorruptAudio, match="cut off"):
        decode(write(tmp_path / "half", whole[: len(whole) // 2]), LIMITS)


@pytest.mark.parametrize(
    ("container", "codec", "options"),
    [
        ("adts", "aac", {}),
        ("mp3", "libmp3lame", NO_XING),
        ("ogg", "libopus", {}),
        ("amr", "libopencore_amrnb", {}),
        ("ac3", "ac3", {}),
        ("latm", "aac", {}),
        ("mpegts", "aac", {}),
        ("mpegts", "ac3", {}),
        ("vob", "ac3", {}),
        ("flv", "aac", NO_METADATA),
    ],
)
def test_a_stream_that_states_no_length_gives_what_there_is(tmp_path, container, codec, options):
    rate = 8_000 if container == "amr" else 48_000
    whole = encoded_bytes(tmp_path, tone(10.0, rate), rate, codec, container, **options)
    (audio,) = decode(write(tmp_path / "half", whole[: len(whole) // 2]), LIMITS)
    assert audio.duration == pytest.approx(5.0, abs=0.7)
    assert loudest_hertz(audio.samples) == pytest.approx(440, abs=2)


def test_a_little_less_than_stated_is_tolerated(tmp_path):
    body = pcm(tone(10.0))
    (audio,) = decode(write(tmp_path / "a.wav", wav(body)[: -len(body) // 20]), LIMITS)
    assert audio.duration == pytest.approx(9.5, abs=0.1)


@pytest.mark.parametrize(
    "sizes",
    [
        {"riff_size": 2**32 - 1, "data_size": 2**32 - 1},
        {"riff_size": 0, "data_size": 0},
        {"riff_size": 2**31 - 1, "data_size": 2**31 - 37},
        {"riff_size": 2**31 + 36, "data_size": 2**31},
    ],
)
def test_a_wav_that_was_streamed_states_no_length(tmp_path, sizes):
    (audio,) = decode(write(tmp_path / "a.wav", wav(pcm(tone()), **sizes)), LIMITS)
    assert audio.duration == 2.0


def test_an_rf64_cut_in_two_is_refused(tmp_path):
    whole = rf64(pcm(tone(10.0)))
    with pytest.raises(CorruptAudio, match=r"states 10\.0 s"):
        decode(write(tmp_path / "a.wav", whole[: len(whole) // 2]), LIMITS)


@pytest.mark.parametrize("kind", ["RIFF....WAVEfmt ", "....ftypM4A ", "OggS", "fLaC", "FORM....AIFF", "ID3\x03"])
def test_a_header_without_the_rest_is_called_damaged(tmp_path, kind):
    with pytest.raises(CorruptAudio, match="looks like"):
        decode(write(tmp_path / "a", kind.encode() + b"\xaa" * 300), LIMITS)


def test_a_few_bad_packets_are_tolerated_and_leave_silence(tmp_path):
    content = bytearray(encoded_bytes(tmp_path, tone(20.0, 48_000), 48_000, "flac", "flac"))
    middle = len(content) // 2
    content[middle : middle + 2_000] = bytes(2_000)
    (audio,) = decode(write(tmp_path / "a.flac", content), LIMITS)
    assert audio.duration == pytest.approx(20.0, abs=0.2)
    assert loudest_hertz(audio.samples) == pytest.approx(440, abs=1)


def test_mostly_bad_packets_are_refused(tmp_path):
    content = bytearray(encoded_bytes(tmp_path, tone(10.0, 44_100), 44_100, "libmp3lame", "mp3"))
    noise = np.random.default_rng(4)
    for start in range(2_000, len(content) - 3_000, 3_000):
        content[start : start + 2_000] = noise.bytes(2_000)
    with pytest.raises(CorruptAudio):
        decode(write(tmp_path / "a.mp3", content), LIMITS)


def test_chained_streams_and_changing_rates(tmp_path):
    opus = encoded_bytes(tmp_path, tone(3.0, 48_000), 48_000, "libopus", "ogg")
    (audio,) = decode(write(tmp_path / "a.ogg", opus + opus), LIMITS)
    assert audio.duration == pytest.approx(6.0, abs=0.05)
    fast = encoded_bytes(tmp_path, tone(3.0, 44_100), 44_100, "libmp3lame", "mp3", **NO_XING)
    slow = encoded_bytes(tmp_path, tone(3.0, 22_050), 22_050, "libmp3lame", "mp3", **NO_XING)
    (audio,) = decode(write(tmp_path / "a.mp3", fast + slow), LIMITS)
    assert audio.duration == pytest.approx(6.0, abs=0.15)
    for half in np.array_split(audio.samples, 2):
        assert loudest_hertz(half) == pytest.approx(440, abs=2)


def test_an_ogg_file_that_changes_its_codec_loses_nothing_silently(tmp_path):
    noise = np.random.default_rng(5).standard_normal((48_000 * 4, 1)) * 0.2
    opus = encoded_bytes(tmp_path, noise, 48_000, "libopus", "ogg")
    flac = encoded_bytes(tmp_path, noise, 48_000, "flac", "ogg")
    with pytest.raises(CorruptAudio, match="another codec"):
        decode(write(tmp_path / "a.ogg", opus + flac), LIMITS)
    for whole in (opus, flac):
        assert decode(write(tmp_path / "a.ogg", whole), LIMITS)[0].duration == pytest.approx(4.0, abs=0.05)


def test_a_gap_in_the_time_stamps_becomes_silence(tmp_path):
    path = tmp_path / "a.webm"
    with av.open(str(path), "w", format="webm") as file:
        stream = file.add_stream("libopus", rate=48_000, layout="mono")
        push(file, stream, tone(2.0, 48_000), 48_000, "mono", flush=False)
        push(file, stream, tone(2.0, 48_000), 48_000, "mono", start=5.0)
    (audio,) = decode(path, LIMITS)
    assert audio.duration == pytest.approx(7.0, abs=0.05)
    seconds = [rms(audio.samples[i * 16_000 : (i + 1) * 16_000]) > 0.2 for i in range(7)]
    assert seconds == [True, True, False, False, False, True, True]


def test_time_stamps_that_make_no_sense_move_nothing():
    clock = Timeline(0.0, 60.0, timestamped=True)
    timestamps = [0.0, 1.0, 2.1, -900.0, -899.0, 1e9, 1e9 + 1]
    assert [clock_step(clock, timestamp) for timestamp in timestamps] == [0.0] * 7
    assert clock_step(clock, 1e9 + 2 + 30) == pytest.approx(30.0)
    unknown = Timeline(None, None, timestamped=True)
    assert clock_step(unknown, 5_000.0) == 0.0
    assert clock_step(unknown, 5_000.0 + 601 + 1) == 0.0
    assert clock_step(Timeline(0.0, 60.0, timestamped=False), 30.0) == 0.0
    assert clock_step(Timeline(0.0, 60.0, timestamped=True), None) == 0.0


def clock_step(clock, timestamp):
    gap = clock.gap(timestamp)
    clock.position += gap + 1.0
    return gap


def report(**fields):
    # fmt: off
    plain = {"format": "wav", "track_duration": None, "file_duration": None, "decoded_duration": 100.0,
             "leading_silence": 0.0, "gap_duration": 0.0, "last_timestamp": 100.0, "truncated": False,
             "last_packet_offset": 0, "packets": 100, "failed_packets": 0, "decoded_bytes": 1_000,
             "expected_bytes": None}
    # fmt: on
    return Report(**plain | fields)


HEADER = Header("WAV", size_bytes=1_000, tag_bytes=0, states_length=False, stated_bytes=None)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"track_duration": 105.0}, None),
        ({"track_duration": 106.0}, CorruptAudio),
        ({"track_duration": 90.0}, None),
        ({"decoded_duration": 0.5, "track_duration": 1.4}, None),
        ({"file_duration": 300.0, "last_timestamp": 299.0}, None),
        ({"file_duration": 300.0, "last_timestamp": 100.0}, CorruptAudio),
        ({"failed_packets": 10}, None),
        ({"failed_packets": 11}, CorruptAudio),
        ({"failed_packets": 1, "packets": 2}, None),
        ({"expected_bytes": 1_900}, None),
        ({"expected_bytes": 2_100}, CorruptAudio),
    ],
)
def test_what_counts_as_damage(fields, error):
    if error is None:
        check_complete(report(**fields), HEADER, decoded=True)
    else:
        with pytest.raises(error):
            check_complete(report(**fields), HEADER, decoded=True)


def test_nothing_decoded_is_damage_or_emptiness():
    with pytest.raises(EmptyAudio):
        check_complete(report(decoded_duration=0.0), HEADER, decoded=False)
    for fields in ({"failed_packets": 1}, {"truncated": True}, {"track_duration": 10.0}):
        with pytest.raises(CorruptAudio):
            check_complete(report(decoded_duration=0.0, last_timestamp=0.0, **fields), HEADER, decoded=False)


BASES = [
    ("wav", "pcm_s16le", 16_000, {}),
    ("wav", "adpcm_ms", 16_000, {}),
    ("mp3", "libmp3lame", 16_000, {}),
    ("flac", "flac", 16_000, {}),
    ("ogg", "libopus", 48_000, {}),
    ("ipod", "aac", 16_000, FAST_START),
    ("mp4", "aac", 16_000, FRAGMENTS),
    ("webm", "libopus", 48_000, {}),
    ("adts", "aac", 16_000, {}),
    ("caf", "alac", 16_000, {}),
    ("aiff", "pcm_s16be", 16_000, {}),
    ("avi", "libmp3lame", 16_000, {}),
    ("asf", "wmav2", 44_100, {"bit_rate": 128_000}),
    ("amr", "libopencore_amrnb", 8_000, {}),
    ("wv", "wavpack", 16_000, {}),
    ("tta", "tta", 16_000, {}),
    ("flv", "nellymoser", 16_000, {}),
    ("mpegts", "aac", 16_000, {}),
    ("mpegts", "ac3", 48_000, {"options": {"mpegts_m2ts_mode": "1"}}),
    ("mpeg", "mp2", 16_000, {}),
    ("vob", "pcm_dvd", 48_000, {}),
    ("ac3", "ac3", 48_000, {}),
    ("latm", "aac", 16_000, {}),
]


@pytest.mark.parametrize(("container", "codec", "rate", "options"), BASES)
def test_mutated_files_are_read_or_refused(tmp_path, container, codec, rate, options):
    whole = encoded_bytes(tmp_path, tone(1.5, rate), rate, codec, container, **options)
    # The seed is the format's own, whatever the order of the tests.
    random = np.random.default_rng(sum(container.encode() + codec.encode()))
    for turn in range(8):
        content = bytearray(whole)
        if turn % 4 == 3:
            del content[random.integers(1, len(content)) :]
        if turn % 4 == 2:
            start = random.integers(0, len(content))
            content[start:start] = content[random.integers(0, len(content)) :][:500]
        reach = min(len(content), 400 if turn % 2 else len(content))  # half of the mutations hit the header
        for at in random.integers(0, reach, 12):
            content[at] ^= 1 << int(random.integers(0, 8))
        try:
            (audio,) = decode(write(tmp_path / "mutated", content), LIMITS)
        except AudioError as error:
            assert len(str(error)) > 20  # noqa: PT017
        else:
            assert 0.01 <= audio.duration <= 61
            assert np.isfinite(audio.samples).all()
            assert np.abs(audio.samples).max() <= 1.0
    assert [left.name for left in tmp_path.iterdir()] == ["mutated"]


def test_progress_never_falls_and_ends_at_one(tmp_path):
    for container, codec in (("wav", "pcm_s16le"), ("adts", "aac")):
        told = []
        content = encoded_bytes(tmp_path, tone(30.0), 16_000, codec, container)
        decode(write(tmp_path / "a", content), LIMITS, progress=told.append)
        assert all(a <= b for a, b in pairwise(told))
        assert told[-1] == 1.0
        assert min(told) >= 0.0
