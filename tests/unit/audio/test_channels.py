"""Down-mixing, cancellation, duplicate channels, and the sample buffer."""

from __future__ import annotations

import numpy as np
import pytest

from diarist.audio import DecodeLimits, decode
from diarist.audio.channels import DownMix, drop_duplicate_channels, is_duplicate
from diarist.audio.samples import SampleBuffer
from diarist.types import Audio
from support.audio_files import encode, loudest_hertz, pcm, rms, tone, tones, wav, write

LIMITS = DecodeLimits(max_duration_s=60.0, timeout_s=30.0, memory_mb=512)
VOICE = (np.random.default_rng(7).standard_normal(32_000) * 0.1).astype(np.float32)
OTHER = (np.random.default_rng(8).standard_normal(32_000) * 0.1).astype(np.float32)


def stereo(*channels):
    return np.stack(channels, axis=1).astype(np.float64)


def test_the_mix_is_the_mean():
    assert DownMix().mix(np.stack([VOICE, OTHER], axis=1)) == pytest.approx((VOICE + OTHER) / 2, abs=1e-7)
    assert DownMix().mix(VOICE[:, None]) is not None


@pytest.mark.parametrize(("gain", "cancels"), [(-1.0, True), (-0.8, True), (-0.3, False), (0.0, False), (1.0, False)])
def test_the_loudest_channel_is_taken_where_the_mean_cancels(gain, cancels):
    down_mix = DownMix()
    mixed = down_mix.mix(np.stack([VOICE, np.float32(gain) * VOICE], axis=1))
    assert bool(down_mix.canceled_samples) is cancels
    assert rms(mixed) == pytest.approx(rms(VOICE) * (1.0 if cancels else (1 + gain) / 2), rel=1e-3)


def test_inverted_twins_do_not_take_turns():
    down_mix = DownMix()
    twins = np.stack([VOICE, -VOICE], axis=1)
    blocks = [down_mix.mix(twins[start : start + 1_000]) for start in range(0, 32_000, 1_000)]
    assert np.array_equal(np.concatenate(blocks), VOICE)


def test_silence_is_no_cancellation():
    down_mix = DownMix()
    assert not down_mix.mix(np.zeros((100, 2), dtype=np.float32)).any()
    assert down_mix.canceled_samples == 0


@pytest.mark.parametrize("codec", ["pcm_s16le", "libmp3lame"])
def test_a_recording_with_one_side_inverted_is_heard(tmp_path, codec):
    sound = tone(2.0, 44_100, channels=2) * [1.0, -1.0]
    container = "wav" if codec == "pcm_s16le" else "mp3"
    (audio,) = decode(encode(tmp_path / "a", sound, 44_100, codec, container=container), LIMITS)
    assert loudest_hertz(audio.samples) == pytest.approx(440, abs=1)
    assert rms(audio.samples) == pytest.approx(0.35, abs=0.03)


def test_only_the_inverted_part_comes_from_one_channel(tmp_path):
    left = np.concatenate([VOICE, VOICE])
    right = np.concatenate([OTHER, -VOICE])
    (audio,) = decode(write(tmp_path / "a.wav", wav(pcm(stereo(left, right)), channels=2)), LIMITS)
    assert audio.samples[:32_000] == pytest.approx((VOICE + OTHER) / 2, abs=1e-3)
    assert np.abs(audio.samples[32_000:]) == pytest.approx(np.abs(VOICE), abs=1e-3)


def test_separate_channels_keep_their_order(tmp_path):
    path = write(tmp_path / "a.wav", wav(pcm(tones(440, 0, 880)), channels=3))
    first, silent, third = decode(path, LIMITS, channels="separate")
    assert loudest_hertz(first.samples) == pytest.approx(440, abs=1)
    assert not silent.samples.any()
    assert loudest_hertz(third.samples) == pytest.approx(880, abs=1)


@pytest.mark.parametrize("codec", ["pcm_s16le", "libmp3lame", "aac", "flac"])
def test_dual_mono_is_one_channel(tmp_path, codec):
    container = {"pcm_s16le": "wav", "libmp3lame": "mp3", "aac": "ipod", "flac": "flac"}[codec]
    sound = stereo(VOICE, VOICE)
    assert (
        len(decode(encode(tmp_path / "a", sound, 16_000, codec, container=container), LIMITS, channels="separate")) == 1
    )


def test_the_same_at_another_level_is_the_same_and_the_louder_is_kept():
    quiet = np.float32(0.25) * VOICE
    assert is_duplicate(Audio(VOICE), Audio(quiet))
    assert is_duplicate(Audio(quiet), Audio(VOICE))
    assert is_duplicate(Audio(VOICE), Audio(-VOICE))
    channels = [Audio(quiet), Audio(VOICE), Audio(-quiet)]
    assert drop_duplicate_channels(channels) == (channels[1],)


def test_a_word_beside_the_crosstalk_makes_another_channel():
    crosstalk = np.float32(0.1) * VOICE
    crosstalk[20_000:23_000] += np.float32(0.05) * OTHER[20_000:23_000]
    assert not is_duplicate(Audio(VOICE), Audio(crosstalk))
    assert not is_duplicate(Audio(crosstalk), Audio(VOICE))


def test_silence_repeats_silence_alone():
    nothing = np.zeros_like(VOICE)
    assert is_duplicate(Audio(nothing), Audio(nothing))
    assert not is_duplicate(Audio(VOICE), Audio(nothing))
    assert not is_duplicate(Audio(nothing), Audio(VOICE))
    assert not is_duplicate(Audio(VOICE), Audio(VOICE[:-1]))
    assert not is_duplicate(Audio(VOICE), Audio(OTHER))


def test_the_buffer_keeps_what_it_is_given():
    random = np.random.default_rng(9)
    buffer, expected = SampleBuffer(10), []
    for _ in range(400):
        block = random.standard_normal(random.integers(0, 9_000)).astype(np.float32)
        buffer.append(block)
        buffer.append_silence(len(block) // 3)
        expected += [block, np.zeros(len(block) // 3, dtype=np.float32)]
    whole = np.concatenate(expected)
    assert len(buffer) == len(whole)
    taken = buffer.take()
    assert taken.dtype == np.float32
    assert np.array_equal(taken, whole)
    assert len(buffer) == 0
