"""The containers and decoders that FFmpeg may use, and how much the containers say about their contents."""

from __future__ import annotations

MOV = "mov,mp4,m4a,3gp,3g2,mj2"
MATROSKA = "matroska,webm"
FORMATS = ("wav", "w64", "aiff", "au", "caf", "nistsphere", "flac", "mp3", "aac", "amr", "ogg", "asf", "avi")
"""The supported containers besides MP4 and Matroska, by FFmpeg's names. None of them can refer to another file."""

DECODERS = frozenset(
    {
        *("aac", "alac", "flac", "mp1", "mp1float", "mp2", "mp2float", "mp3", "mp3float", "vorbis", "opus", "libopus"),
        *("amrnb", "amrwb", "libopencore_amrnb", "libopencore_amrwb", "speex", "gsm", "gsm_ms", "truespeech"),
        *("ac3", "eac3", "wmav1", "wmav2", "wmapro", "wmalossless", "wmavoice", "pcm_alaw", "pcm_mulaw", "pcm_bluray"),
        *("adpcm_ms", "adpcm_ima_wav", "adpcm_ima_qt", "adpcm_yamaha", "g722", "g723_1", "g726", "g726le", "g729"),
        *("pcm_s8", "pcm_u8", "pcm_f16le", "pcm_f24le", "pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be"),
        *("pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_s64le", "pcm_s16be", "pcm_s24be", "pcm_s32be", "pcm_s64be"),
        *("pcm_u16le", "pcm_u24le", "pcm_u32le", "pcm_u16be", "pcm_u24be", "pcm_u32be"),
    }
)
"""The permitted decoders, by FFmpeg's names: those of recorders, telephones and editors, and only for audio."""

OPEN_OPTIONS = {
    "protocol_whitelist": "fd",
    "format_whitelist": ",".join((*FORMATS, MOV, MATROSKA)),
    "codec_whitelist": ",".join(sorted(DECODERS)),
    "fd": "0",
}

TRACK_DURATION_FORMATS = frozenset({"wav", "w64", "aiff", "au", "caf", "nistsphere", "flac", MOV, "avi"})
"""Containers whose header may state the duration of the audio track."""

TIMESTAMPED_FORMATS = frozenset({MOV, MATROSKA, "asf", "ogg", "flac"})
"""Containers whose timestamps show gaps. In all others FFmpeg generates the timestamps while it reads."""

RAW_STREAM_FORMATS = frozenset({"mp3", "aac", "amr"})
"""Containers that consist only of packets, so that any other bytes are damage."""
