"""The sizes in the headers of files are chosen by strangers: whatever they are, reading a header ends and is cheap."""

from __future__ import annotations

import os
import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from diarist.audio import DecodeLimits, decode
from diarist.audio.headers import _MAGIC, _W64_DATA, Header
from diarist.audio.unsupported_types import protected_type, unsupported_type
from diarist.errors import InputError
from support.audio_files import chunk, pcm, tone, wav, write
from support.strategies import patient

LIMITS = DecodeLimits(max_duration_s=60.0, timeout_s=30.0, memory_mb=512)

EXTREMES = [
    0, 1, 7, 8, 23, 24, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1, 2**53, 2**62, 2**63 - 25, 2**63 - 1, 2**63, 2**64 - 8,
    2**64 - 1,
]  # fmt: skip
"""Sizes at the limits of the types that hold them."""

MAX_READ_BYTES = 2**25

sizes = st.sampled_from(EXTREMES) | st.integers(0, 2**64 - 1) | st.integers(0, 100)


def w64(size: int, name: bytes = b"junk" + bytes(12)) -> bytes:
    """Return 64 bytes of a W64 file whose only chunk states a size of ``size``."""
    return b"riff" + bytes(12) + struct.pack("<Q", 64) + b"wave" + bytes(12) + name + struct.pack("<Q", size)


def caf(size: int, name: bytes = b"free") -> bytes:
    return b"caff\0\1\0\0" + name + struct.pack(">Q", size) + bytes(32)


def riff(size: int, name: bytes = b"LIST", magic: bytes = b"RIFF") -> bytes:
    return magic + struct.pack("<I", size % 2**32) + b"WAVE" + name + struct.pack("<I", size % 2**32) + bytes(32)


def rf64(size: int, data: int = 2**32 - 1) -> bytes:
    sizes = chunk(b"ds64", struct.pack("<QQQI", size, size, size, 0))
    return b"RF64\xff\xff\xff\xffWAVE" + sizes + b"data" + struct.pack("<I", data % 2**32) + bytes(32)


def aiff(size: int, name: bytes = b"SSND") -> bytes:
    return b"FORM" + struct.pack(">I", size % 2**32) + b"AIFF" + name + struct.pack(">I", size % 2**32) + bytes(32)


def mp4(size: int, name: bytes = b"moov") -> bytes:
    kind = struct.pack(">I", 16) + b"ftypM4A \0\0\0\0"
    return kind + struct.pack(">I", 1) + name + struct.pack(">Q", size) + bytes(32)


def short_mp4(size: int) -> bytes:
    return struct.pack(">I", 16) + b"ftypM4A \0\0\0\0" + struct.pack(">I", size % 2**32) + b"moov" + bytes(32)


def flv(size: int) -> bytes:
    number = struct.pack(">Q", size)  # any double, also infinite and not a number
    stated = b"\0\x08duration\0" + number + b"\0\x08filesize\0" + number
    return b"FLV\1\5\0\0\0\x09\0\0\0\0\x12" + len(stated).to_bytes(3, "big") + bytes(7) + stated


def asf(size: int) -> bytes:
    magic = b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c"
    properties = b"\xa1\xdc\xab\x8c\x47\xa9\xcf\x11\x8e\xe4\x00\xc0\x0c\x20\x53\x65"
    return magic + bytes(14) + properties + struct.pack("<Q", 104) + bytes(16) + struct.pack("<Q", size) + bytes(80)


def id3(size: int) -> bytes:
    return b"ID3\4\0\x10" + bytes((size >> shift) % 256 for shift in (24, 16, 8, 0)) + bytes(32)


def flac(size: int) -> bytes:
    return b"fLaC\0" + (size % 2**24).to_bytes(3, "big") + struct.pack(">Q", size) * 6


def matroska(size: int) -> bytes:
    segment = b"\x18\x53\x80\x67\1" + (size % 2**56).to_bytes(7, "big")
    head = b"\x42\x82\x88matroska"
    return b"\x1aE\xdf\xa3" + bytes([0x80 | len(head)]) + head + segment + b"\x15\x49\xa9\x66\1" + bytes(7) + bytes(32)


def au(size: int) -> bytes:
    return b".snd" + struct.pack(">IIIII", size % 2**32, size // 2**32, 3, 16_000, 1) + bytes(32)


def avi(size: int) -> bytes:
    return b"RIFF" + struct.pack("<I", size % 2**32) + b"AVI LIST" + struct.pack("<I", size % 2**32) + bytes(32)


HEADERS = {
    "W64": w64, "W64 data": lambda size: w64(size, _W64_DATA), "CAF": caf, "CAF data": lambda size: caf(size, b"data"),
    "WAV": riff, "WAV data": lambda size: riff(size, b"data"), "RF64": rf64, "RF64 data": lambda size: rf64(100, size),
    "RIFX": lambda size: riff(size, magic=b"RIFX"), "AIFF": aiff, "MP4": mp4,
    "MP4 box": lambda size: mp4(size, b"free"),
    "MP4 32 bit": short_mp4, "FLV": flv, "WMA": asf, "ID3": id3, "FLAC": flac, "Matroska": matroska,
    "AU": au, "AVI": avi,
}  # fmt: skip


def read_headers(content: bytes) -> Header:
    """Run every reader of headers over a file, and check what they ask of the operating system."""
    real_pread = os.pread

    def checked_pread(descriptor: int, count: int, offset: int) -> bytes:
        assert 0 <= count <= MAX_READ_BYTES
        assert 0 <= offset < len(content) + 2**29  # the largest ID3 tag
        return real_pread(descriptor, count, offset)

    with tempfile.TemporaryFile(buffering=0) as file, pytest.MonkeyPatch.context() as patch:
        file.write(content)
        patch.setattr(os, "pread", checked_pread)
        protected_type(file.fileno())
        unsupported_type(file.fileno())
        return Header.of(file.fileno())


@pytest.mark.parametrize("size", EXTREMES)
@pytest.mark.parametrize("kind", HEADERS)
def test_any_size_in_a_header_is_read(kind, size):
    header = read_headers(HEADERS[kind](size))
    assert header.stated_bytes is None or 0 < header.stated_bytes < 2**54


@patient
@given(
    kind=st.sampled_from(sorted(HEADERS)),
    size=sizes,
    second=sizes,
    tail=st.binary(max_size=200),
    cut=st.integers(0, 400),
)
@example("W64", 2**63, 0, b"", 400)
def test_headers_of_chunks_of_any_size(kind, size, second, tail, cut):
    content = (HEADERS[kind](size) + HEADERS[kind](second)[12:] + tail)[:cut]
    read_headers(content)


@patient
@given(
    magic=st.sampled_from([(offset, magic) for offset, magic, _ in _MAGIC]),
    before=st.binary(min_size=8, max_size=8),
    content=st.binary(max_size=300),
)
def test_any_content_after_the_magic_number(magic, before, content):
    offset, number = magic
    read_headers(before[:offset] + number + content)


def test_chunks_of_no_size_end():
    for name in ("W64", "CAF", "WAV", "MP4", "MP4 box"):
        read_headers(HEADERS[name](0) + bytes(2_000_000))


@pytest.mark.parametrize("size", [2**31, 2**62, 2**63 - 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("kind", sorted(HEADERS))
def test_the_decoder_refuses_sizes_beyond_the_file(tmp_path, kind, size):
    with pytest.raises(InputError):
        decode(write(tmp_path / "a.wav", HEADERS[kind](size)), LIMITS)


def test_a_recording_with_a_huge_chunk_after_its_samples_is_read(tmp_path):
    after = b"LIST\xff\xff\xff\xff"
    (audio,) = decode(write(tmp_path / "a.wav", wav(pcm(tone()), after=after)), LIMITS)
    assert audio.duration == 2.0


def test_the_sparse_end_of_a_file_is_not_read(tmp_path: Path):
    path = write(tmp_path / "a.w64", w64(2**40))
    os.truncate(path, 2**33)
    with path.open("rb") as file:
        assert Header.of(file.fileno()).stated_bytes is None
