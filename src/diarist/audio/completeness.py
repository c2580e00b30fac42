"""Detection of recordings that are damaged or cut off, since silent loss is worse than an error."""

from __future__ import annotations

from diarist.audio.decoder_process import Report
from diarist.audio.headers import Header
from diarist.errors import CorruptAudio, EmptyAudio
from diarist.tracks import PartialMode, Truncation
from diarist.types import Seconds

_MAX_MISSING_S, _MAX_MISSING_FRACTION = 1.0, 0.05
"""A recording is truncated if it lacks both more than a second and more than 5% of its stated duration."""

_MAX_FAILED_FRACTION = 0.1
"""The maximum fraction of packets that may fail to decode."""

_MAX_FOREIGN_FRACTION = 0.5
"""The maximum fraction of other bytes in a file of bare packets. With more, the file has another type."""

MAX_GAP_S: Seconds = 600.0
"""Recordings with shorter gaps in total are never refused because of them."""

MIN_SOUND_FRACTION = 0.005
"""The minimum fraction of a recording that is not a gap. A participant of a meeting of two hours whose sound is only
recorded while he or she speaks has more after 36 seconds."""

_OGG_TAIL_BYTES = 2**17
"""The maximum distance of the last Ogg packet from the end: two pages of 64 kB. FFmpeg skips chained streams that it
cannot decode."""


def check_complete(
    report: Report, header: Header, *, decoded: bool, partial: PartialMode = "refuse"
) -> Truncation | None:
    """Reject recordings that are mostly damaged or end too early.

    Returns:
        How much is left of a recording that was cut off, if ``partial`` accepts that; otherwise None.

    Raises:
        EmptyAudio: There is no sound, and nothing is damaged.
        CorruptAudio: Too much of the recording is missing or damaged.
    """
    if not decoded:
        _reject_nothing_decoded(report)
    if report.failed_packets > 1 and report.failed_packets > _MAX_FAILED_FRACTION * report.packets:
        raise CorruptAudio(
            f"{report.failed_packets:,} of {report.packets:,} packets cannot be decoded: the file is damaged. "
            "Export or copy it again."
        )
    if report.expected_bytes is not None and report.decoded_bytes < (1 - _MAX_FOREIGN_FRACTION) * report.expected_bytes:
        raise CorruptAudio(
            "Most of the file is not the kind of audio that its first bytes indicate: it is damaged, or contains raw "
            "samples without a header. Export it again, as WAV or FLAC."
        )
    unread = header.size_bytes - report.last_packet_offset
    if report.format == "ogg" and unread > max(_OGG_TAIL_BYTES, _MAX_MISSING_FRACTION * header.size_bytes):
        raise CorruptAudio(
            f"After {report.decoded_duration:.1f} s the recording changes to another codec, or is damaged, and the "
            "rest cannot be read. Convert it to one WAV or FLAC file."
        )
    truncation = _truncation(report, header)
    if truncation is not None and partial == "refuse":
        raise CorruptAudio(
            f"The recording ends after {truncation.available:.1f} s, but its header states {truncation.stated:.1f} s: "
            "the file was cut off or is damaged. Export or copy it again. To transcribe what is there, give "
            "partial=accept."
        )
    return truncation


def check_gaps(report: Report) -> None:
    """Reject recordings that are almost nothing but gaps in their timestamps.

    Raises:
        CorruptAudio: The gaps are longer than ``MAX_GAP_S``, and there is less sound than ``MIN_SOUND_FRACTION``.
    """
    sound_s = report.decoded_duration - report.gap_duration
    if report.gap_duration > MAX_GAP_S and sound_s < MIN_SOUND_FRACTION * report.decoded_duration:
        raise CorruptAudio(
            f"The recording contains {sound_s:.1f} s of sound in {report.decoded_duration:,.0f} s: the rest are gaps, "
            "as if most of it was lost, or its timestamps are damaged. Export it again, or cut out the part with sound."
        )


def _reject_nothing_decoded(report: Report) -> None:
    if report.failed_packets > 0 or report.truncated:
        raise CorruptAudio("The audio cannot be decoded: the file is damaged. Export or copy it again.")
    if _missing(report.track_duration, report.decoded_duration) or _missing(
        report.file_duration, report.last_timestamp
    ):
        raise CorruptAudio("The audio is missing: the file was cut off after its header. Export or copy it again.")
    raise EmptyAudio("The recording contains no sound (0 s): it failed. Send one with speech.")


def _truncation(report: Report, header: Header) -> Truncation | None:
    """Return how much of the recording is left if it is cut off, by the first statement that shows this."""
    # The duration by the stated size, at the seconds per byte of the actual file.
    duration_by_size = report.decoded_duration * (header.stated_bytes or 0) / header.size_bytes
    for stated, reached in (
        (report.track_duration, report.decoded_duration - report.leading_silence),
        (duration_by_size, report.decoded_duration),
        (report.file_duration, max(report.last_timestamp, report.decoded_duration)),
    ):
        if stated is not None and _missing(stated, reached):
            # The scales differ in their origin, so only their differences are comparable.
            return Truncation(report.decoded_duration, report.decoded_duration + stated - reached)
    return None


def _missing(stated: Seconds | None, reached: Seconds) -> bool:
    return stated is not None and stated - reached > max(_MAX_MISSING_S, _MAX_MISSING_FRACTION * stated)
