"""Unusual and damaged real recordings, and the result of decoding each."""

from __future__ import annotations

import numpy as np
import pytest

from diarist.audio import DecodeLimits, decode
from diarist.errors import AudioError, CorruptAudio, EmptyAudio, NotAudio, UnsupportedAudio
from support.audio_files import rms

LIMITS = DecodeLimits(max_duration_s=600.0, timeout_s=60.0, memory_mb=512)

EXPECTED = {
    # name: (seconds, channels that differ), or the error
    "198-209-0000.ogg": (13.910, 1),
    "3436-172162-0000.hq.ogg": (16.745, 1),
    "5703-47212-0000.ogg": (14.840, 1),
    "8_Channel_ID.m4a": (8.064, 7),  # 7.1, without the channel for low frequencies
    "Karissa_Hobbs_-_Lets_Go_Fishin.ogg": (132.989, 1),
    "Kevin_MacLeod_-_Vibe_Ace.ogg": (61.459, 1),
    "audio-mono-32-bit-44100Hz.wav": (2.745, 1),
    "audio-mono-8-bit-44100Hz.wav": (2.745, 1),
    "audio-stereo-16-bit-44100Hz.aiff": (2.745, 1),
    "audio-stereo-24-bit-44100Hz.flac": (2.745, 1),
    "audio-stereo-24-bit-44100Hz.wav": (2.745, 1),
    "awful.wav": UnsupportedAudio,
    "bad.wav": CorruptAudio,
    "big_buck_bunny_small.mp4": (5.312, 5),  # 5.1, likewise
    "chan3.sph": (20.871, 1),
    "chinese.flac": (0.956, 1),
    "common_voice_en_651325.mp3": (2.376, 1),
    "digital_silence.wav": (0.624, 1),
    "empty.wav": (8.212, 1),
    "evil.wav": CorruptAudio,
    "goforward.raw": NotAudio,
    "jfk_441khz.m4a": (11.005, 1),
    "missing_wav_header.wav": NotAudio,
    "ms_adpcm.wav": (81.267, 1),
    "musanmix.mp3": (74.523, 1),
    "null.wav": EmptyAudio,
    "silence2sec.wav": (2.0, 1),
    "stereo.opus": (1.005, 2),
    "stereo.sph": (1.0, 1),
    "ted_60.m4a": (60.028, 1),
    "test.opus": (8.064, 1),
    "test_audio_stereo.wav": (1.720, 2),
    "test_with_noise_48k.wav": (14.272, 1),
    "testing.m4a": (3.204, 1),
    "whatstheweatherlike-mulaw.wav": (2.03, 1),
    "whatstheweatherlike.mp3": (2.03, 1),
    "derived/sample.m4a": (30.016, 1),
    "derived/sample.mp4": (30.016, 1),
    "derived/sample.ogg": (30.0, 1),
    "derived/sample.webm": (30.004, 1),
    "derived/sample_8k.mp3": (30.0, 1),
    "derived/sample_ulaw8k.wav": (30.0, 1),
}
SILENT = {"digital_silence.wav", "silence2sec.wav"}


@pytest.mark.shared
def test_the_table_names_every_file(shared_data):
    folder = shared_data / "awkward"
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == set(EXPECTED)


@pytest.mark.shared
@pytest.mark.parametrize("name", EXPECTED)
def test_odd_recordings(shared_data, name):
    path = shared_data / "awkward" / name
    expected = EXPECTED[name]
    if not isinstance(expected, tuple):
        with pytest.raises(AudioError) as caught:
            decode(path, LIMITS)
        assert type(caught.value) is expected
        return
    seconds, channels = expected
    (mix,) = decode(path, LIMITS)
    separate = decode(path, LIMITS, channels="separate")
    assert [audio.duration for audio in (mix, *separate)] == pytest.approx([seconds] * (channels + 1), abs=0.002)
    assert all(np.isfinite(audio.samples).all() and np.abs(audio.samples).max() <= 1.0 for audio in (mix, *separate))
    assert (rms(mix.samples) == 0.0) is (name in SILENT)


@pytest.mark.shared
def test_every_container_holds_the_same_conversation(shared_data):
    """The derived files are one recording: whatever the codec, its loudness runs the same course at the same times."""
    courses = {}
    for path in sorted((shared_data / "awkward" / "derived").iterdir()):
        (audio,) = decode(path, LIMITS)
        samples = audio.samples[: 16_000 * 29]
        courses[path.name] = np.log(np.square(samples, dtype=np.float64).reshape(-1, 800).mean(axis=1) + 1e-7)
    reference = courses.pop("sample_ulaw8k.wav")
    for name, course in courses.items():
        assert np.corrcoef(reference, course)[0, 1] > 0.9, name
