"""What the channels of a recording contain, on real voices that are combined into the channels of calls and rooms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from diarist.audio import DecodeLimits
from diarist.audio.channel_detection import ChannelDetector
from diarist.audio.decoding import read_recording
from diarist.types import SAMPLE_RATE
from support.audio_files import encode
from support.recordings import VOICES

LIMITS = DecodeLimits(max_duration_s=600.0, timeout_s=60.0)


@dataclass(frozen=True)
class Call:
    """The voices of a conversation, each with silence while the others speak."""

    voices: tuple[np.ndarray, ...]

    @property
    def mono(self):
        return sum(self.voices)


def call(voices, speakers=2, seconds=45.0, overlap=0.0):
    """Return a conversation in turns; with ``overlap``, each one begins before the last one ends."""
    count = round(seconds * SAMPLE_RATE)
    tracks = [np.zeros(count, dtype=np.float32) for _ in range(speakers)]
    at, turn = SAMPLE_RATE // 2, 0
    while True:
        speaker = turn % speakers
        parts = voices[VOICES[speaker]]
        samples = parts[turn // speakers % len(parts)].samples
        if at + len(samples) > count:
            return Call(tuple(tracks))
        tracks[speaker][at : at + len(samples)] += samples / (10.0 * np.sqrt(np.mean(samples**2)))
        at += round(len(samples) * (1.0 - overlap)) + SAMPLE_RATE // 4
        turn += 1


@pytest.fixture(scope="module")
def two(voices):
    return call(voices)


def gain(decibels):
    return np.float32(10.0 ** (decibels / 20.0))


def noise(samples, decibels, seed):
    return gain(decibels) * np.random.default_rng(seed).standard_normal(len(samples)).astype(np.float32)


def noisy(*channels, decibels=-65.0):
    return [channel + noise(channel, decibels, seed) for seed, channel in enumerate(channels)]


def delayed(samples, seconds):
    return np.concatenate([np.zeros(round(seconds * SAMPLE_RATE), dtype=np.float32), samples])[: len(samples)]


def convolved(samples, response):
    size = len(samples) + len(response)
    return np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(response, size), size)[: len(samples)]


def room(voices, distances, reverberation_s=0.4, seed=3):
    """Return what microphones at these distances in meters, (voices, microphones), pick up of each voice."""
    random = np.random.default_rng(seed)
    length = round(reverberation_s * SAMPLE_RATE)

    def response(distance):
        tail = random.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length)
        tail[:32] = 0.0
        tail /= 1.2 * np.sqrt(np.sum(tail**2))  # as loud as the direct sound at 1.2 m
        tail[0] = 1.0 / distance
        return np.concatenate([np.zeros(round(distance / 343.0 * SAMPLE_RATE)), tail])

    return [
        sum(convolved(samples, response(of[microphone])) for samples, of in zip(voices, distances, strict=True)) / 4.0
        for microphone in range(len(distances[0]))
    ]


def detect(*channels, block=9_000):
    samples = np.stack(channels, axis=1).astype(np.float32)
    detector = ChannelDetector(len(channels))
    for first in range(0, len(samples), block):
        detector.add(samples[first : first + block])
    found = detector.finish()
    return found.reason, found.kept


COPIES = {
    "exact": lambda mono: mono,
    "-6 dB": lambda mono: mono * gain(-6),
    "-30 dB, 16 bits": lambda mono: np.round(mono * gain(-30) * 32_768) / 32_768,
    "inverted": lambda mono: -mono,
    "5 ms": lambda mono: delayed(mono, 0.005),
    "5 ms, inverted, -6 dB": lambda mono: -gain(-6) * delayed(mono, 0.005),
    "80 ms": lambda mono: delayed(mono, 0.08),
    "noisy": lambda mono: mono + noise(mono, -45, 5),
}


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
def test_a_copy_at_any_level_polarity_and_delay_is_dual_mono(two, copy):
    reason, kept = detect(two.mono, copy(two.mono))
    assert reason == "duplicate"
    assert len(kept) == 1


def test_the_better_one_of_two_copies_is_kept(two):
    assert detect(two.mono * gain(-6), two.mono) == ("duplicate", (1,))
    assert detect(two.mono, two.mono + noise(two.mono, -40, 5)) == ("duplicate", (0,))


def test_a_channel_that_contains_the_other_one_and_more_is_kept(two):
    first, second = two.voices
    assert detect(*noisy(second, first + second)) == ("duplicate", (1,))


@pytest.mark.parametrize(
    ("codec", "container", "rate"),
    [("libmp3lame", "mp3", 44_100), ("libopus", "ogg", 48_000), ("aac", "adts", 44_100)],
)
@pytest.mark.parametrize(
    ("reason", "used", "channels"), [("duplicate", "single", 1), ("parties", "separate", 2)], ids=["dual", "parties"]
)
def test_lossy_joint_stereo_changes_nothing(tmp_path, two, codec, container, rate, reason, used, channels):
    sound = noisy(two.mono, two.mono * gain(-2)) if reason == "duplicate" else noisy(*two.voices)
    upsampled = [np.interp(np.arange(0, len(each), SAMPLE_RATE / rate), np.arange(len(each)), each) for each in sound]
    path = encode(tmp_path / "a", np.stack(upsampled, 1), rate, codec, container=container, bit_rate=64_000)
    recording = read_recording(path, LIMITS, channels="auto")
    # At this bit rate, Opus puts some sound of each channel into the other one.
    assert recording.channel_choice.reason in ({reason} | ({"crosstalk"} if channels == 2 else set()))
    assert recording.channel_choice.used == used
    assert len(recording.channels) == channels


def test_a_channel_of_silence_or_noise_is_left_out(two):
    mono = two.mono + noise(two.mono, -60, 1)
    bursts = noise(mono, -70, 2)
    bursts[: len(bursts) // 4] = 0.0
    hum = 0.02 * np.sin(2 * np.pi * 50 * np.arange(len(mono)) / SAMPLE_RATE)
    for other in (np.zeros_like(mono), noise(mono, -70, 2), noise(mono, -40, 2), bursts, hum + noise(mono, -70, 2)):
        assert detect(mono, other) == ("silent", (0,))
        assert detect(other, mono) == ("silent", (1,))


def test_knocks_on_a_microphone_make_no_party(two):
    mono = two.mono + noise(two.mono, -65, 1)
    knocks = noise(mono, -75, 2)
    for at in range(SAMPLE_RATE, len(mono) - SAMPLE_RATE, 3 * SAMPLE_RATE):
        knocks[at : at + 3_200] += noise(knocks[at : at + 3_200], -35, at)
    assert detect(mono, knocks)[0] == "shared"
    assert detect(mono + np.roll(knocks, SAMPLE_RATE), mono + knocks)[0] == "shared"


PARTIES = {
    "digital silence": lambda a, b: (a, b),
    "noise": lambda a, b: noisy(a, b, decibels=-45.0),
    "different noise": lambda a, b: (a + noise(a, -45, 1), b + noise(b, -70, 2)),
    "-20 dB": lambda a, b: noisy(a, b * gain(-20)),
    "-30 dB": lambda a, b: (a + noise(a, -60, 1), b * gain(-30) + noise(b, -75, 2)),
    "swapped": lambda a, b: noisy(b, a),
    "one after the other": lambda a, b: noisy(
        np.where(np.arange(len(a)) < len(a) // 2, a, 0.0), np.where(np.arange(len(b)) < len(b) // 2, 0.0, b)
    ),
    "common hum": lambda a, b: (
        a + 0.02 * np.sin(np.arange(len(a)) / 51.0),
        b + 0.02 * np.sin(np.arange(len(a)) / 51.0),
    ),
}


@pytest.mark.parametrize("channels", PARTIES.values(), ids=PARTIES)
def test_each_channel_has_a_party(two, channels):
    assert detect(*channels(*two.voices)) == ("parties", (0, 1))


@pytest.mark.parametrize("overlap", [0.3, 0.6])
def test_parties_may_speak_at_once(voices, overlap):
    assert detect(*noisy(*call(voices, overlap=overlap).voices)) == ("parties", (0, 1))


@pytest.mark.parametrize("attenuation_db", [10, 20, 30, 40])
@pytest.mark.parametrize("overlap", [0.0, 0.4])
def test_crosstalk_leaves_a_party_on_each_channel(voices, attenuation_db, overlap):
    first, second = call(voices, overlap=overlap).voices
    leak = gain(-attenuation_db)
    channels = noisy(first + leak * delayed(second, 0.004), second + leak * delayed(first, 0.004), decibels=-75.0)
    assert detect(*channels) == ("crosstalk", (0, 1))


@pytest.mark.parametrize("attenuation_db", [10, 20, 30])
def test_an_echo_leaves_a_party_on_each_channel(two, attenuation_db):
    first, second = two.voices
    tail = 0.02 * np.random.default_rng(4).standard_normal(3_200) * np.exp(-np.arange(3_200) / 500)
    tail[0] = 1.0
    echo = gain(-attenuation_db) * delayed(convolved(second, tail), 0.08)
    assert detect(*noisy(first + echo, second)) == ("crosstalk", (0, 1))


def test_the_gain_of_a_channel_does_not_decide(two):
    first, second = two.voices
    louder = first + gain(-10) * second, 0.3 * gain(12) * (second + gain(-10) * first)
    assert detect(*noisy(*louder)) == ("crosstalk", (0, 1))
    near, far = room(two.voices, ((1.0, 2.0), (2.0, 1.0)))
    assert detect(*noisy(near, gain(-15) * far))[0] == "shared"


ROOMS = {
    "two people": ((1.0, 2.0), (2.0, 1.0)),
    "three people": ((1.0, 2.0), (1.5, 1.5), (2.0, 1.0)),
    "somebody between two who are near": ((0.4, 2.5), (1.5, 1.6), (2.5, 0.4)),
    "microphones beside each other": ((1.5, 1.55), (1.6, 1.5)),
}


@pytest.mark.parametrize("distances", ROOMS.values(), ids=ROOMS)
def test_microphones_in_a_room_share_the_people(voices, distances):
    people = call(voices, len(distances)).voices
    assert detect(*noisy(*room(people, distances), decibels=-60.0))[0] == "shared"


def test_microphones_close_to_each_mouth_have_a_party_each(two):
    assert detect(*noisy(*room(two.voices, ((0.1, 2.0), (2.0, 0.1)))))[0] == "crosstalk"


def test_a_stereo_mix_is_shared(two):
    first, second = two.voices
    assert detect(0.8 * first + 0.6 * second, 0.6 * first + 0.8 * second)[0] == "shared"
    time = np.arange(len(first)) / SAMPLE_RATE
    music = [
        sum(np.sin(2 * np.pi * hertz * harmonic * time + side) / harmonic for harmonic in range(1, 6)) * 0.02
        * np.interp(time, np.arange(0, 60, 0.5), np.random.default_rng(seed).uniform(0, 1, 120))
        for seed, (side, hertz) in enumerate([(0, 220), (1, 330), (2, 262), (3, 392)])
    ]  # fmt: skip
    left, right = music[0] + 0.5 * music[1] + music[2], music[1] + 0.5 * music[0] + music[3]
    assert detect(left, right)[0] == "shared"
    assert detect(two.mono + left, two.mono + right)[0] in ("shared", "duplicate")


def test_a_recording_that_changes_is_shared(two):
    half = np.arange(len(two.mono)) < len(two.mono) // 2
    first, second = two.voices
    assert detect(np.where(half, two.mono, first), np.where(half, two.mono, second))[0] == "shared"


def test_many_channels_are_compared_in_pairs(voices):
    people = call(voices, 4, seconds=60.0).voices
    silence = np.zeros_like(people[0])
    assert detect(*noisy(*people)) == ("parties", (0, 1, 2, 3))
    leaks = [own + gain(-15) * (sum(people) - own) for own in people]
    assert detect(*noisy(*leaks)) == ("crosstalk", (0, 1, 2, 3))
    assert detect(people[0], silence, people[1], silence) == ("parties", (0, 2))
    assert detect(people[0], gain(-3) * people[0], people[1], people[1]) == ("parties", (0, 2))
    distances = ((1.0, 1.5, 2.0, 1.6), (1.5, 1.0, 1.6, 2.0), (2.0, 1.6, 1.0, 1.4))
    assert detect(*noisy(*room(people[:3], distances)))[0] == "shared"


def test_windows_are_skipped_if_there_are_many_pairs(voices, monkeypatch):
    monkeypatch.setattr("diarist.audio.channel_detection.ALL_WINDOWS", 16)
    people = call(voices, 4, seconds=120.0).voices
    assert detect(*noisy(*people)) == ("parties", (0, 1, 2, 3))


def test_the_size_of_the_blocks_changes_nothing(two):
    channels = noisy(*two.voices)
    assert detect(*channels, block=16_000) == detect(*channels, block=333) == ("parties", (0, 1))


def test_short_recordings_are_shared_or_silent(two):
    first, second = two.voices
    start = round(1.0 * SAMPLE_RATE)
    assert detect(*noisy(first[start : start + 8_000], second[start : start + 8_000]))[0] in ("silent", "shared")
    assert detect(np.zeros(10), np.zeros(10)) == ("silent", (0,))
    assert detect(first) == ("mono", (0,))


def test_real_calls(shared_data):
    reasons = {
        "field/bleed-30dB.flac": "crosstalk",
        "telephone/harper-stereo-8k.wav": "parties",
        "telephone/harper-mono-8k.wav": "mono",
        "woz/MUL1423-stereo.flac": "parties",
        "woz/SNG0072-stereo.flac": "parties",
    }
    for name, reason in reasons.items():
        assert read_recording(shared_data / name, LIMITS, channels="auto").channel_choice.reason == reason
