"""Surround sound: the center counts most in the mix, and low frequencies are no speech."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from diarist.audio import DecodeLimits, read_recording
from diarist.audio.channels import DownMix
from diarist.audio.surround import LowFrequencyChannels, is_surround, mix_weights
from support.audio_files import encode, loudest_hertz, pcm, rms, tone, tones, wav, write

LIMITS = DecodeLimits(max_duration_s=60.0, timeout_s=30.0, memory_mb=512)
RATE = 48_000
FIVE_ONE = ("FL", "FR", "FC", "LFE", "BL", "BR")
FORMATS = [
    # container, codec, layout
    ("wav", "pcm_s16le", "5.1"),
    ("flac", "flac", "5.1"),
    ("ogg", "libopus", "5.1"),
    ("mp4", "aac", "5.1"),
    ("matroska", "ac3", "5.1(side)"),
    ("caf", "pcm_s16le", "5.1"),
    ("wav", "pcm_s16le", "7.1"),
]


def level(samples, hertz, rate=16_000):
    """Return the amplitude of a sine in the middle of the samples."""
    middle = samples[len(samples) // 4 : len(samples) * 3 // 4]
    time = np.arange(len(middle)) / rate
    return 2 * abs(np.mean(middle * np.exp(-2j * np.pi * hertz * time)))


def read(path, channels="mix"):
    return read_recording(path, LIMITS, channels=channels)


@pytest.mark.parametrize(("container", "codec", "layout"), FORMATS)
def test_the_center_counts_most_and_low_frequencies_not_at_all(tmp_path, container, codec, layout):
    hertz = [500, 700, 1_100, 60, 1_300, 1_700, 1_900, 2_300][: 8 if layout == "7.1" else 6]
    sound = tones(*hertz, rate=RATE, level=0.3)
    path = encode(tmp_path / "a", sound, RATE, codec, container=container, layout=layout)
    (mix,) = read(path).channels
    levels = {each: level(mix.samples, each) for each in hertz}
    center = levels[1_100]
    assert levels[500] / center == pytest.approx(2**-0.5, abs=0.03)
    assert levels[700] / center == pytest.approx(2**-0.5, abs=0.03)
    for each in hertz[4:]:
        assert levels[each] / center == pytest.approx(0.5, abs=0.03)
    assert levels[60] / center < 0.02
    assert np.abs(mix.samples).max() <= 1.0


@pytest.mark.parametrize(("container", "codec", "layout"), [("flac", "flac", "5.1"), ("matroska", "ac3", "5.1(side)")])
def test_a_voice_in_the_center_stands_out_from_music(tmp_path, sample_recording, container, codec, layout):
    voice, _ = soundfile.read(sample_recording, dtype="float64", start=160_000, frames=160_000)
    voice = np.repeat(voice, 3) / np.abs(voice).max() * 0.5
    random = np.random.default_rng(1)
    sides = random.normal(0.0, rms(voice), (len(voice), 6))
    sides[:, 3] = tone(10.0, RATE, 50, 0.5)[:, 0]
    sides[:, 2] = voice
    path = encode(tmp_path / "a", sides, RATE, codec, container=container, layout=layout)
    (mix,) = read(path).channels

    def ratio(samples):
        """Return the energy of the voice relative to that of everything else."""
        length = min(len(samples), len(voice) // 3)
        # The encoder delays the sound a little: the best lag is taken.
        reference = voice[::3][:length]
        spectrum = np.fft.rfft(samples[:length]) * np.conj(np.fft.rfft(reference))
        gain = np.fft.irfft(spectrum).max() / (reference @ reference)
        own = gain**2 * (reference @ reference)
        return own / (float(samples[:length] @ samples[:length]) - own)

    mean = sides[::3].mean(axis=1)
    assert ratio(mix.samples) > 2 * ratio(mean)


def test_channels_without_a_layout_are_averaged(tmp_path):
    hertz = [500, 700, 1_100, 900, 1_300, 1_700]
    (mix,) = read(write(tmp_path / "a.wav", wav(pcm(tones(*hertz)), channels=6))).channels
    assert [level(mix.samples, each) for each in hertz] == pytest.approx([0.5 / 6] * 6, abs=0.01)


def test_stereo_is_still_the_mean(tmp_path):
    path = encode(tmp_path / "a.wav", tones(440, 880, rate=RATE), RATE, "pcm_s16le")
    (mix,) = read(path).channels
    assert [level(mix.samples, each) for each in (440, 880)] == pytest.approx([0.25, 0.25], abs=0.01)


def test_the_weights_are_those_of_bs_775():
    weights = mix_weights(FIVE_ONE, 6, (3,))
    assert (weights / weights[2]).tolist() == pytest.approx([2**-0.5, 2**-0.5, 1.0, 0.0, 0.5, 0.5])
    assert weights.sum() == pytest.approx(1.0)
    assert mix_weights(("FL", "FR", "LFE"), 3, (2,)).tolist() == [0.5, 0.5, 0.0]
    for unknown in ((), ("NONE",) * 6, ("FL", "FR", "FC", "LFE", "BL", "AMBI0")):
        assert not is_surround(unknown)
        assert mix_weights(unknown, 6, ()).tolist() == pytest.approx([1 / 6] * 6)


def test_a_microphone_in_the_place_of_the_low_frequencies_is_heard(tmp_path):
    """Recorders store six microphones as 5.1."""
    path = encode(tmp_path / "a.wav", tones(0, 0, 0, 440, 0, 0, rate=RATE), RATE, "pcm_s16le", layout="5.1")
    (mix,) = read(path).channels
    assert level(mix.samples, 440) > 0.05
    separate = read(path, "separate")
    assert any(level(audio.samples, 440) > 0.4 for audio in separate.channels)
    assert separate.warnings == ()


def test_a_channel_stays_a_microphone():
    low, quiet, voice = tone(1.0, hertz=80, level=0.9), tone(1.0, level=5e-4), tone(1.0)
    found = LowFrequencyChannels()

    def block(sound):
        return np.concatenate([np.zeros((16_000, 3)), sound, np.zeros((16_000, 2))], axis=1).astype(np.float32)

    assert [found.find(block(each), FIVE_ONE) for each in (low, quiet, voice, low)] == [(3,), (3,), (), ()]
    assert found.find(block(low), ()) == ()
    assert LowFrequencyChannels().find(block(low)[:1], FIVE_ONE) == (3,)


def test_separate_channels_of_surround_sound(tmp_path):
    hertz = [500, 700, 1_100, 60, 1_300, 1_700]
    path = encode(tmp_path / "a.wav", tones(*hertz, rate=RATE), RATE, "pcm_s16le", layout="5.1")
    separate = read(path, "separate")
    heard = [loudest_hertz(audio.samples) for audio in separate.channels]
    assert heard == pytest.approx([500, 700, 1_100, 1_300, 1_700], abs=2)
    assert ["loudspeakers" in warning for warning in separate.warnings] == [True]
    assert read(path).warnings == ()


def test_only_low_frequencies_are_still_a_recording(tmp_path):
    path = encode(tmp_path / "a.wav", tones(0, 0, 0, 60, 0, 0, rate=RATE), RATE, "pcm_s16le", layout="5.1")
    (mix,) = read(path).channels
    assert (mix.duration, rms(mix.samples)) == (2.0, 0.0)


def test_sides_that_cancel_do_not_hide_the_loudest_one():
    left = tone(1.0).astype(np.float32)
    block = np.concatenate([left, -left, *[np.zeros_like(left)] * 4], axis=1)
    mix = DownMix()
    assert rms(mix.mix(block, FIVE_ONE)) == pytest.approx(rms(left))
    assert mix.canceled_samples == len(left)
