"""The program of the decoder process, which reads a recording on standard input and writes messages to its output.

All untrusted data is parsed here, under limits, where a crash does no harm. The program is run as a file (``python -I
-S decoder_program.py REQUEST``) and needs only the standard library and PyAV, so that it starts in a tenth of a second.
The parent imports it only for the constants and the layout of the messages.

FFmpeg receives an open descriptor and only the protocol ``fd``, so that even a playlist that passes the format list
cannot open any file. Only the listed decoders run, all of them for audio. The list also applies to FFmpeg's own
probing, which would otherwise try video decoders.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Iterator
from typing import IO, Any

MESSAGE = struct.Struct("<cBIf")
"""The header of a message: kind, number of channels, length, and the fraction of the recording that is done (0..1).

The kinds are ``O`` (opened) and ``D`` (done), with ``length`` bytes of JSON; ``E`` (rejected), with ``length`` bytes of
JSON with ``code`` and ``message``; ``S`` (samples), with ``length`` float32 samples per channel, interleaved; and ``Z``
(silence), ``length`` samples long."""

SAMPLE_RATE = 16_000
BLOCK_SAMPLES = SAMPLE_RATE
"""The maximum number of samples per channel in one message: one second."""

MIN_RATE, MAX_RATE = 4_000, 384_000
"""The supported sample rates in Hz: from the poorest telephone to the best recorder."""

MAX_CHANNELS = 16
DURATION_TOLERANCE_S = 0.5
"""The time by which a recording may exceed the limit, to allow for the padding of encoders."""

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

FILE_DURATION_FORMATS = frozenset({MATROSKA, "asf"})
"""Containers whose header states only the duration of the longest track."""

TIMESTAMPED_FORMATS = frozenset({MOV, MATROSKA, "asf", "ogg", "flac"})
"""Containers whose timestamps show gaps. In all others FFmpeg generates the timestamps while it reads."""

MIN_GAP_S = 0.2
"""Gaps in the timestamps of more than this are filled with silence, so that words keep their times. Shorter ones are
rounding errors."""

MAX_GAP_S = 600.0
"""If no header states the duration, a longer gap is considered a damaged timestamp."""

RAW_STREAM_FORMATS = frozenset({"mp3", "aac", "amr"})
"""Containers that consist only of packets, so that any other bytes are damage."""


class RecordingRejected(Exception):
    """The recording cannot be used. ``code`` is the code of an error in ``diarist.errors``."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class MessageWriter:
    """Writes messages. ``done`` is the fraction of the recording that is done (0..1), which every message contains."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.done = 0.0

    def write_json(self, kind: bytes, **fields: object) -> None:
        body = json.dumps(fields).encode()
        self._write(kind, 0, len(body), body)

    def write_samples(self, frame: Any) -> None:
        channels = frame.layout.nb_channels
        size_bytes = frame.samples * channels * 4
        self._write(b"S", channels, frame.samples, memoryview(frame.planes[0])[:size_bytes])

    def write_silence(self, samples: int) -> None:
        for start in range(0, samples, BLOCK_SAMPLES):
            self._write(b"Z", 0, min(BLOCK_SAMPLES, samples - start), b"")

    def _write(self, kind: bytes, channels: int, length: int, body: bytes | memoryview) -> None:
        self._stream.write(MESSAGE.pack(kind, channels, length, min(max(self.done, 0.0), 1.0)))
        self._stream.write(body)
        self._stream.flush()


class Resampler:
    """Resamples frames to blocks at 16 kHz, whatever their rate, sample format and layout change to."""

    def __init__(self, av: Any, writer: MessageWriter) -> None:
        self._av = av
        self._writer = writer
        self._format: tuple[str, str, int] | None = None
        self._resampler: Any = None

    def push(self, frame: Any) -> None:
        format_ = (frame.format.name, frame.layout.name, frame.sample_rate)
        if format_ != self._format:
            self.flush()
            check_supported(frame.sample_rate, frame.layout.nb_channels)
            self._format = format_
        if self._resampler is None:
            self._resampler = self._av.AudioResampler("flt", frame.layout, SAMPLE_RATE, BLOCK_SAMPLES)
        # The filter would pad or cut by timestamps. Gaps are handled by ``write_frames`` instead.
        frame.pts = None
        for block in self._resampler.resample(frame):
            self._writer.write_samples(block)

    def flush(self) -> None:
        if self._resampler is not None:
            for block in self._resampler.resample(None):
                self._writer.write_samples(block)
            self._resampler = None


class Timeline:
    """Tracks the position of the next sample in the recording, and the silence to insert before it."""

    def __init__(self, origin: float | None, end: float | None, *, timestamped: bool) -> None:
        self.position: float = 0.0
        self._shift = None if origin is None else -origin
        self._end = end
        self._timestamped = timestamped

    def gap(self, timestamp: float | None) -> float:
        """Return the seconds of silence before the frame at ``timestamp``; an implausible jump moves the origin."""
        if timestamp is None or not self._timestamped:
            return 0.0
        if self._shift is None:
            self._shift = self.position - timestamp
        gap = timestamp + self._shift - self.position
        if abs(gap) <= MIN_GAP_S:
            return 0.0
        max_gap = MAX_GAP_S if self._end is None else self._end + 1.0 - self.position
        if 0 < gap <= max_gap:
            return gap
        self._shift -= gap
        return 0.0


def check_supported(rate: int, channels: int) -> None:
    """Raise ``RecordingRejected`` if the sample rate (Hz) or the number of channels is not supported."""
    if not MIN_RATE <= rate <= MAX_RATE:
        raise RecordingRejected(
            "unsupported_audio",
            f"The sample rate is {rate:,} Hz, but only {MIN_RATE:,} to {MAX_RATE:,} Hz are supported. Convert the "
            "recording to 16,000 Hz.",
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise RecordingRejected(
            "unsupported_audio",
            f"The recording has {channels:,} channels, but only 1 to {MAX_CHANNELS} are supported. Mix it down to "
            "fewer channels.",
        )


def open_recording(av: Any, kind: str | None) -> Any:
    """Open the container on descriptor 0, or raise ``RecordingRejected``."""
    try:
        return av.open("fd:", options=OPEN_OPTIONS, metadata_errors="replace")
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError) as error:
        if kind is None:
            raise RecordingRejected(
                "not_audio",
                "This is not a supported audio or video file. Send WAV, FLAC, MP3, M4A, MP4, Ogg, Opus, WebM or "
                "another common format. Raw samples without a header must be converted to one of them first.",
            ) from error
        raise RecordingRejected(
            "corrupt_audio",
            f"This looks like {kind}, but its header is damaged or missing, as if a recording or a copy was cut off. "
            "Export or copy it again.",
        ) from error


def choose_stream(av: Any, container: Any) -> Any:
    """Return the default audio track, or else the first, of those that can be decoded.

    Raises ``RecordingRejected`` if there is none.
    """
    tracks = [stream for stream in container.streams if stream.type == "audio"]
    if not tracks:
        raise RecordingRejected("not_audio", "The file has no audio track. Send a recording with sound.")
    decodable = [track for track in tracks if track.codec_context is not None and track.codec_context.name in DECODERS]
    if not decodable:
        names = ", ".join(sorted({track.codec_context.name for track in tracks if track.codec_context is not None}))
        raise RecordingRejected(
            "unsupported_audio",
            f"The audio codec is not supported ({names or 'unknown'}). Convert the recording to WAV, FLAC or MP3.",
        )
    default = [track for track in decodable if track.disposition & av.stream.Disposition.default]
    return (default or decodable)[0]


def stated_durations(container: Any, stream: Any, request: dict[str, Any]) -> tuple[float | None, float | None]:
    """Return the stated durations in seconds, of the track and of the longest track.

    A duration is None if the header does not state it, or if FFmpeg estimates it.
    """
    name = container.format.name
    if name in FILE_DURATION_FORMATS:
        return None, container.duration / 1e6 if container.duration else None
    stated = request["states_length"] if name == "mp3" else name in TRACK_DURATION_FORMATS
    if not stated or not stream.duration or stream.duration < 0:
        return None, None
    seconds = float(stream.duration * stream.time_base)
    bytes_stated = seconds * (stream.codec_context.bit_rate or 0) / 8
    # Writers that cannot seek back leave the largest number, or 2^31, as a placeholder.
    if (
        name in {"wav", "w64", "au", "aiff"}
        and bytes_stated >= 2**31 - 2**16
        and bytes_stated > 2 * request["size_bytes"]
    ):
        return None, None
    return seconds, None


def packets(av: Any, container: Any, report: dict[str, Any]) -> Iterator[Any]:
    """Yield all packets up to the end or the first damage, which sets ``report["truncated"]``."""
    demuxer = container.demux()
    while True:
        try:
            yield next(demuxer)
        except StopIteration:
            return
        except MemoryError:
            raise
        except (av.FFmpegError, ValueError):
            report["truncated"] = True
            return


def decode_recording(av: Any, writer: MessageWriter, request: dict[str, Any]) -> None:
    """Decode the recording on descriptor 0 to ``writer``, or raise ``RecordingRejected`` or ``MemoryError``."""
    max_duration_s, size_bytes = request["max_duration_s"], request["size_bytes"]
    with open_recording(av, request["kind"]) as container:
        stream = choose_stream(av, container)
        codec = stream.codec_context
        if codec.sample_rate:
            check_supported(codec.sample_rate, codec.channels or 1)
        track_duration, file_duration = stated_durations(container, stream, request)
        expected = track_duration or file_duration
        if expected is not None and expected > max_duration_s + DURATION_TOLERANCE_S:
            raise duration_error(max_duration_s)
        guess = expected or (container.duration / 1e6 if container.duration else None)
        writer.write_json(b"O", format=container.format.name, codec=codec.name, duration=guess)

        report: dict[str, Any] = {
            "format": container.format.name,
            "track_duration": track_duration,
            "file_duration": file_duration,
            "decoded_duration": 0.0,
            "last_timestamp": 0.0,
            "truncated": False,
            "last_packet_offset": 0,
            "packets": 0,
            "failed_packets": 0,
            "decoded_bytes": 0,
            "expected_bytes": size_bytes - request["tag_bytes"]
            if container.format.name in RAW_STREAM_FORMATS
            else None,
        }
        origin = None if container.start_time is None else container.start_time / 1e6
        timeline = Timeline(origin, expected, timestamped=container.format.name in TIMESTAMPED_FORMATS)
        resampler = Resampler(av, writer)
        codec.thread_count = 1
        flushed = False
        for packet in packets(av, container, report):
            if packet.pts is not None and packet.time_base:
                end = float((packet.pts + (packet.duration or 0)) * packet.time_base) - (origin or 0.0)
                report["last_timestamp"] = max(report["last_timestamp"], end)
            report["last_packet_offset"] = max(report["last_packet_offset"], packet.pos or 0)
            if packet.stream.index != stream.index:
                continue
            flushed = packet.size == 0
            frames = decode_packet(av, codec, packet, report)
            writer.done = timeline.position / guess if guess else (packet.pos or 0) / max(size_bytes, 1)
            write_frames(frames, timeline, resampler, writer, max_duration_s)
        if not flushed:
            write_frames(decode_packet(av, codec, None, report), timeline, resampler, writer, max_duration_s)
        resampler.flush()
        report["decoded_duration"] = timeline.position
        writer.done = 1.0
        writer.write_json(b"D", **report)


def decode_packet(av: Any, codec: Any, packet: Any, report: dict[str, Any]) -> list[Any]:
    """Return the frames of a packet, or the remaining ones if it is None. Failed packets are counted in ``report``."""
    content = packet is not None and packet.size > 0
    report["packets"] += content
    try:
        frames: list[Any] = codec.decode(packet if content else None)
    except MemoryError:
        raise
    except EOFError:
        return []
    except (av.FFmpegError, ValueError):
        report["failed_packets"] += 1
        return []
    if content:
        report["decoded_bytes"] += packet.size
    return frames


def write_frames(
    frames: list[Any], timeline: Timeline, resampler: Resampler, writer: MessageWriter, max_duration_s: float
) -> None:
    """Write frames at their positions, with silence in the gaps of the recording."""
    for frame in frames:
        if not frame.samples or not frame.sample_rate:
            continue
        gap = timeline.gap(frame.time)
        if timeline.position + gap > max_duration_s + DURATION_TOLERANCE_S:
            raise duration_error(max_duration_s)
        if gap:
            resampler.flush()
            writer.write_silence(round(gap * SAMPLE_RATE))
        timeline.position += gap + frame.samples / frame.sample_rate
        resampler.push(frame)


def duration_error(max_duration_s: float) -> RecordingRejected:
    """Return the error for a recording that exceeds the limit."""
    return RecordingRejected(
        "audio_too_long", f"The recording is longer than the limit of {max_duration_s:,.0f} s. Split it."
    )


def apply_limits(request: dict[str, Any]) -> None:
    """Apply limits before any input is read, and end this process together with its parent."""
    import resource
    import signal

    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
        if os.getppid() != request["parent"]:
            sys.exit(1)
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CPU, request["cpu_s"]),
    ):
        hard = resource.getrlimit(limit)[1]
        capped = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (capped, capped))


def apply_memory_limit(memory_bytes: int) -> None:
    """Limit the address space to what the libraries use plus ``memory_bytes``. Only Linux accounts for it usefully."""
    import resource

    if sys.platform == "linux":
        with open("/proc/self/statm", encoding="ascii") as counts:  # noqa: PTH123
            used_bytes = int(counts.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used_bytes + memory_bytes, used_bytes + memory_bytes))


def main() -> None:
    """Decode the recording as requested by the JSON in the first argument."""
    request = json.loads(sys.argv[1])
    apply_limits(request)
    with os.fdopen(1, "wb") as stream:
        writer = MessageWriter(stream)
        try:
            sys.path.append(request["libraries"])
            import av
            import av.stream

            apply_memory_limit(request["memory_bytes"])
            decode_recording(av, writer, request)
        except BrokenPipeError:
            os._exit(1)  # the parent has closed the pipe, and closing the stream would fail again
        except MemoryError:
            writer.write_json(b"E", code="memory", message="")
        except RecordingRejected as error:
            writer.write_json(b"E", code=error.code, message=str(error))
        except Exception as error:  # noqa: BLE001  # sent to the parent, which logs it
            writer.write_json(b"E", code="decoder_failed", message=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
