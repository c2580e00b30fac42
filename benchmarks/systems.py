"""The systems that are compared, and what Diarist's own attribution makes of their turns and another's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from diarist.attribution import attribute
from diarist.evaluation.stretches import Answer, Stretch
from diarist.types import Diarization, Seconds, Span
from running import Output

PAUSE_S: Seconds = 1.0
NOBODY = "SPEAKER_00"
"""Who says the words of a system that knows no speakers."""


@dataclass(frozen=True, slots=True)
class System:
    """One that takes part."""

    name: str
    """Of ``peers/run_NAME.py``."""

    title: str
    environment: str
    """Whose virtual environment it runs in."""

    speakers: bool = True
    """Tells speakers apart."""

    words: bool = False
    """Finds words; the words of those that do not are faster-whisper's."""


SYSTEMS: Mapping[str, System] = {
    each.name: each
    for each in (
        System("diarist", "Diarist", "diarist", words=True),
        System("whisper", "faster-whisper alone", "diarist", speakers=False, words=True),
        System("senko", "senko 0.2.2", "senko"),
        System("resemblyzer", "Resemblyzer + spectral", "resemblyzer"),
        System("pyannote", "pyannote.audio pipeline, CAM++", "pyannote"),
    )
}


def answer(output: Output, recognised: Output | None, duration: Seconds) -> Answer:
    """What a system says, ready to be scored.

    Args:
        output: of the system.
        recognised: of faster-whisper alone: its words go to the speakers of ``output.turns``, by Diarist's attribution,
            where the system finds none of its own. None: it is scored without words.
        duration: of the recording.
    """
    took = output.wall
    words = tuple(Stretch(each.word.span, each.speaker or NOBODY, each.word.text.strip()) for each in output.words)
    if not words and recognised is not None:
        took += recognised.wall
        utterances = attribute([each.word for each in recognised.words], Diarization(output.turns))
        words = tuple(Stretch(word.span, word.speaker, word.text.strip()) for said in utterances for word in said.words)
    stretches = joined(words) if output.words or recognised is not None else None
    return Answer(output.turns, stretches, words, duration, took)


def joined(words: Sequence[Stretch]) -> tuple[Stretch, ...]:
    """Words that one speaker says in a row, without a pause of ``PAUSE_S``, as one stretch; in order of start."""
    runs: list[list[Stretch]] = []
    for word in sorted(words, key=lambda each: each.span.start):
        if runs and runs[-1][-1].speaker == word.speaker and word.span.gap(runs[-1][-1].span) < PAUSE_S:
            runs[-1].append(word)
        else:
            runs.append([word])
    return tuple(
        Stretch(
            Span(run[0].span.start, max(word.span.end for word in run)),
            run[0].speaker,
            " ".join(word.text for word in run),
        )
        for run in runs
    )
