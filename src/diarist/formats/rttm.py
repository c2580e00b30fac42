"""RTTM (Rich Transcription Time Marked): who spoke when, for scoring and for other tools.

The format is that of NIST's Rich Transcription evaluations, ten fields divided by white space::

    SPEAKER recording channel start duration <NA> <NA> speaker <NA> <NA>
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal, InvalidOperation

from diarist.errors import InvalidOption
from diarist.formats.single_line import one_line
from diarist.formats.timestamps import milliseconds
from diarist.types import Span, Transcript, Turn


def render(transcript: Transcript, recording: str) -> str:
    """One line for each turn of the diarization, overlapping ones too, to the millisecond.

    White space in ``recording`` and in speakers' names becomes ``_``, since it divides the fields; names that would
    then be equal are numbered.
    """
    turns = transcript.diarization.turns
    labels = _labels(turn.speaker for turn in turns)
    name = _field(recording)
    return "".join(
        f"SPEAKER {name} 1 {start_ms / 1000:.3f} {(end_ms - start_ms) / 1000:.3f} <NA> <NA> {label} <NA> <NA>\n"
        for start_ms, end_ms, label in (
            (milliseconds(turn.span.start), milliseconds(turn.span.end), labels[turn.speaker]) for turn in turns
        )
    )


def parse(text: str, recording: str | None = None) -> tuple[Turn, ...]:
    """The turns of one recording, in order of start: the inverse of ``render`` to the millisecond.

    Lines of other types than ``SPEAKER``, comments (``;;``) and blank lines are passed over.

    Args:
        text: What an RTTM file holds.
        recording: Take the lines of this recording alone; without it, all lines must be of one.

    Raises:
        InvalidOption: a line cannot be read (the message gives its number), or several recordings and none chosen.
    """
    lines = [(name, turn) for name, turn in _lines(text) if recording is None or name == recording]
    names = dict.fromkeys(name for name, _ in lines)
    if len(names) > 1:
        raise InvalidOption(f"this RTTM holds several recordings: choose one of {', '.join(names)}")
    return tuple(sorted(turn for _, turn in lines))


def _lines(text: str) -> Iterator[tuple[str, Turn]]:
    for number, line in enumerate(text.split("\n"), start=1):
        fields = line.split()
        if not fields or fields[0] != "SPEAKER":
            continue
        if len(fields) < 8:
            raise InvalidOption(f"line {number} of this RTTM has {len(fields)} fields: a SPEAKER line has 10")
        try:
            # Decimal: 6.69 + 0.1 is 6.79 here, as whoever wrote the line meant it.
            start, duration = Decimal(fields[3]), Decimal(fields[4])
            turn = Turn(Span(float(start), float(start + duration)), fields[7])
        except (InvalidOperation, ValueError):
            raise InvalidOption(
                f"line {number} of this RTTM cannot be read: start and duration must be seconds, 0 or more, "
                f"not {fields[3]!r} and {fields[4]!r}"
            ) from None
        yield fields[1], turn


def _field(text: str) -> str:
    return one_line(text).replace(" ", "_") or "_"


def _labels(speakers: Iterable[str]) -> dict[str, str]:
    """A field for each speaker: as they are called where that is safe, and never the same for two."""
    labels: dict[str, str] = {}
    # Names that need no change come first, so that they keep it.
    for speaker in sorted(dict.fromkeys(speakers), key=lambda each: _field(each) != each):
        field, number = _field(speaker), 2
        while field in labels.values():
            field, number = f"{_field(speaker)}_{number}", number + 1
        labels[speaker] = field
    return labels
