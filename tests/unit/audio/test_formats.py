"""Every container and codec that can be written here is decoded with its tone, level and duration."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from diarist.audio import DecodeLimits, decode
from diarist.errors import NotAudio
from support.audio_files import (
    encode,
    encoded_bytes,
    loudest_hertz,
    pcm,
    rf64,
    rms,
    sphere,
    tone,
    tones,
    wav,
    write,
)

TONES = Path(__file__).parents[2] / "fixtures/tones"

LIMITS = DecodeLimits(max_duration_s=60.0, timeout_s=30.0, memory_mb=512)

ENCODED = [
    # container, codec, rate, channels
    ("wav", "pcm_s16le", 4_000, 1),
    ("wav", "pcm_u8", 8_000, 1),
    ("wav", "pcm_s24le", 384_000, 2),
    ("wav", "pcm_s32le", 96_000, 2),
    ("wav", "pcm_f64le", 44_100, 6),
    ("wav", "pcm_alaw", 8_000, 1),
    ("wav", "pcm_mulaw", 8_000, 2),
    ("wav", "adpcm_ms", 22_050, 1),
    ("wav", "adpcm_ima_wav", 44_100, 2),
    ("wav", "g722", 16_000, 1),
    ("w64", "pcm_s16le", 48_000, 2),
    ("aiff", "pcm_s16be", 11_025, 1),
    ("aiff", "pcm_f32be", 48_000, 2),
    ("au", "pcm_mulaw", 8_000, 1),
    ("caf", "alac", 44_100, 2),
    ("caf", "pcm_s16be", 32_000, 1),
    ("flac", "flac", 16_000, 1),
    ("flac", "flac", 192_000, 8),
    ("mp3", "libmp3lame", 8_000, 1),
    ("mp3", "libmp3lame", 44_100, 2),
    ("mp2", "mp2", 48_000, 2),
    ("adts", "aac", 48_000, 1),
    ("ipod", "aac", 44_100, 2),
    ("ipod", "alac", 48_000, 1),
    ("mp4", "aac", 48_000, 6),
    ("mp4", "libopus", 48_000, 2),
    ("mov", "pcm_s16le", 48_000, 2),
    ("3gp", "libopencore_amrnb", 8_000, 1),
    ("amr", "libopencore_amrnb", 8_000, 1),
    ("ogg", "libopus", 48_000, 1),
    ("ogg", "vorbis", 44_100, 2),
    ("ogg", "flac", 48_000, 1),
    ("webm", "libopus", 48_000, 2),
    ("matroska", "ac3", 48_000, 6),
    ("matroska", "flac", 44_100, 1),
    ("asf", "wmav2", 44_100, 2),
    ("wv", "wavpack", 44_100, 2),
    ("tta", "tta", 44_100, 1),
    ("ac3", "ac3", 48_000, 2),
    ("eac3", "eac3", 48_000, 1),
    ("latm", "aac", 48_000, 2),
    ("mpegts", "aac", 48_000, 2),
    ("mpegts", "mp2", 48_000, 2),
    ("mpegts", "libmp3lame", 48_000, 1),
    ("mpegts", "ac3", 48_000, 6),
    ("mpegts", "eac3", 48_000, 2),
    ("mpegts", "libopus", 48_000, 1),
    ("mpeg", "mp2", 44_100, 2),
    ("mpeg", "libmp3lame", 44_100, 1),
    ("vob", "ac3", 48_000, 6),
    ("vob", "pcm_dvd", 48_000, 2),
    ("dvd", "mp2", 48_000, 2),
    ("flv", "libmp3lame", 44_100, 2),
    ("flv", "aac", 48_000, 2),
    ("flv", "nellymoser", 22_050, 1),
    ("flv", "adpcm_swf", 22_050, 2),
    ("flv", "pcm_s16le", 44_100, 2),
    ("flv", "pcm_mulaw", 8_000, 1),
    ("avi", "libmp3lame", 44_100, 2),
    ("avi", "pcm_s16le", 16_000, 1),
]

CODEC_NEEDS = {
    "vorbis": {"codec_options": {"strict": "-2"}},
    "wmav2": {"bit_rate": 128_000},
    "libopencore_amrnb": {"bit_rate": 12_200},
}


def expect_tone(audio, hertz=440.0, level=0.5, seconds=2.0, slack=0.13):
    samples = audio.samples
    assert audio.rate == 16_000
    assert samples.dtype == np.float32
    assert audio.duration == pytest.approx(seconds, abs=slack)
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    assert loudest_hertz(middle) == pytest.approx(hertz, abs=3.0)
    assert rms(middle) == pytest.approx(level / np.sqrt(2), rel=0.2)  # the low-frequency channel of 5.1 loses the tone
    assert np.isfinite(samples).all()
    assert np.abs(samples).max() <= 1.0


@pytest.mark.parametrize(("container", "codec", "rate", "channels"), ENCODED)
def test_every_format_keeps_the_tone(tmp_path, container, codec, rate, channels):
    sound = tone(2.0, rate, channels=channels)
    path = encode(tmp_path / "recording", sound, rate, codec, container=container, **CODEC_NEEDS.get(codec, {}))
    (audio,) = decode(path, LIMITS)
    expect_tone(audio)


@pytest.mark.parametrize(
    ("codec", "flags"),
    [("aac", {"mpegts_flags": "latm"}), ("ac3", {"mpegts_m2ts_mode": "1"}), ("pcm_bluray", {"mpegts_m2ts_mode": "1"})],
)
def test_transport_streams_of_broadcasts_and_blu_ray_discs(tmp_path, codec, flags):
    (audio,) = decode(
        encode(tmp_path / "a", tone(2.0, 48_000, channels=2), 48_000, codec, container="mpegts", options=flags), LIMITS
    )
    expect_tone(audio)


@pytest.mark.parametrize(
    ("name", "container"),
    [
        *((name, container) for name in ("tone.dts", "tone.thd") for container in (None, "matroska", "mpegts", "m2ts")),
        ("tone.dts", "mov"),
        ("tone.dts", "vob"),
        ("tone.mlp", None),
        ("tone.mlp", "matroska"),
    ],
)
def test_dts_and_truehd_which_cannot_be_written_here(tmp_path, name, container):
    path = TONES / name
    if container is not None:
        path = copy_packets(path, tmp_path / "copy", container)
    (audio,) = decode(path, LIMITS)
    expect_tone(audio, seconds=1.0)


def copy_packets(source, path, container):
    options = {"mpegts_m2ts_mode": "1"} if container == "m2ts" else {}
    format_ = "mpegts" if container == "m2ts" else container
    with (
        av.open(str(source)) as file,
        av.open(str(path), "w", format=format_, options={**options, "strict": "-2"}) as copy,
    ):
        stream = copy.add_stream_from_template(file.streams.audio[0])
        for packet in file.demux(audio=0):
            if packet.size:
                packet.stream = stream
                copy.mux(packet)
    return path


@pytest.mark.parametrize("kind", [8, 16, 24, 32, "f32", "f64"])
def test_every_width_of_pcm(tmp_path, kind):
    path = write(tmp_path / "a.wav", wav(pcm(tone(channels=2), kind), channels=2, kind=kind))
    (audio,) = decode(path, LIMITS)
    expect_tone(audio, slack=0.0)


def test_sixteen_bit_at_16_khz_is_not_touched(tmp_path):
    values = np.random.default_rng(1).integers(-32_768, 32_768, 50_000).astype("<i2")
    (audio,) = decode(write(tmp_path / "a.wav", wav(values.tobytes())), LIMITS)
    assert np.array_equal(audio.samples, values.astype(np.float32) / 32_768)


def test_sixteen_channels(tmp_path):
    sound = tones(*range(300, 1_900, 100))
    path = write(tmp_path / "a.wav", wav(pcm(sound), channels=16))
    separate = decode(path, LIMITS, channels="separate")
    assert len(separate) == 16
    for i, audio in enumerate(separate):
        expect_tone(audio, hertz=300 + 100 * i)
    (mix,) = decode(path, LIMITS)
    assert mix.samples == pytest.approx(sound.mean(axis=1), abs=1e-3)


def test_rf64_and_nist_sphere(tmp_path):
    (audio,) = decode(write(tmp_path / "a", rf64(pcm(tone()))), LIMITS)
    expect_tone(audio, slack=0.0)
    (audio,) = decode(write(tmp_path / "b", sphere(tone(rate=8_000), 8_000)), LIMITS)
    expect_tone(audio)


def test_what_16_khz_cannot_hold_is_filtered_out(tmp_path):
    path = write(tmp_path / "a.wav", wav(pcm(tone(2.0, 48_000, hertz=10_000.0)), rate=48_000))
    (audio,) = decode(path, LIMITS)
    assert rms(audio.samples[1_600:-1_600]) < 1e-3


def test_the_name_of_the_file_means_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = wav(pcm(tone(0.5)))
    for name in ("-i.wav", "concat:a.wav|b.wav", "http:", "data:audio", "a\nb.mp3", "über.wav", "x" * 255, "%d.png"):
        (audio,) = decode(write(tmp_path / name, content).relative_to(tmp_path), LIMITS)
        assert audio.duration == 0.5


def test_bytes_that_are_no_text_in_a_tag(tmp_path):
    body = encoded_bytes(tmp_path, tone(), 16_000, "libmp3lame", "mp3")
    frame = b"TIT2" + (8).to_bytes(4, "big") + b"\0\0" + b"\x03\xff\xfe\xe9abcd"
    tag = b"ID3\x03\0\0" + bytes([0, 0, 0, len(frame)]) + frame
    (audio,) = decode(write(tmp_path / "a.mp3", tag + body), LIMITS)
    expect_tone(audio)


def test_a_file_that_is_missing_or_none(tmp_path):
    with pytest.raises(FileNotFoundError):
        decode(tmp_path / "missing.wav", LIMITS)
    with pytest.raises(NotAudio, match="folder"):
        decode(tmp_path, LIMITS)
