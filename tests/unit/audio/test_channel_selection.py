"""The choice of channels while a file is decoded: what is returned, within which limits, and when it is the mix."""

from __future__ import annotations

import numpy as np
import pytest

from diarist.audio import DecodeLimits, decode
from diarist.audio import limits as audio_limits
from diarist.audio.channel_selection import ChannelSelection
from diarist.audio.decoding import read_recording
from diarist.channels import ChannelChoice
from diarist.types import SAMPLE_RATE, SpeakerHints
from support.audio_files import pcm, wav, write

LIMITS = DecodeLimits(max_duration_s=60.0, timeout_s=30.0)


def voice(*turns, seed, seconds=24):
    """Return noise with the envelope of syllables in the turns, each from one second to another."""
    random = np.random.default_rng(seed)
    count = seconds * SAMPLE_RATE
    noise = np.convolve(random.standard_normal(count), 0.8 ** np.arange(30), mode="same")
    syllables = np.interp(np.arange(count), np.arange(0, count, 2_000), random.uniform(0.05, 1.0, count // 2_000))
    gate = np.zeros(count)
    for start, end in turns:
        gate[start * SAMPLE_RATE : end * SAMPLE_RATE] = 1.0
    return 0.03 * noise * syllables * gate + 1e-4 * random.standard_normal(count)


FIRST = voice((1, 5), (9, 13), (17, 20), seed=1)
SECOND = voice((5, 9), (13, 17), (20, 23), seed=2)
BOTH = FIRST + SECOND


@pytest.fixture
def recording(tmp_path):
    def make(*channels):
        return write(tmp_path / "a.wav", wav(pcm(np.stack(channels, axis=1)), channels=len(channels)))

    return make


def read(path, limits=LIMITS, **options):
    found = read_recording(path, limits, channels="auto", **options)
    return found.channel_choice, found.channels


def test_parties_are_returned_as_separate_channels(recording):
    path = recording(FIRST, SECOND)
    choice, channels = read(path)
    assert choice == ChannelChoice("auto", "separate", "parties")
    for own, expected in zip(channels, decode(path, LIMITS, channels="separate"), strict=True):
        assert np.array_equal(own.samples, expected.samples)


def test_shared_channels_are_returned_as_the_mix(recording):
    path = recording(FIRST + 0.6 * SECOND, SECOND + 0.6 * FIRST)
    choice, (mix,) = read(path)
    assert choice == ChannelChoice("auto", "mix", "shared")
    assert np.array_equal(mix.samples, decode(path, LIMITS)[0].samples)


@pytest.mark.parametrize(
    ("others", "reason"), [((0.5 * BOTH,), "duplicate"), ((-BOTH,), "duplicate"), ((0 * BOTH, 0 * BOTH), "silent")]
)
def test_one_channel_with_all_sound_is_returned_alone(recording, others, reason):
    path = recording(BOTH, *others)
    choice, (single,) = read(path)
    assert choice == ChannelChoice("auto", "single", reason)
    assert np.array_equal(single.samples, decode(path, LIMITS, channels="separate")[0].samples)


def test_one_channel_is_its_own_mix(recording):
    choice, (audio,) = read(recording(BOTH))
    assert choice == ChannelChoice("auto", "mix", "mono")
    assert audio.samples == pytest.approx(BOTH, abs=1e-4)


@pytest.mark.parametrize(
    ("hints", "used", "reason"),
    [
        (SpeakerHints(2), "separate", "parties"),
        (SpeakerHints(None, 1, 4), "separate", "parties"),
        (SpeakerHints(3), "mix", "speakers"),
        (SpeakerHints(None, 3), "mix", "speakers"),
        (SpeakerHints(1), "mix", "speakers"),
    ],
)
def test_the_number_of_speakers_may_contradict_separate_channels(recording, hints, used, reason):
    choice, channels = read(recording(FIRST, SECOND), hints=hints)
    assert choice == ChannelChoice("auto", used, reason)
    assert len(channels) == (2 if used == "separate" else 1)


def test_what_was_requested_is_reported(recording):
    path = recording(FIRST, SECOND)
    assert read_recording(path, LIMITS).channel_choice == ChannelChoice("mix", "mix", "requested")
    separate = read_recording(path, LIMITS, channels="separate")
    assert separate.channel_choice == ChannelChoice("separate", "separate", "requested")


def test_too_long_for_separate_channels_is_the_mix(recording):
    path = recording(FIRST, SECOND, 0 * FIRST)
    choice, channels = read(path, DecodeLimits(max_duration_s=36.0))
    assert choice.used == "separate"
    assert len(channels) == 2
    path = recording(*[FIRST, SECOND] * 2)
    choice, channels = read(path, DecodeLimits(max_duration_s=36.0))
    assert (choice, len(channels)) == (ChannelChoice("auto", "mix", "duration"), 1)


def test_long_recordings_are_kept_in_files(recording, monkeypatch, tmp_path):
    path = recording(FIRST, SECOND)
    expected = read(path)
    monkeypatch.setattr(audio_limits, "MAX_IN_MEMORY_S", 4.0)
    choice, channels = read(path, DecodeLimits(folder=tmp_path))
    assert choice == expected[0]
    for own, other in zip(channels, expected[1], strict=True):
        assert not own.samples.flags.writeable  # mapped from a file
        assert np.array_equal(own.samples, other.samples)


def test_a_change_of_the_number_of_channels_is_the_mix():
    selection = ChannelSelection(2, SpeakerHints(), 0, SAMPLE_RATE, None)
    selection.add(np.stack([FIRST, SECOND], axis=1).astype(np.float32))
    selection.add(FIRST[:100, None].astype(np.float32))
    selection.add(np.zeros((100, 2), dtype=np.float32))
    selection.add_silence(100)
    assert selection.channels == 0
    assert selection.take() == (ChannelChoice("auto", "mix", "layout"), ())


def test_silence_is_part_of_all_channels():
    selection = ChannelSelection(2, SpeakerHints(), 0, SAMPLE_RATE, None)
    selection.add_silence(SAMPLE_RATE)
    selection.add(np.stack([FIRST, SECOND], axis=1).astype(np.float32))
    choice, channels = selection.take()
    assert choice.used == "separate"
    assert [len(audio.samples) for audio in channels] == [len(FIRST) + SAMPLE_RATE] * 2
    assert not channels[0].samples[:SAMPLE_RATE].any()
