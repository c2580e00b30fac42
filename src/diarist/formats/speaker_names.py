"""Names that users give to speakers, in place of the labels ``SPEAKER_00``, ``SPEAKER_01`` and so on."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from diarist.errors import InvalidOption
from diarist.formats.single_line import one_line
from diarist.types import MAX_SPEAKERS, Transcript

MAX_NAME_CHARS = 100
"""The maximum length of a name."""

_LABEL = re.compile(r"SPEAKER_\d+")


def parse_speaker_names(text: str) -> tuple[str, ...]:
    """Return the names in a list with commas. A name that contains a comma is quoted, as in CSV (RFC 4180).

    White space around names is dropped, and within names it becomes single spaces.

    Raises:
        InvalidOption: A name is empty, too long, given twice, or the label of another speaker; there are more than
            ``MAX_SPEAKERS`` names; or a quote is not closed.
    """
    try:
        (row,) = csv.reader([one_line(text)], skipinitialspace=True, strict=True)
    except (csv.Error, ValueError):
        raise InvalidOption(
            "speaker names must be separated by commas, such as Anna,Ben; a name that contains a comma must be quoted"
        ) from None
    return checked_speaker_names(row or [""])


def checked_speaker_names(given: Iterable[str]) -> tuple[str, ...]:
    """Return the names with single spaces as their only white space.

    Raises:
        InvalidOption: As ``parse_speaker_names``.
    """
    names = tuple(one_line(name) for name in given)
    if len(names) > MAX_SPEAKERS:
        raise InvalidOption(f"there are {len(names)} speaker names; the maximum is {MAX_SPEAKERS}")
    for number, name in enumerate(names, start=1):
        if not name:
            raise InvalidOption(f"speaker name {number} is empty: give a name for each speaker, such as Anna,Ben")
        if len(name) > MAX_NAME_CHARS:
            raise InvalidOption(f"speaker name {number} has {len(name)} characters; the maximum is {MAX_NAME_CHARS}")
        if name in names[: number - 1]:
            raise InvalidOption(f"the speaker name {name!r} is given twice: give each speaker a different name")
        if _LABEL.fullmatch(name) and name != f"SPEAKER_{number - 1:02d}":
            raise InvalidOption(f"the speaker name {name!r} is the label of another speaker: give a different name")
    return names


def with_speaker_names(transcript: Transcript, names: Sequence[str]) -> Transcript:
    """Return the transcript with the names in place of the labels, in the order of ``Transcript.speakers``.

    Speakers without a name keep their labels. Names without a speaker become a warning.
    """
    if not names:
        return transcript
    named = dict(zip(transcript.speakers, names, strict=False))
    turns = tuple(replace(turn, speaker=named.get(turn.speaker, turn.speaker)) for turn in transcript.diarization.turns)
    unused = unused_names_warning(transcript, names)
    return replace(
        transcript,
        utterances=tuple(each.renamed(named.get(each.speaker, each.speaker)) for each in transcript.utterances),
        diarization=replace(transcript.diarization, turns=turns),
        warnings=transcript.warnings if unused is None else (*transcript.warnings, unused),
    )


def unused_names_warning(transcript: Transcript, names: Sequence[str]) -> str | None:
    """Return a sentence about the names for which the transcript has no speaker, or None if there are none."""
    found = len(transcript.speakers)
    unused = names[found:]
    if not unused:
        return None
    speakers = f"{found} speaker{'s' * (found != 1)}"
    return f"The recording has {speakers}, so these speaker names are not used: {', '.join(unused)}."
