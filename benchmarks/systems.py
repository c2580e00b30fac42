"""Define the systems that are compared, and convert their output to hypotheses.

If a system recognizes no words, Diarist's attribution assigns the words of faster-whisper to the system's turns.
"""

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
"""The speaker of the words of a system that does not diarize."""


@dataclass(frozen=True, slots=True)
class System:
    """A system that is compared."""

    name: str
    title: str
    environment: str
    """The name of the virtual environment that the system runs in."""

    speakers: bool = True
    """Whether the diarization of the system is scored."""

    words: bool = False
    """Whether the system recognizes words; otherwise, the words of faster-whisper are used."""

    reading_of: str | None = None
    """The system that returns these turns in addition to its own; it runs once, and both have the same time."""

    same_as: str | None = None
    """The system, with words, of which this is the diarization alone; only the time of this run is reported."""

    @property
    def script(self) -> str:
        """The NAME in ``peers/run_NAME.py``."""
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


def select_systems(names: Sequence[str], *, words: bool) -> tuple[System, ...]:
    """Return the systems of these names that have work to do, together with the other readings of their output.

    Args:
        names: Names in ``SYSTEMS``; the name of a reading also selects the system that returns it.
        words: False if only diarization is compared.
    """
    selected = {SYSTEMS[name].reading_of or name for name in names}
    return tuple(
        each for each in SYSTEMS.values() if (each.reading_of or each.name) in selected and (words or each.speakers)
    )


def to_hypothesis(output: Output, recognized: Output | None, duration: Seconds) -> Hypothesis:
    """Return the output of a system as a hypothesis that can be scored.

    Args:
        output: The output of the system.
        recognized: The output of faster-whisper alone. If the system recognizes no words, these words are attributed
            to the speakers of ``output.turns`` by Diarist's attribution. None: the hypothesis has no words then.
        duration: The length of the recording.
    """
    took = output.wall
    words = tuple(Segment(each.word.span, each.speaker or NOBODY, each.word.text.strip()) for each in output.words)
    if not words and recognized is not None:
        took += recognized.wall
        utterances = attribute([each.word for each in recognized.words], Diarization(output.turns))
        words = tuple(
            Segment(word.span, word.speaker, word.text.strip()) for utterance in utterances for word in utterance.words
        )
    segments = joined(words) if output.words or recognized is not None else None
    return Hypothesis(output.turns, segments, words, duration, took)


def joined(words: Sequence[Segment]) -> tuple[Segment, ...]:
    """Join consecutive words of one speaker without a pause of ``PAUSE_S`` to segments, in order of start."""
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
