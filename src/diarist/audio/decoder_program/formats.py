"""The containers and decoders that FFmpeg may use, and how much the containers say about their contents."""

from __future__ import annotations

MOV = "mov,mp4,m4a,3gp,3g2,mj2"
MATROSKA = "matroska,webm"
RAW_STREAM_FORMATS = frozenset({"mp3", "aac", "loas", "amr", "ac3", "eac3", "dts", "truehd", "mlp"})
"""Containers that consist only of packets, so that any other bytes are damage."""

FORMATS = (
    *(
        "wav",
        "w64",
        "aiff",
        "au",
        "caf",
        "nistsphere",
        "flac",
        "wv",
        "tta",
        "ogg",
        "asf",
        "avi",
        "flv",
        "mpegts",
        "mpeg",
    ),
    *sorted(RAW_STREAM_FORMATS),
)
"""The supported containers besides MP4 and Matroska, by FFmpeg's names. None of them can refer to another file."""

DECODERS = frozenset(
    {
        *("aac", "alac", "flac", "mp1", "mp1float", "mp2", "mp2float", "mp3", "mp3float", "vorbis", "opus", "libopus"),
        *("amrnb", "amrwb", "libopencore_amrnb", "libopencore_amrwb", "speex", "gsm", "gsm_ms", "truespeech"),
        *("ac3", "eac3", "wmav1", "wmav2", "wmapro", "wmalossless", "wmavoice", "pcm_alaw", "pcm_mulaw", "pcm_bluray"),
        *("adpcm_ms", "adpcm_ima_wav", "adpcm_ima_qt", "adpcm_yamaha", "g722", "g723_1", "g726", "g726le", "g729"),
        *("aac_latm", "dca", "truehd", "mlp", "pcm_dvd", "nellymoser", "adpcm_swf", "wavpack", "tta"),
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

LATE_TRACK_FORMATS = frozenset({"flv", "mpegts", "mpeg"})
"""Containers whose header does not list the tracks. FFmpeg finds those that begin within ``probesize`` bytes."""

LATE_TRACK_OPTIONS = OPEN_OPTIONS | {"probesize": str(2**27), "analyzeduration": "600000000"}
"""The options for a file in which no audio track is found at first. FFmpeg keeps what it reads then in memory."""

TRACK_DURATION_FORMATS = frozenset({"wav", "w64", "aiff", "au", "caf", "nistsphere", "flac", "wv", "tta", MOV, "avi"})
"""Containers whose header may state the duration of the audio track."""

TIMESTAMPED_FORMATS = frozenset({MOV, MATROSKA, "asf", "ogg", "flac", "flv", "mpegts", "mpeg"})
"""Containers whose timestamps show gaps. In all others FFmpeg generates the timestamps while it reads."""

JUMPING_CLOCK_FORMATS = frozenset({"mpegts", "mpeg"})
"""Containers whose clock may jump."""
