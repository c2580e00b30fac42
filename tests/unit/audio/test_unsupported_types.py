"""Files of other types are refused by their name."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile

import numpy as np
import pytest

from diarist.audio import DecodeLimits, decode, decoding
from diarist.audio.unsupported_types import protected_type, unsupported_type
from diarist.errors import AudioError, CorruptAudio, NotAudio, UnsupportedAudio
from support.audio_files import encoded_bytes, pcm, tone, wav, write

LIMITS = DecodeLimits(max_duration_s=60.0, timeout_s=30.0, memory_mb=512)


def zip_of(name, content):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, content)
    return archive.getvalue()


def tar_of(name, content):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as file:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        file.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


NOISE = np.random.default_rng(8).bytes(4_096)
DICTATION_HEADER = NOISE[:1_532]

TYPES = {
    # name: content, words of the message, error
    "dss": (b"\x02dss" + DICTATION_HEADER, "a DSS dictation file.*vendor's software", UnsupportedAudio),
    "dss-3": (b"\x03dss" + DICTATION_HEADER, "a DSS dictation file", UnsupportedAudio),
    "dss-grundig": (b"\x06dss" + DICTATION_HEADER, "a DSS dictation file", UnsupportedAudio),
    "ds2": (b"\x03ds2" + DICTATION_HEADER, "a DS2 .*WAV or MP3", UnsupportedAudio),
    "ds2-1": (b"\x01ds2" + DICTATION_HEADER, "a DS2 ", UnsupportedAudio),
    "ds2-encrypted": (b"\x03enc" + DICTATION_HEADER, "an encrypted DS2 .*password", UnsupportedAudio),
    "sony": (b"MS_VOICE" + NOISE, "Sony", UnsupportedAudio),
    "audible": (b"\0\0\x10\0\x57\x90\x75\x36" + NOISE, "DRM", UnsupportedAudio),
    "ape": (b"MAC \x96\x0f\0\0" + NOISE, "Monkey's Audio", UnsupportedAudio),
    "musepack": (b"MPCKSH" + NOISE, "Musepack", UnsupportedAudio),
    "realaudio": (b".ra\xfd\0\4" + NOISE, "RealAudio", UnsupportedAudio),
    "midi": (b"MThd\0\0\0\6\0\1\0\2\1\xe0MTrk" + bytes(20), "MIDI", NotAudio),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + NOISE, "a PDF document", NotAudio),
    "zip": (zip_of("call.wav", wav(pcm(tone()))), "ZIP archive.*Unpack", NotAudio),
    "tar": (tar_of("notes.txt", b"x" * 2_000), "archive", NotAudio),
    "gzip": (gzip.compress(wav(pcm(tone()))), "archive", NotAudio),
    "openssl": (b"Salted__" + NOISE, "an encrypted file", NotAudio),
    "pgp": (b"-----BEGIN PGP MESSAGE-----\n\nhQEMA\n", "an encrypted file", NotAudio),
    "doc": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + NOISE, "office", NotAudio),
    "html": (b"\xef\xbb\xbf\n<!DOCTYPE html>\n<html><body>Please sign in</body></html>", "web page.*again", NotAudio),
    "xhtml": (b'<?xml version="1.0"?>\n<html xmlns="http://www.w3.org/1999/xhtml"></html>', "web page", NotAudio),
    "m3u": (b"#EXTM3U\n#EXTINF:-1,Radio\nhttp://example.com/stream\n", "playlist", NotAudio),
    "utf-16": ("Minutes of the meeting\r\n".encode("utf-16"), "a text file", NotAudio),
    "text": ("Grüße aus dem Büro\n".encode() * 400, "a text file", NotAudio),
    "json": (b'{"error": {"code": "AccessDenied"}}', "a text file", NotAudio),
    "webvtt": (b"WEBVTT\n\n00:01.000 --> 00:02.000\nHello\n", "a subtitle file", NotAudio),
    "png": (b"\x89PNG\r\n\x1a\n" + NOISE, "a picture", NotAudio),
    "jpeg": (b"\xff\xd8\xff\xe0\0\x10JFIF\0" + NOISE, "a picture", NotAudio),
    "webp": (b"RIFF" + struct.pack("<I", 100) + b"WEBPVP8 " + NOISE, "a picture", NotAudio),
    "appledouble": (b"\0\5\x16\7\0\2\0\0Mac OS X        " + NOISE, "AppleDouble.*without ._", NotAudio),
    "zeros": (bytes(50_000), "zeros only", NotAudio),
}


@pytest.mark.parametrize("name", TYPES)
def test_the_error_names_the_type(tmp_path, name):
    content, message, error = TYPES[name]
    with pytest.raises(AudioError, match=message) as caught:
        decode(write(tmp_path / "recording.wav", content), LIMITS)
    assert type(caught.value) is error


@pytest.mark.parametrize("kind", ["noise", "samples", "short"])
def test_bytes_without_a_known_type_have_the_general_error(tmp_path, kind):
    content = {"noise": NOISE, "samples": pcm(tone()), "short": b"abc"}[kind]
    with pytest.raises(NotAudio, match="Raw samples without a header"):
        decode(write(tmp_path / "recording.wav", content), LIMITS)


def test_a_text_may_end_within_a_character(tmp_path):
    with (write(tmp_path / "text", b"x" + "ü".encode() * 5_000)).open("rb") as file:
        type_ = unsupported_type(file.fileno())
        assert file.tell() == 0
    assert type_ is not None
    assert "text file" in type_.message


def test_a_recording_is_read_even_if_its_beginning_matches(tmp_path):
    """The mark of a TAR archive may occur in a recording by chance."""
    body = bytearray(pcm(tone()))
    body[257 - 44 : 262 - 44] = b"ustar"
    assert decode(write(tmp_path / "a.wav", wav(bytes(body))), LIMITS)[0].duration == 2.0


def test_a_damaged_recording_is_still_called_damaged(tmp_path):
    with pytest.raises(CorruptAudio, match="looks like WAV"):
        decode(write(tmp_path / "a.wav", b"RIFF....WAVEfmt " + b"\xaa" * 300), LIMITS)


@pytest.mark.parametrize(("entry", "name"), [(b"drms", "FairPlay"), (b"aavd", "Audible")])
@pytest.mark.parametrize("options", [{}, {"movflags": "faststart"}])
def test_recordings_with_drm(tmp_path, entry, name, options):
    content = encoded_bytes(tmp_path, tone(), 44_100, "aac", "ipod", options=options)
    at = content.index(b"stsd")
    with pytest.raises(UnsupportedAudio, match=f"DRM.*{name}"):
        decode(write(tmp_path / "a.m4a", content[:at] + content[at:].replace(b"mp4a", entry, 1)), LIMITS)


def test_common_encryption(tmp_path):
    options = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "00" * 16, "encryption_kid": "11" * 16}
    content = encoded_bytes(tmp_path, tone(), 44_100, "aac", "mp4", options=options)
    with pytest.raises(UnsupportedAudio, match=r"DRM.*common encryption"):
        decode(write(tmp_path / "a.m4a", content), LIMITS)


def test_sizes_of_boxes_may_be_anything(tmp_path):
    for size in (0, 1, 7, 8, 2**32 - 1):
        content = struct.pack(">I4s", size, b"ftyp") + b"\xff" * 300
        with (write(tmp_path / "a", content)).open("rb") as file:
            assert protected_type(file.fileno()) is None


def test_a_folder_is_not_a_recording(tmp_path):
    with pytest.raises(NotAudio, match="a folder or a device"):
        decode(tmp_path, LIMITS)


def test_a_folder_that_the_system_does_not_open_is_not_a_recording(tmp_path, monkeypatch):
    def refuse(path):
        raise IsADirectoryError(21, "Is a directory", str(path))

    monkeypatch.setattr(decoding, "open_to_read", refuse)  # as on Windows
    with pytest.raises(NotAudio, match="a folder or a device"):
        decode(tmp_path, LIMITS)
