"""Hostile files in ``docs/security.md``: what the decoder makes of each."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from diarist.audio import DecodeLimits, decode
from diarist.errors import AudioError
from support import attacks
from support.attack_rows import READ
from support.audio_files import chunk, encode, pcm, push, tone, wav, write

LIMITS = DecodeLimits(max_duration_s=60.0, timeout_s=60.0, memory_mb=512)
LIMITS_OF_THE_SERVICE = DecodeLimits(timeout_s=60.0, memory_mb=512)

Build = Callable[[Path], Path]


def content(data: bytes | str, name: str = "upload.wav") -> Build:
    return lambda folder: write(folder / name, data.encode() if isinstance(data, str) else data)


def playlist(text: str) -> Build:
    """Return a playlist that leads to a recording of somebody else, in the same folder."""

    def build(folder: Path) -> Path:
        victim = write(folder / "victim.wav", wav(pcm(tone())))
        return write(folder / "upload.wav", text.format(victim=victim, name=victim.name).encode())

    return build


def silence(container: str, codec: str) -> Build:
    return lambda folder: encode(folder / "upload.wav", np.zeros((16_000 * 120, 1)), 16_000, codec, container=container)


def cut_off(container: str, codec: str) -> Build:
    def build(folder: Path) -> Path:
        path = encode(folder / "upload", tone(5.0), 16_000, codec, container=container)
        os.truncate(path, path.stat().st_size // 2)
        return path

    return build


def encoded(container: str, codec: str, rate: int = 16_000, channels: int = 1) -> Build:
    return lambda folder: encode(
        folder / "upload", tone(1.0, rate, channels=channels), rate, codec, container=container
    )


def many_tracks(count: int) -> Build:
    def build(folder: Path) -> Path:
        path = folder / "upload.wav"
        with av.open(str(path), "w", format="matroska") as file:
            streams = [file.add_stream("pcm_s16le", rate=16_000, layout="mono") for _ in range(count)]
            for stream in streams:
                assert isinstance(stream, av.AudioStream)
                push(file, stream, tone(0.5), 16_000, "mono")
        return path

    return build


def only_pictures(folder: Path) -> Path:
    path = folder / "upload.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for index in range(10):
            frame = av.VideoFrame(64, 64, "yuv420p")
            frame.pts = index
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def cover(size: int) -> Build:
    def build(folder: Path) -> Path:
        path = encode(folder / "sound.mp3", tone(), 16_000, "libmp3lame", options={"id3v2_version": "0"})
        frame = b"APIC" + struct.pack(">I", size) + b"\0\0" + b"\0image/png\0\x03\0" + bytes(size - 13)
        length = len(frame)
        tag = b"ID3\x03\0\0" + bytes([length >> 21 & 127, length >> 14 & 127, length >> 7 & 127, length & 127]) + frame
        return write(folder / "upload.mp3", tag + path.read_bytes())

    return build


def gaps(folder: Path) -> Path:
    path = folder / "upload.mka"
    with av.open(str(path), "w", format="matroska") as file:
        stream = file.add_stream("libopus", rate=48_000, layout="mono")
        assert isinstance(stream, av.AudioStream)
        push(file, stream, tone(0.02, 48_000), 48_000, "mono", start=0.0, flush=False)
        push(file, stream, tone(0.02, 48_000), 48_000, "mono", start=14_000.0)
    return path


SOUND = wav(pcm(tone()))
HLS = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:2.0,\n{}\n#EXT-X-ENDLIST\n"
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n"
NOT_FINITE = np.full(16_000, np.nan, dtype="<f4").tobytes()
RF64 = (
    b"RF64\xff\xff\xff\xffWAVE"
    + chunk(b"ds64", struct.pack("<QQQI", 64_080, 64_000, 32_000, 0))
    + chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, 16_000, 32_000, 2, 16))
    + b"data\xff\xff\xff\xff"
    + pcm(tone())
)

FILES: dict[str, Build] = {
    "An HLS playlist with the absolute path of another user's recording": playlist(HLS.format("{victim}")),
    "An `ffconcat` script that names a file in the same folder": playlist("ffconcat version 1.0\nfile {name}\n"),
    "An HLS playlist with `/etc/passwd` or a `file://` URL": playlist(HLS.format("file:///etc/passwd")),
    "SDP that leads to an RTP stream": content(SDP),
    "A file whose name is `concat:a.wav|b.wav`": content(SOUND, "concat:a.wav|b.wav"),
    "A file whose name is `subfile,,start,0,end,1000,,:x.wav`": content(SOUND, "subfile,,start,0,end,1000,,:x.wav"),
    "A file whose name is `data:audio`": content(SOUND, "data:audio"),
    "A WAV file with a sample rate of 1 Hz": content(wav(b"\x80" * 20_000, rate=1, kind=8)),
    "Hours of silence in a small FLAC file": silence("flac", "flac"),
    "Hours of silence in a small AAC or M4A file": silence("ipod", "aac"),
    "A WAV file with 1,000 or 65,535 channels": content(wav(bytes(262_144), channels=65_535)),
    "A WAV file with 64 channels": content(wav(bytes(128_000), channels=64)),
    "A WAV file without samples": content(wav(b"")),
    "A WAV file whose samples are NaN or infinite": content(wav(NOT_FINITE, kind="f32")),
    "A picture": content(b"\x89PNG\r\n\x1a\n" + bytes(500)),
    "Text": content("This is a text about nothing at all.\n" * 400),
    "A program (ELF)": content(b"\x7fELF\2\1\1" + bytes(9) + bytes(range(256)) * 40),
    "An empty file": content(b""),
    "972 bytes of Matroska with two packets 14,000 s apart": gaps,
    "A W64 file of 64 bytes with a chunk of 2^63 bytes": content(
        b"riff"
        + bytes(12)
        + struct.pack("<Q", 64)
        + b"wave"
        + bytes(12)
        + b"junk"
        + bytes(12)
        + struct.pack("<Q", 2**63)
    ),
    "A truncated MP3 file": cut_off("mp3", "libmp3lame"),
    "A truncated M4A file without its index": cut_off("ipod", "aac"),
    "An MP4 file with video alone": only_pictures,
    "Two audio tracks": many_tracks(2),
    "A Matroska file with 1,000 tracks": many_tracks(1_000),
    "0.0 s": content(wav(b"")),
    "Less than 10 ms": content(wav(pcm(tone(0.005)))),
    "10 ms, 100 ms, 1 s": content(wav(pcm(tone(0.01)))),
    "8 kHz G.711": encoded("wav", "pcm_mulaw", 8_000),
    "24-bit PCM": encoded("wav", "pcm_s24le"),
    "32-bit float PCM": encoded("wav", "pcm_f32le"),
    "5.1 channels": encoded("wav", "pcm_s16le", 48_000, 6),
    "96 kHz": encoded("wav", "pcm_s24le", 96_000),
    "A RIFF size of 0xFFFFFFFF": content(SOUND[:4] + b"\xff" * 4 + SOUND[8:]),
    "RF64": content(RF64),
    "Chunks of odd sizes, and 10,000 LIST chunks": content(
        wav(pcm(tone()), before=chunk(b"LIST", b"INFOodd") * 10_000, after=chunk(b"id3 ", b"x"))
    ),
    "An ID3 tag with 50 MB of cover art": cover(50 * 2**20),
}


def outcome(path: Path, limits: DecodeLimits = LIMITS) -> str:
    try:
        decode(path, limits)
    except AudioError as error:
        return error.code
    return READ


@pytest.mark.parametrize("attack", FILES)
def test_what_the_decoder_makes_of_it(tmp_path, attack):
    limits = LIMITS_OF_THE_SERVICE if FILES[attack] is gaps else LIMITS
    assert outcome(FILES[attack](tmp_path), limits) == attacks.of_decoder()[attack]


def test_every_file_of_the_table_is_built_here():
    assert attacks.of_decoder().keys() == FILES.keys()


@pytest.mark.parametrize(
    "text",
    [
        HLS.format("http://{}/a.ts"),
        "ffconcat version 1.0\nfile http://{}/a.wav\n",
        '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><BaseURL>http://{}/</BaseURL></Period></MPD>',
        '<asx version="3.0"><entry><ref href="http://{}/a.wav"/></entry></asx>',
        "#EXTM3U\nhttp://{}/a.wav\n",
    ],
    ids=["HLS", "ffconcat", "DASH", "ASX", "M3U"],
)
def test_no_playlist_opens_a_connection(tmp_path, text):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        assert outcome(write(tmp_path / "upload.wav", text.format(address).encode())) == "not_audio"
        listener.settimeout(0.0)
        with pytest.raises(BlockingIOError):
            listener.accept()
