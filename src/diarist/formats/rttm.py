"""RTTM (Rich Transcription Time Marked): who speaks when, for scoring and for other tools.

This is the format of NIST's Rich Transcription evaluations, with ten fields separated by white space::

    SPEAKER recording channel start duration <NA> <NA> speaker <NA> <NA>
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal, InvalidOperation

from diarist.errors import InvalidOption
from diarist.formats.single_line import one_line
from diarist.formats.timestamps import milliseconds
from diarist.types import Span, Transcript, Turn


def render(transcript: Transcript, recording: str) -> str:
    """Return the turns of the diarization of a transcript, as ``render_turns`` does."""
    return render_turns(transcript.diarization.turns, recording)


def render_turns(turns: Sequence[Turn], recording: str) -> str:
    """Return one line for each turn, including overlapping ones, rounded to milliseconds.

    White space in ``recording`` and in speaker names becomes ``_``, since it separates the fields. Names that would
    then be equal are numbered.
    """
    labels = _labels(turn.speaker for turn in turns)
    name = _field(recording)
    return "".join(
        f"SPEAKER {name} 1 {start_ms / 1000:.3f} {(end_ms - start_ms) / 1000:.3f} <NA> <NA> {label} <NA> <NA>\n"
        for start_ms, end_ms, label in (
            (milliseconds(turn.span.start), milliseconds(turn.span.end), labels[turn.speaker]) for turn in turns
        )
    )


def parse(text: str, recording: str | None = None) -> tuple[Turn, ...]:
    """Return the turns of one recording in order of start. This is the inverse of ``render`` up to rounding.

    Lines of types other than ``SPEAKER``, comments (``;;``) and blank lines are ignored.

    Args:
        text: The text of an RTTM file.
        recording: The recording whose lines are read; None requires that all lines belong to one recording.

    Raises:
        InvalidOption: A line cannot be read (the message gives its number), or there are several recordings and
            ``recording`` is None.
    """
    lines = [(name, turn) for name, turn in _lines(text) if recording is None or name == recording]
    names = dict.fromkeys(name for name, _ in lines)
    if len(names) > 1:
        raise InvalidOption(f"this RTTM contains several recordings: choose one of {', '.join(names)}")
    return tuple(sorted(turn for _, turn in lines))


def _lines(text: str) -> Iterator[tuple[str, Turn]]:
    for number, line in enumerate(text.split("\n"), start=1):
        fields = line.split()
        if not fields or fields[0] != "SPEAKER":
            continue
        if len(fields) < 8:
            raise InvalidOption(f"line {number} of this RTTM has {len(fields)} fields: a SPEAKER line has 10")
        try:
            # With Decimal 6.69 + 0.1 is exactly 6.79, as the writer of the line intended.
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
    """Return a unique field for each speaker, which is the speaker's name if that is valid."""
    labels: dict[str, str] = {}
    # Names that are already valid come first, so that they stay unchanged.
    for speaker in sorted(dict.fromkeys(speakers), key=lambda each: _field(each) != each):
        field, number = _field(speaker), 2
        while field in labels.values():
            field, number = f"{_field(speaker)}_{number}", number + 1
        labels[speaker] = field
    return labels
