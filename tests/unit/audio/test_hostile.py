"""Hostile files are rejected with the right error, and cannot read other files."""

from __future__ import annotations

import os
import struct

import av
import numpy as np
import pytest

from diarist.audio import DecodeLimits, decode
from diarist.audio.decoder_program.formats import DECODERS, OPEN_OPTIONS
from diarist.errors import AudioTooLong, CorruptAudio, EmptyAudio, NotAudio, UnsupportedAudio
from support.audio_files import chunk, encode, encoded_bytes, loudest_hertz, pcm, push, rms, tone, wav, write

LIMITS = DecodeLimits(max_duration_s=60.0, timeout_s=30.0, memory_mb=512)

PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:2.0,\n{victim}\n#EXT-X-ENDLIST\n",
    "ffconcat": "ffconcat version 1.0\nfile {name}\n",
    "ffconcat-absolute": "ffconcat version 1.0\nfile '{victim}'\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT2S"><Period><AdaptationSet mimeType="audio/mp4"><Representation id="0" '
    'bandwidth="1"><BaseURL>file://{victim}</BaseURL></Representation></AdaptationSet></Period></MPD>',
    "asx": '<asx version="3.0"><entry><ref href="file://{victim}"/></entry></asx>',
    "m3u": "#EXTM3U\n{victim}\n",
    "pls": "[playlist]\nFile1={victim}\nNumberOfEntries=1\n",
    "ffmetadata": ";FFMETADATA1\ntitle={victim}\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("name", ["upload.wav", "upload.m3u8"])
def test_a_playlist_cannot_read_another_recording(tmp_path, monkeypatch, kind, name):
    victim = write(tmp_path / "victim.wav", wav(pcm(tone())))
    monkeypatch.chdir(tmp_path)
    upload = write(tmp_path / name, PLAYLISTS[kind].format(victim=victim, name=victim.name).encode())
    with pytest.raises(NotAudio) as caught:
        decode(upload, LIMITS)
    # FFmpeg did not open it.
    assert "Raw samples without a header" in str(caught.value.__cause__)


def test_a_playlist_past_the_format_list_still_opens_nothing(tmp_path, monkeypatch):
    victim = write(tmp_path / "victim.wav", wav(pcm(tone())))
    upload = write(tmp_path / "upload", PLAYLISTS["ffconcat"].format(name=victim.name).encode())
    monkeypatch.chdir(tmp_path)
    with av.open(str(upload), format="concat") as leak:  # what would happen without any list
        assert sum(frame.samples for frame in leak.decode(audio=0)) == 32_000
    descriptor = os.open(upload, os.O_RDONLY)
    try:
        options = {**OPEN_OPTIONS, "format_whitelist": "concat,wav", "fd": str(descriptor)}
        with pytest.raises(av.FFmpegError), av.open("fd:", options=options) as container:
            next(container.decode(audio=0))
    finally:
        os.close(descriptor)


NOT_AUDIO = {
    "png": b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + struct.pack(">II", 64, 64) + b"\x08\2\0\0\0" * 9,
    "jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF\0" + b"\0" * 500,
    "text": b"This is a text about nothing at all.\n" * 400,
    "html": b"<!doctype html><html><body>404 Not Found</body></html>" * 20,
    "elf": b"\x7fELF\2\1\1" + b"\0" * 9 + bytes(range(256)) * 40,
    "zip": b"PK\3\4" + bytes(range(256)) * 8,
    "noise": np.random.default_rng(3).bytes(300_000),
    "zeros": bytes(100_000),
    "one byte": b"R",
    "raw samples": pcm(tone(3.0)),
    "subtitles": b"1\n00:00:01,000 --> 00:00:02,000\nHello\n\n",
}


@pytest.mark.parametrize("kind", NOT_AUDIO)
def test_what_is_no_recording_is_refused(tmp_path, kind):
    with pytest.raises(NotAudio):
        decode(write(tmp_path / "upload.wav", NOT_AUDIO[kind]), LIMITS)


def test_nothing_in_it(tmp_path):
    for content in (b"", wav(b""), wav(pcm(tone(0.005)))):
        with pytest.raises(EmptyAudio):
            decode(write(tmp_path / "a.wav", content), LIMITS)
    (audio,) = decode(write(tmp_path / "a.wav", wav(pcm(tone(0.01)))), LIMITS)
    assert len(audio.samples) == 160


@pytest.mark.parametrize("rate", [1, 100, 3_999, 384_001, 1_092_676, 2**31 - 1])
def test_sample_rates_beyond_reason(tmp_path, rate):
    with pytest.raises(UnsupportedAudio, match=f"{rate:,} Hz"):
        decode(write(tmp_path / "a.wav", wav(b"\x80" * 20_000, rate=rate, kind=8)), LIMITS)


@pytest.mark.parametrize(("channels", "error"), [(17, UnsupportedAudio), (64, UnsupportedAudio), (0, CorruptAudio)])
def test_channel_bombs(tmp_path, channels, error):
    with pytest.raises(error):
        decode(write(tmp_path / "a.wav", wav(bytes(128_000), channels=channels)), LIMITS)


@pytest.mark.parametrize("channels", [1_000, 65_535])
def test_channels_that_ffmpeg_itself_refuses(tmp_path, channels):
    with pytest.raises((UnsupportedAudio, CorruptAudio)):
        decode(write(tmp_path / "a.wav", wav(bytes(262_144), channels=channels)), LIMITS)


def test_samples_that_are_no_numbers(tmp_path):
    for value in (np.nan, np.inf):
        body = np.full(16_000, value, dtype="<f4").tobytes()
        with pytest.raises(CorruptAudio, match="not numbers"):
            decode(write(tmp_path / "a.wav", wav(body, kind="f32")), LIMITS)
    few = tone()[:, 0].astype("<f4")
    few[[100, 20_000]] = np.nan, -np.inf
    (audio,) = decode(write(tmp_path / "a.wav", wav(few.tobytes(), kind="f32")), LIMITS)
    assert np.isfinite(audio.samples).all()
    few[[100, 20_000]] = 0.0
    assert np.array_equal(audio.samples, few)


def test_floats_beyond_full_scale_are_clipped(tmp_path):
    (audio,) = decode(write(tmp_path / "a.wav", wav(pcm(tone(level=8.0), "f32"), kind="f32")), LIMITS)
    assert (audio.samples.min(), audio.samples.max()) == (-1.0, 1.0)
    assert loudest_hertz(audio.samples) == pytest.approx(440, abs=1)


def test_hours_in_a_small_file(tmp_path):
    silence = np.zeros((16_000 * 120, 1))
    for container, codec in (("flac", "flac"), ("ipod", "aac"), ("adts", "aac")):
        path = encode(tmp_path / "bomb", silence, 16_000, codec, container=container)
        assert path.stat().st_size < 200_000
        with pytest.raises(AudioTooLong, match="60 s"):
            decode(path, LIMITS)
    assert decode(path, DecodeLimits(max_duration_s=121.0))[0].duration == pytest.approx(120, abs=0.2)


def test_separate_channels_share_one_limit(tmp_path):
    path = write(tmp_path / "a.wav", wav(bytes(8_000 * 40 * 8), rate=8_000, channels=8, kind=8))
    assert decode(path, LIMITS)[0].duration == 40
    with pytest.raises(AudioTooLong, match="8 separate channels may last 15 s"):
        decode(path, LIMITS, channels="separate")


def test_ten_thousand_chunks_and_odd_sizes(tmp_path):
    before = chunk(b"LIST", b"INFOodd") * 10_000
    (audio,) = decode(write(tmp_path / "a.wav", wav(pcm(tone()), before=before, after=chunk(b"id3 ", b"x"))), LIMITS)
    assert audio.duration == 2.0
    assert loudest_hertz(audio.samples) == pytest.approx(440, abs=1)


def test_a_large_picture_before_the_sound(tmp_path):
    sound = encoded_bytes(tmp_path, tone(), 16_000, "libmp3lame", "mp3", options={"id3v2_version": "0"})
    size = 20 * 2**20
    picture = b"\0image/png\0\x03\0" + bytes(size - 24)
    frame = b"APIC" + struct.pack(">I", len(picture)) + b"\0\0" + picture
    size = len(frame)
    tag = b"ID3\x03\0\0" + bytes([size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127]) + frame
    (audio,) = decode(write(tmp_path / "a.mp3", tag + sound), LIMITS)
    assert loudest_hertz(audio.samples) == pytest.approx(440, abs=1)


def video(path, *, audio=True, codec="magicyuv", audio_start=0.0, container="avi"):
    with av.open(str(path), "w", format=container) as file:
        pictures = file.add_stream(codec, rate=10)
        pictures.width = pictures.height = 64
        pictures.pix_fmt = "gbrp" if codec == "magicyuv" else "yuv420p"
        sound = file.add_stream("pcm_s16le", rate=16_000, layout="mono") if audio else None
        for i in range(30):
            frame = av.VideoFrame(64, 64, pictures.pix_fmt)
            frame.pts = i
            file.mux(pictures.encode(frame))
        file.mux(pictures.encode(None))
        if sound is not None:
            push(file, sound, tone(2.0), 16_000, "mono", start=audio_start)
    return path


def test_video_is_passed_over_and_never_decoded(tmp_path):
    path = video(tmp_path / "a.avi")
    (audio,) = decode(path, LIMITS)
    assert loudest_hertz(audio.samples) == pytest.approx(440, abs=1)

    def said(options):
        descriptor = os.open(path, os.O_RDONLY)
        av.logging.set_level(av.logging.ERROR)
        try:
            with av.logging.Capture() as lines:
                av.open("fd:", options={**options, "fd": str(descriptor)}).close()
        finally:
            av.logging.set_level(None)
            os.close(descriptor)
        return "".join(line for _, _, line in lines)

    free = {name: value for name, value in OPEN_OPTIONS.items() if name != "codec_whitelist"}
    assert "whitelist" not in said(free)
    assert "Codec (magicyuv) not on whitelist" in said(OPEN_OPTIONS)


def test_video_alone_is_no_recording(tmp_path):
    with pytest.raises(NotAudio, match="no audio track"):
        decode(video(tmp_path / "a.avi", audio=False), LIMITS)


def test_no_listed_decoder_is_for_video():
    for name in DECODERS:
        try:
            kind = av.Codec(name, "r").type
        except av.codec.codec.UnknownCodecError:
            continue  # another build of FFmpeg may have it
        assert kind == "audio", name


def test_sound_that_starts_after_the_picture_keeps_its_time(tmp_path):
    path = video(tmp_path / "a.mkv", codec="mpeg4", audio_start=1.0, container="matroska")
    (audio,) = decode(path, LIMITS)
    assert audio.duration == pytest.approx(3.0, abs=0.01)
    assert rms(audio.samples[:15_000]) == 0.0
    assert rms(audio.samples[17_000:]) > 0.3


def test_the_default_of_two_audio_tracks_is_taken(tmp_path):
    for default, hertz in (((0,), 440), ((1,), 880), ((), 440)):
        path = tmp_path / f"{len(default)}{hertz}.mka"
        with av.open(str(path), "w", format="matroska") as file:
            tracks = [file.add_stream("pcm_s16le", rate=16_000, layout="mono") for _ in range(2)]
            for i, track in enumerate(tracks):
                track.disposition = av.stream.Disposition.default if i in default else av.stream.Disposition(0)
            for i, track in enumerate(tracks):
                push(file, track, tone(hertz=440 * (i + 1)), 16_000, "mono")
        (audio,) = decode(path, LIMITS)
        assert loudest_hertz(audio.samples) == pytest.approx(hertz, abs=1)


def test_a_codec_that_is_not_listed(tmp_path):
    path = encode(tmp_path / "a.mka", tone(rate=8_000), 8_000, "real_144", container="matroska")
    with pytest.raises(UnsupportedAudio, match="real_144"):
        decode(path, LIMITS)
