"""Decoding of the packets of a recording to blocks of samples at 16 kHz."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain
from typing import Any

from .clock_jumps import with_continuous_clock
from .container import find_track, open_recording, stated_durations
from .formats import JUMPING_CLOCK_FORMATS, RAW_STREAM_FORMATS, TIMESTAMPED_FORMATS
from .messages import BLOCK_SAMPLES, SAMPLE_RATE, MessageWriter
from .recording_start import read_to_start
from .rejection import DURATION_TOLERANCE_S, check_supported, duration_error
from .timeline import Timeline


def decode_recording(av: Any, writer: MessageWriter, request: dict[str, Any]) -> None:
    """Decode the recording on descriptor 0 to ``writer``, or raise ``RecordingRejected`` or ``MemoryError``."""
    max_duration_s, size_bytes = request["max_duration_s"], request["size_bytes"]
    with open_recording(av, request["kind"]) as container:
        stream, tracks = find_track(av, container, request["track"])
        codec = stream.codec_context
        if codec.sample_rate:
            check_supported(codec.sample_rate, codec.channels or 1)
        track_duration, file_duration = stated_durations(container, stream, request)
        expected = track_duration or file_duration
        # The stated duration of a file includes the time before its start, that of a track does not.
        start_time = max(container.start_time or 0, 0) / 1e6 if file_duration else 0.0
        if expected is not None and expected - start_time > max_duration_s + DURATION_TOLERANCE_S:
            raise duration_error(max_duration_s)
        guess = max(expected or 0.0, (container.duration or 0) / 1e6) or None
        writer.write_json(b"O", format=container.format.name, codec=codec.name, duration=guess, **tracks)

        report: dict[str, Any] = {
            "format": container.format.name,
            "track_duration": track_duration,
            "file_duration": file_duration,
            "decoded_duration": 0.0,
            "leading_silence": 0.0,
            "gap_duration": 0.0,
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
        arriving = packets(av, container, report)
        end = guess if expected else None
        if container.format.name in JUMPING_CLOCK_FORMATS:
            arriving = with_continuous_clock(arriving)
            end = math.inf  # what is left are gaps of this track alone
        timestamped = container.format.name in TIMESTAMPED_FORMATS
        origin, held = read_to_start(av, container, arriving, stream.index) if timestamped else (None, [])
        timeline = Timeline(origin, end, timestamped=timestamped)
        resampler = Resampler(av, writer)
        codec.thread_count = 1
        flushed = False
        for packet in chain(held, arriving):
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
        report["leading_silence"] = timeline.leading_silence
        report["gap_duration"] = timeline.gap_duration
        writer.done = 1.0
        writer.write_json(b"D", **report)


def packets(av: Any, container: Any, report: dict[str, Any]) -> Iterator[Any]:
    """Yield all packets up to the end or the first damage, and record in ``report`` how far they reach."""
    demuxer = container.demux()
    while True:
        try:
            packet = next(demuxer)
        except StopIteration:
            return
        except MemoryError:
            raise
        except (av.FFmpegError, ValueError):
            report["truncated"] = True
            return
        if packet.pts is not None and packet.time_base:
            end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            report["last_timestamp"] = max(report["last_timestamp"], end)
        report["last_packet_offset"] = max(report["last_packet_offset"], packet.pos or 0)
        yield packet


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
