"""The choice of an audio track: by number, the default one, the best one, or all of them."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import av
import numpy as np
import pytest
import soundfile

from diarist.audio import DecodeLimits, decoding, limits, read_recording
from diarist.audio.speech_detection import speech_duration
from diarist.errors import (
    AudioTooLong,
    Cancelled,
    CorruptAudio,
    DecoderFailed,
    EmptyAudio,
    NotAudio,
    TrackNotFound,
    UnsupportedAudio,
)
from diarist.tracks import AudioTracks
from diarist.types import Audio
from support.audio_files import encode_tracks, loudest_hertz, pcm, rms, tone, wav, write

LIMITS = DecodeLimits(max_duration_s=60.0, timeout_s=30.0, memory_mb=512)
RATE = 48_000


def tones(*hertz, seconds=2.0, rate=RATE):
    return [tone(seconds, rate, each or 1_000.0, 0.5 if each else 0.0) for each in hertz]


def expect(path, track, hertz, used, count):
    recording = read_recording(path, LIMITS, track=track)
    assert [loudest_hertz(audio.samples) for audio in recording.channels] == pytest.approx(hertz, abs=2)
    assert recording.tracks == AudioTracks(used, count)
    return recording


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path, monkeypatch):
    """Temporary files go to a folder of the test, which is empty at the end."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    yield
    assert list(folder.iterdir()) == []


@pytest.fixture(scope="session")
def speech(sample_recording):
    """Ten seconds of a conversation, 16 kHz, shape (samples, 1)."""
    samples, _ = soundfile.read(
        sample_recording, dtype="float64", start=10 * 16_000, frames=10 * 16_000, always_2d=True
    )
    return samples


def music(seconds=10.0, rate=16_000):
    """Chords with a beat, which are louder than speech."""
    random = np.random.default_rng(7)
    time = np.arange(round(seconds * rate)) / rate
    beat = np.exp(-8 * (time % 0.5))
    sound = np.zeros_like(time)
    for start in range(int(seconds)):
        now = (time >= start) & (time < start + 1)
        for hertz in random.choice([220.0, 261.6, 329.6, 392.0, 440.0], 3, replace=False):
            sound[now] += sum(np.sin(2 * np.pi * hertz * n * time[now]) / n for n in range(1, 6))
    return (0.9 * beat * sound / np.abs(beat * sound).max())[:, None]


@pytest.mark.parametrize(("container", "codec"), [("matroska", "pcm_s16le"), ("mp4", "aac"), ("mov", "pcm_s16le")])
def test_a_track_is_chosen_by_its_number(tmp_path, container, codec):
    path = encode_tracks(tmp_path / "a", *tones(440, 880, 1_320), container=container, codec=codec, default=1)
    for number, hertz in ((1, 440), (2, 880), (3, 1_320)):
        assert expect(path, number, [hertz], (number,), 3).warnings == ()
    expect(path, "default", [880], (2,), 3)
    expect(path, None, [880], (2,), 3)


def test_a_chosen_track_may_be_silent(tmp_path):
    path = encode_tracks(tmp_path / "a", *tones(0, 440))
    for track in (1, "default"):
        recording = read_recording(path, LIMITS, track=track)
        assert rms(recording.channels[0].samples) == 0.0
        assert recording.warnings == ()
    with pytest.raises(EmptyAudio):
        read_recording(encode_tracks(tmp_path / "b", None, *tones(440)), LIMITS, track=1)


def test_a_number_that_does_not_exist_is_an_error_that_says_how_many_there_are(tmp_path):
    path = encode_tracks(tmp_path / "a", *tones(440, 880, 1_320))
    with pytest.raises(TrackNotFound, match="no audio track 4: the recording has 3 audio tracks"):
        read_recording(path, LIMITS, track=4)
    with pytest.raises(TrackNotFound, match=r"has 1 audio track\. Leave the number out"):
        read_recording(write(tmp_path / "b", wav(pcm(tone()))), LIMITS, track=10**9 - 1)


@pytest.mark.parametrize("track", [None, 1, "default", "best", "all"])
def test_a_video_without_sound_has_no_track(tmp_path, track):
    path = tmp_path / "silent.mp4"
    with av.open(str(path), "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        file.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        file.mux(stream.encode(None))
    with pytest.raises(NotAudio, match="no audio track"):
        read_recording(path, LIMITS, track=track)


def test_a_codec_that_is_not_supported_does_not_change_the_numbers(tmp_path):
    path = encode_tracks(
        tmp_path / "a", *tones(440, 880, 1_320, rate=8_000), codecs=("pcm_s16le", "real_144"), rate=8_000
    )
    expect(path, 3, [1_320], (3,), 3)
    warning = ("The codec of audio track 2 is not supported: the track is left out.",)
    assert expect(path, "all", [440, 1_320], (1, 3), 3).warnings == warning
    assert expect(path, "best", [440], (1,), 3).warnings == warning
    with pytest.raises(UnsupportedAudio, match=r"audio track 2 .* \(real_144\).* \(1, 3\)"):
        read_recording(path, LIMITS, track=2)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_best_track_is_the_one_with_speech(tmp_path, speech, place):
    """Neither loud music, nor noise, nor silence is speech; quiet speech is."""
    sounds = [music(), np.random.default_rng(3).normal(0.0, 0.2, (160_000, 1))]
    sounds.insert(place, 0.05 * speech)
    path = encode_tracks(tmp_path / "a", *sounds, np.zeros((160_000, 1)), rate=16_000)
    recording = read_recording(path, LIMITS, track="best")
    assert recording.tracks == AudioTracks((place + 1,), 4)
    assert recording.warnings == ()


def test_the_best_track_has_more_speech_than_another_one(tmp_path, speech):
    part = np.concatenate([speech[:48_000], np.zeros_like(speech[48_000:])])
    path = encode_tracks(tmp_path / "a", part, speech, np.tile(part, (1, 2)), rate=16_000)
    assert read_recording(path, LIMITS, track="best").tracks.used == (2,)
    separate = read_recording(path, LIMITS, track="best", channels="separate")
    assert separate.tracks.used == (2,)


def test_of_equal_tracks_the_default_one_is_the_best(tmp_path, speech):
    path = encode_tracks(tmp_path / "a", speech, speech, speech, rate=16_000, default=1)
    assert read_recording(path, LIMITS, track="best").tracks.used == (2,)


def test_without_speech_the_best_track_is_one_with_sound(tmp_path):
    expect(encode_tracks(tmp_path / "a", *tones(0, 440, 880)), "best", [440], (2,), 3)
    expect(encode_tracks(tmp_path / "b", *tones(440, 880), default=1), "best", [880], (2,), 2)
    expect(encode_tracks(tmp_path / "c", None, *tones(440)), "best", [440], (2,), 2)
    silent = read_recording(encode_tracks(tmp_path / "d", *tones(0, 0)), LIMITS, track="best")
    assert silent.tracks == AudioTracks((1,), 2)
    with pytest.raises(EmptyAudio):
        read_recording(encode_tracks(tmp_path / "e", *tones(440, 880, seconds=0.005)), LIMITS, track="best")


def test_one_track_is_the_best(tmp_path):
    expect(write(tmp_path / "a.wav", wav(pcm(tone()))), "best", [440], (1,), 1)


@pytest.mark.shared
def test_recorded_music_is_no_speech(shared_data):
    def measure(name):
        (audio,) = read_recording(shared_data / "awkward" / name, DecodeLimits()).channels
        return speech_duration([audio], lambda: None) / audio.duration

    assert measure("Kevin_MacLeod_-_Vibe_Ace.ogg") < 0.1
    assert measure("ted_60.m4a") > 0.6


def test_speech_is_measured_over_all_channels_and_can_be_stopped(speech):
    audio = Audio(speech[:, 0].astype(np.float32))
    half = len(speech) // 2
    sides = [audio.samples.copy(), audio.samples.copy()]
    sides[0][half:] = 0
    sides[1][:half] = 0
    whole = speech_duration([audio], lambda: None)
    assert whole > 4.0
    assert speech_duration([Audio(side) for side in sides], lambda: None) == pytest.approx(whole, abs=0.5)
    assert speech_duration([audio, audio], lambda: None) == whole

    def stop():
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        speech_duration([audio], stop)


@pytest.mark.parametrize(("container", "codec"), [("matroska", "libopus"), ("mp4", "aac"), ("mov", "pcm_s16le")])
def test_all_tracks_have_one_time_scale_and_one_length(tmp_path, container, codec):
    sounds = tone(2.0, RATE, 440), tone(5.0, RATE, 880), tone(1.0, RATE, 1_320)
    starts = (1.5, 0.0, 6.0)
    path = encode_tracks(tmp_path / "a", *sounds, container=container, codec=codec, starts=starts)
    recording = expect(path, "all", [440, 880, 1_320], (1, 2, 3), 3)
    assert len({len(audio.samples) for audio in recording.channels}) == 1
    assert recording.channels[0].duration == pytest.approx(7.0, abs=0.1)
    for audio, start, sound in zip(recording.channels, starts, sounds, strict=True):
        loud = np.flatnonzero(np.abs(audio.samples) > 0.2) / 16_000
        assert loud[0] == pytest.approx(start, abs=0.05)
        assert loud[-1] == pytest.approx(start + len(sound) / RATE, abs=0.05)


def test_each_of_all_tracks_is_mixed(tmp_path):
    sides = np.concatenate([tone(2.0, RATE, 440), tone(2.0, RATE, 660, 0.2)], axis=1)
    path = encode_tracks(tmp_path / "a", sides, tone(2.0, RATE, 880, channels=2))
    recording = expect(path, "all", [440, 880], (1, 2), 2)
    assert rms(recording.channels[0].samples) == pytest.approx(rms(sides.mean(axis=1)), rel=0.02)


def test_of_all_tracks_repetitions_and_empty_ones_are_left_out(tmp_path):
    path = encode_tracks(tmp_path / "a", *tones(440, 440, 880), None)
    recording = expect(path, "all", [440, 880], (1, 2, 3), 4)
    assert recording.warnings == ("Audio track 4 contains no sound, and is left out.",)
    with pytest.raises(EmptyAudio):
        read_recording(encode_tracks(tmp_path / "b", *tones(440, 880, seconds=0.005)), LIMITS, track="all")


def test_all_of_one_track(tmp_path):
    recording = expect(write(tmp_path / "a.wav", wav(pcm(tone()))), "all", [440], (1,), 1)
    assert ["only one audio track" in warning for warning in recording.warnings] == [True]


def test_sixteen_tracks_and_no_more(tmp_path):
    hertz = [400 + 100 * index for index in range(17)]
    sounds = tones(*hertz, seconds=0.5)
    expect(encode_tracks(tmp_path / "a", *sounds[:16]), "all", hertz[:16], tuple(range(1, 17)), 16)
    path = encode_tracks(tmp_path / "b", *sounds)
    with pytest.raises(UnsupportedAudio, match=r"^The recording has 17 audio tracks"):
        read_recording(path, LIMITS, track="all")
    expect(path, 17, hertz[16:], (17,), 17)


def test_all_tracks_share_the_limits(tmp_path, monkeypatch):
    path = encode_tracks(tmp_path / "a", *tones(440, 880, 1_320, seconds=5.0))
    with pytest.raises(AudioTooLong, match="3 audio tracks together may last 4 s"):
        read_recording(path, DecodeLimits(max_duration_s=6.0), track="all")
    monkeypatch.setattr(limits, "MAX_IN_MEMORY_S", 3.0)
    folder = tmp_path / "samples"
    folder.mkdir()
    stored = read_recording(path, DecodeLimits(folder=folder), track="all")
    assert [type(audio.samples.base).__name__ for audio in stored.channels] == ["mmap"] * 3
    assert [loudest_hertz(audio.samples) for audio in stored.channels] == pytest.approx([440, 880, 1_320], abs=2)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("track", ["all", "best"])
def test_damage_in_one_of_several_tracks_is_an_error_that_names_it(tmp_path, track):
    path = encode_tracks(tmp_path / "a", *tones(440, 880, 1_320), codec="flac")
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as file:
        places = [(packet.pos, packet.size) for packet in file.demux(audio=1) if packet.size]
    for position, size in places:
        content[position + 12 : position + size] = bytes(size - 12)
    path.write_bytes(content)
    with pytest.raises(CorruptAudio, match=r"^Audio track 2 of 3: "):
        read_recording(path, LIMITS, track=track)
    expect(path, 1, [440], (1,), 3)
    expect(path, 3, [1_320], (3,), 3)


@pytest.mark.parametrize(("track", "result"), [("all", DecoderFailed), ("best", None)])
def test_many_tracks_cannot_occupy_the_decoder(tmp_path, monkeypatch, track, result):
    path = encode_tracks(tmp_path / "a", *tones(440, 880, 1_320))
    times = iter((0.0, 2 * LIMITS.timeout_s - 1, 2 * LIMITS.timeout_s))
    monkeypatch.setattr(decoding, "time", SimpleNamespace(monotonic=lambda: next(times)))
    if result is not None:
        with pytest.raises(result, match="DECODE_TIMEOUT_S"):
            read_recording(path, LIMITS, track=track)
    else:
        recording = read_recording(path, LIMITS, track=track)
        assert ["DECODE_TIMEOUT_S" in warning for warning in recording.warnings] == [True]


@pytest.mark.parametrize("track", ["all", "best"])
def test_progress_never_falls_and_reaches_one(tmp_path, track):
    told = []
    path = encode_tracks(tmp_path / "a", *tones(440, 880, 1_320, seconds=20.0))
    read_recording(path, LIMITS, told.append, track=track)
    assert all(a <= b for a, b in pairwise(told))
    assert told[-1] == 1.0


@pytest.mark.parametrize("track", [2, "all", "best"])
def test_stopping_leaves_nothing(tmp_path, monkeypatch, track):
    monkeypatch.setattr(limits, "MAX_IN_MEMORY_S", 1.0)
    path = encode_tracks(tmp_path / "a", *tones(440, 880, 1_320, seconds=20.0))

    def stop(done):
        if done > 0.3:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        read_recording(path, LIMITS, stop, track=track)
