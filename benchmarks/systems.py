"""The systems that are compared, and what Diarist's own attribution makes of their turns and another's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from diarist.evaluation.hypotheses import Hypothesis
from diarist.evaluation.segments import Segment
from diarist.pipeline.attribution import attribute
from diarist.types import Diarization, Seconds, Span
from running import Output

PAUSE_S: Seconds = 1.0
NOBODY = "SPEAKER_00"
"""Who says the words of a system that knows no speakers."""


@dataclass(frozen=True, slots=True)
class System:
    """One that takes part."""

    name: str
    title: str
    environment: str
    """Whose virtual environment it runs in."""

    speakers: bool = True
    """Is scored by how it tells speakers apart."""

    words: bool = False
    """Finds words; the words of those that do not are faster-whisper's."""

    reading_of: str | None = None
    """The system that gives these turns beside its own: it runs once, and its time is theirs."""

    same_as: str | None = None
    """The system of which this is the diarization alone, where that finds words too: only its time counts."""

    @property
    def script(self) -> str:
        """``peers/run_SCRIPT.py``."""
        return (self.same_as or self.name).replace("-", "_")


SYSTEMS: Mapping[str, System] = {
    each.name: each
    for each in (
        System("diarist", "Diarist", "diarist", words=True),
        System("diarist-turns", "Diarist, diarization alone", "diarist", speakers=False, same_as="diarist"),
        System("whisper", "faster-whisper alone, in batches", "diarist", speakers=False, words=True),
        System("whisper-sequential", "faster-whisper alone, sequential", "diarist", speakers=False, words=True),
        System("senko", "senko 0.2.2", "senko"),
        System("senko-merged", "senko 0.2.2, merged", "senko", reading_of="senko"),
        System("resemblyzer", "Resemblyzer + spectral", "resemblyzer"),
        System("pyannote", "pyannote.audio 4.0.7, CAM++", "pyannote"),
    )
}


def chosen(names: Sequence[str], *, words: bool) -> tuple[System, ...]:
    """The systems of these names that have something to do, with the other readings of what they find.

    Args:
        names: of ``SYSTEMS``; that of a reading brings the system that gives it.
        words: False where diarization alone is wanted.
    """
    wanted = {SYSTEMS[name].reading_of or name for name in names}
    return tuple(
        each for each in SYSTEMS.values() if (each.reading_of or each.name) in wanted and (words or each.speakers)
    )


def answer(output: Output, recognised: Output | None, duration: Seconds) -> Hypothesis:
    """What a system says, ready to be scored.

    Args:
        output: of the system.
        recognised: of faster-whisper alone: its words go to the speakers of ``output.turns``, by Diarist's attribution,
            where the system finds none of its own. None: it is scored without words.
        duration: of the recording.
    """
    took = output.wall
    words = tuple(Segment(each.word.span, each.speaker or NOBODY, each.word.text.strip()) for each in output.words)
    if not words and recognised is not None:
        took += recognised.wall
        utterances = attribute([each.word for each in recognised.words], Diarization(output.turns))
        words = tuple(Segment(word.span, word.speaker, word.text.strip()) for said in utterances for word in said.words)
    segments = joined(words) if output.words or recognised is not None else None
    return Hypothesis(output.turns, segments, words, duration, took)


def joined(words: Sequence[Segment]) -> tuple[Segment, ...]:
    """Words that one speaker says in a row, without a pause of ``PAUSE_S``, as one segment; in order of start."""
    runs: list[list[Segment]] = []
    for word in sorted(words, key=lambda each: each.span.start):
        if runs and runs[-1][-1].speaker == word.speaker and word.span.gap(runs[-1][-1].span) < PAUSE_S:
            runs[-1].append(word)
        else:
            runs.append([word])
    return tuple(
        Segment(
            Span(run[0].span.start, max(word.span.end for word in run)),
            run[0].speaker,
            " ".join(word.text for word in run),
        )
        for run in runs
    )
