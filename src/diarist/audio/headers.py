"""The facts in file headers that FFmpeg does not report: the intended file type, and the stated size."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass

from diarist.system.positional_read import pread

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (8, b"WAVE", "WAV"), (8, b"AVI ", "AVI"), (0, b"riff", "W64"), (4, b"ftyp", "MP4"), (4, b"moov", "MP4"),
    (4, b"mdat", "MP4"), (0, b"OggS", "Ogg"), (0, b"fLaC", "FLAC"), (0, b"\x1aE\xdf\xa3", "WebM"), (8, b"AIFF", "AIFF"),
    (8, b"AIFC", "AIFF"), (0, b"caff", "CAF"), (0, b"ID3", "MP3"), (0, b"\xff\xfb", "MP3"), (0, b"\xff\xf3", "MP3"),
    (0, b"\xff\xf1", "AAC"), (0, b"#!AMR", "AMR"), (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "WMA"), (0, b".snd", "AU"),
    (0, b"NIST_1A", "NIST SPHERE"), (0, b"FLV\1", "FLV"), (0, b"\0\0\1\xba", "MPEG"), (0, b"wvpk", "WavPack"),
    (0, b"TTA1", "TTA"), (4, b"\xf8\x72\x6f\xba", "TrueHD"), (4, b"\xf8\x72\x6f\xbb", "MLP"),
    (0, b"\x7f\xfe\x80\1", "DTS"), (0, b"\x0b\x77", "AC-3"),
)  # fmt: skip

_PLACEHOLDER_BYTES = 2**31 - 2**16
"""Sizes from here on (2^31, 2^32 - 1, 2^63 - 1), and 0, are placeholders of writers that cannot seek back."""

_MAX_BYTES = 2**53
"""No file is this large: larger sizes are placeholders or damage. A ``float`` represents all smaller ones exactly."""

_MAX_CHUNKS = 20_000

_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
_ASF_FILE_PROPERTIES = b"\xa1\xdc\xab\x8c\x47\xa9\xcf\x11\x8e\xe4\x00\xc0\x0c\x20\x53\x65"


@dataclass(frozen=True, slots=True)
class Header:
    """The facts in the header of a recording."""

    kind: str | None
    """The name of the file type for messages; None if it is unknown."""

    size_bytes: int
    tag_bytes: int
    """The size of the ID3v2 tag at the start."""

    states_length: bool
    """Whether an MP3 file states its length (in a Xing, Info or VBRI header), or an FLV file (in its metadata)."""

    stated_bytes: int | None
    """The size that the file should have, if its header states one."""

    @classmethod
    def of(cls, recording: int) -> Header:
        """Read the header from the file descriptor ``recording``, without changing its position."""
        head = pread(recording, 16, 0)
        kind = next((name for offset, magic, name in _MAGIC if head[offset:].startswith(magic)), None)
        tag = _tag_bytes(pread(recording, 10, 0))
        first = pread(recording, 8_192, tag)
        if kind == "FLV":
            counts = _flv_number(first, b"duration") > 0
        else:
            counts = any(name in first for name in (b"Xing", b"Info", b"VBRI"))
        size = os.fstat(recording).st_size
        return cls(kind, size, tag, counts, _stated_bytes(recording, kind, size))


def read_at(recording: int, count: int, offset: int, size: int) -> bytes:
    """Return up to ``count`` bytes at ``offset``; there are none from ``size`` on, the end of the file.

    An offset that follows from the sizes in a file may exceed 64 bits, which the operating system does not accept.
    """
    return pread(recording, count, offset) if offset < size else b""


def _tag_bytes(head: bytes) -> int:
    """Return the size of the tag, after ID3v2.4, section 3.1.

    The size field has seven bits per byte. The tag also has a header and, if a flag is set, a footer.
    """
    if len(head) < 10 or not head.startswith(b"ID3"):
        return 0
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    return size + (20 if head[5] & 0x10 else 10)


def _flv_number(first: bytes, name: bytes) -> float:
    """Return a number in the metadata of an FLV file (Adobe FLV specification, E.5), or 0 if it is not stated.

    A writer that cannot seek back leaves 0. For a duration, FFmpeg then takes the last timestamp of the file instead.
    """
    key = len(name).to_bytes(2, "big") + name + b"\0"  # the last byte is the type of a number
    at = first.find(key) + len(key)
    value = first[at : at + 8]
    return float(struct.unpack(">d", value)[0]) if key in first and len(value) == 8 else 0.0


def _stated_bytes(recording: int, kind: str | None, size: int) -> int | None:
    # FFmpeg limits the durations of these types by the real file size, so that a truncated file looks complete.
    if kind in _DATA_END:
        return _DATA_END[kind](recording, size)
    if kind == "AVI":
        return _end(8, int.from_bytes(pread(recording, 4, 4), "little"))
    if kind == "FLV":
        stated = _flv_number(pread(recording, 8_192, 0), b"filesize")
        return int(stated) if 1 <= stated < _MAX_BYTES else None
    if kind == "WMA":
        head = pread(recording, 65_536, 0)
        at = head.find(_ASF_FILE_PROPERTIES)
        if at >= 0 and len(head) >= at + 92 and not head[at + 88] & 1:  # the broadcast flag: the size is not stated
            return _end(0, int.from_bytes(head[at + 40 : at + 48], "little"))
    return None


def _end(start: int, length: int) -> int | None:
    return start + length if 0 < length < _PLACEHOLDER_BYTES else None


def _wav_bytes(recording: int, size: int) -> int | None:
    """Return the end of the audio by the size of RIFF or of its ``data`` chunk, whichever is smaller."""
    riff = _end(8, int.from_bytes(pread(recording, 4, 4), "little"))
    wide: int | None = None
    at = 12
    for _ in range(_MAX_CHUNKS):
        head = read_at(recording, 8, at, size)
        if len(head) < 8:
            break
        length = int.from_bytes(head[4:], "little")
        if head.startswith(b"ds64"):  # RF64, EBU Tech 3306: 64-bit sizes of RIFF and data
            wide = int.from_bytes(read_at(recording, 8, at + 16, size), "little")
        elif head.startswith(b"data"):
            if wide is not None and length == 2**32 - 1:
                end = at + 8 + wide if wide < _MAX_BYTES else None
            else:
                end = _end(at + 8, length)
            return end if end is None or riff is None else min(end, riff)
        at += 8 + length + length % 2
    return None


def _w64_bytes(recording: int, size: int) -> int | None:
    at = 40
    for _ in range(_MAX_CHUNKS):
        head = read_at(recording, 24, at, size)
        if len(head) < 24:
            break
        (length,) = struct.unpack("<Q", head[16:])
        if head.startswith(_W64_DATA):
            return _end(at, length)
        at += max(24, length + -length % 8)
    return None


def _caf_bytes(recording: int, size: int) -> int | None:
    """Return the end of the ``data`` chunk, after Apple's Core Audio Format specification. A size of -1 is unknown."""
    at = 8
    for _ in range(_MAX_CHUNKS):
        head = read_at(recording, 12, at, size)
        if len(head) < 12:
            break
        (length,) = struct.unpack(">q", head[4:])
        if head.startswith(b"data"):
            return _end(at + 12, length)
        if length < 0:
            break
        at += 12 + length
    return None


_DATA_END: dict[str | None, Callable[[int, int], int | None]] = {
    "WAV": _wav_bytes,
    "W64": _w64_bytes,
    "CAF": _caf_bytes,
}
