"""Names of file types that are sent by mistake or cannot be read, so that the error says what the file is."""

from __future__ import annotations

import codecs
import os
import re
from dataclasses import dataclass

from diarist.audio.headers import read_at
from diarist.errors import AudioError, NotAudio, UnsupportedAudio
from diarist.system.positional_read import pread


@dataclass(frozen=True, slots=True)
class UnsupportedType:
    """A file type that is not read."""

    error: type[NotAudio | UnsupportedAudio]
    """``UnsupportedAudio`` for recordings, and ``NotAudio`` for everything else."""

    message: str


def _document(name: str) -> UnsupportedType:
    return UnsupportedType(NotAudio, f"This is {name}, not a recording. Send the audio or video file itself.")


def _recording(name: str, advice: str = "Convert it to WAV, FLAC or MP3.") -> UnsupportedType:
    return UnsupportedType(UnsupportedAudio, f"This is {name}, which is not supported. {advice}")


_DICTATION_ADVICE = (
    "Convert it with the vendor's software, such as Olympus ODMS, Philips SpeechExec or Grundig DigtaSoft, to WAV or "
    "MP3, and send that."
)
_DSS = _recording("a DSS dictation file", _DICTATION_ADVICE)
_DS2 = _recording("a DS2 (DSS Pro) dictation file", _DICTATION_ADVICE)
_ENCRYPTED_DS2 = _recording(
    "an encrypted DS2 (DSS Pro) dictation file",
    "Convert it with the vendor's software and the password to WAV or MP3, and send that.",
)
_PLAYLIST = UnsupportedType(
    NotAudio,
    "This is a playlist or a manifest, which only refers to recordings. Send the recording that it refers to.",
)
_PICTURE = _document("a picture")
_HTML = UnsupportedType(
    NotAudio,
    "This is a web page (HTML), not a recording: a download often saves the page with an error or a login instead of "
    "the file. Download the recording again.",
)
_ARCHIVE = UnsupportedType(NotAudio, "This is an archive or a compressed file. Unpack it and send the recording in it.")
_ENCRYPTED = UnsupportedType(NotAudio, "This is an encrypted file. Decrypt it, and send the recording.")
_OFFICE = _document("a document of an office program")

_MAGIC: tuple[tuple[int, bytes, UnsupportedType], ...] = (
    (0, b"\x03enc", _ENCRYPTED_DS2),
    (0, b"MS_VOICE", _recording("a dictation file of a Sony recorder (MSV, DVF)", "Convert it with Sony's software "
                                "(Sound Organizer, Digital Voice Editor) to WAV or MP3, and send that.")),
    (4, b"\x57\x90\x75\x36", UnsupportedType(UnsupportedAudio, "This is an Audible audiobook (AA), which is "
                                             "protected by DRM. Only the seller's player can open it.")),
    (0, b"MAC ", _recording("a Monkey's Audio file (APE)")),
    (0, b"MPCK", _recording("a Musepack file")), (0, b"MP+", _recording("a Musepack file")),
    (0, b".RMF", _recording("a RealMedia file")), (0, b".ra\xfd", _recording("a RealAudio file")),
    (0, b"\x06\x0e\x2b\x34", _recording("an MXF file")),
    (0, b"Creative Voice File", _recording("a VOC file")),
    (0, b"MThd", UnsupportedType(NotAudio, "This is a MIDI file, which contains notes and no sound. Send a "
                                 "recording.")),
    (0, b"%PDF-", _document("a PDF document")), (0, b"{\\rtf", _document("an RTF document")),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", _OFFICE),
    (0, b"PK\x03\x04", UnsupportedType(NotAudio, "This is a ZIP archive or a document of an office program. Unpack "
                                       "it and send the recording in it.")),
    (0, b"Rar!\x1a\x07", _ARCHIVE), (0, b"7z\xbc\xaf\x27\x1c", _ARCHIVE), (0, b"\x1f\x8b\x08", _ARCHIVE),
    (0, b"BZh", _ARCHIVE), (0, b"\xfd7zXZ\0", _ARCHIVE), (0, b"\x28\xb5\x2f\xfd", _ARCHIVE), (257, b"ustar", _ARCHIVE),
    (0, b"Salted__", _ENCRYPTED), (0, b"age-encryption.org/", _ENCRYPTED), (0, b"-----BEGIN PGP MESSAGE", _ENCRYPTED),
    (0, b"\x89PNG\r\n\x1a\n", _PICTURE), (0, b"\xff\xd8\xff", _PICTURE), (0, b"GIF8", _PICTURE),
    (8, b"WEBP", _PICTURE), (0, b"II*\0", _PICTURE), (0, b"MM\0*", _PICTURE),
    (0, b"\0\x05\x16\x07", UnsupportedType(NotAudio, "This is a file of macOS with the properties of another file "
                                           "(AppleDouble, its name begins with ._), not a recording. Send the file "
                                           "with the same name without ._ at the beginning.")),
    (0, b"bplist", _document("a property list of macOS or iOS")),
    (0, b"L\0\0\0\x01\x14\x02\0", _document("a shortcut of Windows")),
    (0, b"d8:announce", _document("a torrent file")),
)  # fmt: skip
"""The signatures of file types: the offset, the bytes, and the type."""

_TEXT_BEGINNINGS: tuple[tuple[str, UnsupportedType], ...] = (
    ("<!doctype html", _HTML), ("<html", _HTML), ("<head", _HTML), ("#extm3u", _PLAYLIST), ("[playlist]", _PLAYLIST),
    ("<asx", _PLAYLIST), ("<smil", _PLAYLIST), ("<mpd", _PLAYLIST), ("ffconcat", _PLAYLIST), ("v=0", _PLAYLIST),
    ("webvtt", _document("a subtitle file")),
)  # fmt: skip
"""How text files of a type begin, in lower case and after white space."""

_TEXT = _document("a text file")
_ZEROS = UnsupportedType(
    NotAudio,
    "The file begins with zeros only, as if a recording, a download or a copy was not completed. Copy it again.",
)
_HEAD_BYTES = 4_096

_DRM = "This is protected by DRM ({}), so that only the seller's player can open it. Send a recording without DRM."
_PROTECTED_ENTRIES = {
    b"drms": "Apple FairPlay, as in music from the iTunes Store",
    b"aavd": "an Audible audiobook",
    b"enca": "common encryption, as in films and music from streaming services",
}
"""The types of the sample entries of encrypted audio tracks in MP4."""

_SAMPLE_ENTRY = re.compile(rb"stsd.{12}(" + b"|".join(_PROTECTED_ENTRIES) + b")", re.DOTALL)
"""The first entry of a box ``stsd`` (ISO/IEC 14496-12, 8.5.2), after its flags, its count and the size of the entry."""

_MAX_BOXES = 10_000
_MAX_MOOV_BYTES = 2**25


def unsupported_type(recording: int) -> UnsupportedType | None:
    """Return the type of the file open on descriptor ``recording`` if it is one of those that are not read.

    The position in the file does not change. A file that FFmpeg reads may also match by chance, so this only explains
    why a file could not be read.
    """
    head = pread(recording, _HEAD_BYTES, 0)
    if len(head) > 4 and head[0] < 16 and head[1:4] in {b"dss", b"ds2"}:
        return _DSS if head[1:4] == b"dss" else _DS2
    for offset, magic, type_ in _MAGIC:
        if head.startswith(magic, offset):
            return type_
    if len(head) >= 16 and not head.strip(b"\0"):
        return _ZEROS
    text = _text(head)
    if text is None:
        return None
    start = text.lstrip("\ufeff \t\r\n").lower()
    if start.startswith("<?xml"):
        start = start.partition("?>")[2].lstrip()
    return next((type_ for beginning, type_ in _TEXT_BEGINNINGS if start.startswith(beginning)), _TEXT)


def refuse(type_: UnsupportedType | None, cause: AudioError | None = None) -> None:
    """Raise the error of a type that is not read. None does nothing."""
    if type_ is not None:
        raise type_.error(type_.message) from cause


def _text(head: bytes) -> str | None:
    """Return the beginning of a text file in UTF-8 or UTF-16, or None if it is not one."""
    encoding = "utf-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8"
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(head)
    except UnicodeDecodeError:
        return None
    printable = sum(char.isprintable() or char in "\t\r\n\f\ufeff" for char in text)
    return text if len(text) >= 8 and printable == len(text) else None


def protected_type(recording: int) -> UnsupportedType | None:
    """Return the type of the MP4 file open on descriptor ``recording`` if an audio track is encrypted.

    FFmpeg opens such a file and takes its packets for damaged ones.
    """
    at = 0
    file_bytes = os.fstat(recording).st_size
    for _ in range(_MAX_BOXES):
        head = read_at(recording, 16, at, file_bytes)
        if len(head) < 8 or (at == 0 and head[4:8] != b"ftyp"):
            return None
        size = int.from_bytes(head[:4], "big")
        if size == 1:
            size = int.from_bytes(head[8:], "big")
        if head[4:8] == b"moov":
            entry = _SAMPLE_ENTRY.search(pread(recording, min(size, file_bytes - at, _MAX_MOOV_BYTES), at))
            return entry and UnsupportedType(UnsupportedAudio, _DRM.format(_PROTECTED_ENTRIES[entry[1]]))
        if size < 8:
            return None
        at += size
    return None
