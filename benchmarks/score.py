"""Score Diarist on recordings with references: who spoke when (DER), what was said (WER), and both together (cpWER).

    python benchmarks/score.py FOLDER [--json OUT] [--only NAME,...]

FOLDER holds NAME.wav (or .flac ...) with NAME.rttm, and NAME.stm where there is text. Needs the ``bench`` extra. DER is
pyannote.metrics', overlap scored; cpWER is meeteval's; both texts go through Whisper's English normaliser.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import meeteval
from pyannote.core import Annotation, Segment, Timeline
from pyannote.metrics.diarization import DiarizationErrorRate
from whisper_normalizer.english import EnglishTextNormalizer

from diarist.audio import DecodeLimits
from diarist.engines.registry import load_engine
from diarist.formats.rttm import parse
from diarist.pipeline import transcribe
from diarist.settings import load_settings
from diarist.types import Seconds, TranscribeOptions, Transcript, Turn

COLLAR: Seconds = 0.25
SOUND = (".wav", ".flac", ".mp3", ".m4a", ".ogg", ".opus")

normalise = EnglishTextNormalizer()


@dataclass(frozen=True, slots=True)
class Spoken:
    """One stretch of a reference transcript."""

    speaker: str
    start: Seconds
    text: str


@dataclass(frozen=True, slots=True)
class Score:
    """Counts, not rates: sums of them can be pooled. Seconds but for the words."""

    name: str
    seconds: Seconds
    took: Seconds
    speakers: int
    found: int
    speech: Seconds
    missed: Seconds
    false_alarm: Seconds
    confusion: Seconds
    collar_speech: Seconds
    collar_error: Seconds
    words: int
    word_errors: int
    deleted: int
    inserted: int
    speaker_word_errors: int


def annotation(name: str, turns: Iterable[Turn]) -> Annotation:
    """Turns as pyannote's metrics want them."""
    found = Annotation(uri=name)
    for index, turn in enumerate(turns):
        found[Segment(turn.span.start, turn.span.end), index] = turn.speaker
    return found


def read_stm(path: Path) -> tuple[Spoken, ...]:
    """The lines of an STM file, in order of start."""
    fields = [line.split(maxsplit=5) for line in path.read_text().splitlines() if line.strip()]
    return tuple(sorted((Spoken(f[2], float(f[3]), f[5] if len(f) > 5 else "") for f in fields), key=lambda s: s.start))


def by_speaker(stretches: Iterable[Spoken]) -> dict[str, str]:
    """All that each speaker says, normalised; whoever says nothing is left out."""
    texts: dict[str, list[str]] = {}
    for stretch in stretches:
        texts.setdefault(stretch.speaker, []).append(stretch.text)
    joined = {speaker: normalise(" ".join(parts)) for speaker, parts in texts.items()}
    return {speaker: text for speaker, text in joined.items() if text}


def score(path: Path, transcript: Transcript, took: Seconds) -> Score:
    """Compare one transcript to the references beside its recording."""
    name = path.stem
    reference = annotation(name, parse(path.with_suffix(".rttm").read_text()))
    found = annotation(name, transcript.diarization.turns)
    whole = Timeline([Segment(0, transcript.duration)])
    strict = DiarizationErrorRate()(reference, found, uem=whole, detailed=True)
    collar = DiarizationErrorRate(collar=2 * COLLAR)(reference, found, uem=whole, detailed=True)
    words = (0, 0, 0, 0, 0)
    if path.with_suffix(".stm").exists():
        words = score_words(read_stm(path.with_suffix(".stm")), transcript)
    return Score(
        name, transcript.duration, took, len(reference.labels()), len(transcript.diarization.speakers),
        strict["total"], strict["missed detection"], strict["false alarm"], strict["confusion"],
        collar["total"], collar["missed detection"] + collar["false alarm"] + collar["confusion"], *words,
    )  # fmt: skip


def score_words(reference: Sequence[Spoken], transcript: Transcript) -> tuple[int, int, int, int, int]:
    """Words, errors, deletions and insertions of WER, and the errors of cpWER."""
    said = normalise(" ".join(stretch.text for stretch in reference))
    heard = normalise(" ".join(utterance.text for utterance in transcript.utterances))
    plain = meeteval.wer.wer.siso.siso_word_error_rate(said, heard)
    spoken = [Spoken(u.speaker, u.span.start, u.text) for u in transcript.utterances]
    joint = meeteval.wer.cp_word_error_rate(by_speaker(reference), by_speaker(spoken) or {"nobody": ""})
    return plain.length, plain.errors, plain.deletions, plain.insertions, joint.errors


def percent(part: float, whole: float) -> str:
    """``part`` of ``whole``, or a dash where there is no whole."""
    return f"{100 * part / whole:.1f}" if whole else "-"


def row(name: str, scores: Sequence[Score]) -> str:
    """One line of the table: pooled over ``scores``."""

    def total(field: str) -> float:
        return sum(getattr(one, field) for one in scores)

    exact = sum(one.speakers == one.found for one in scores)
    count = f"{scores[0].found} of {scores[0].speakers}" if len(scores) == 1 else f"{exact} right of {len(scores)}"
    speech, words = total("speech"), total("words")
    cells = (
        name, percent(total("missed") + total("false_alarm") + total("confusion"), speech),
        percent(total("collar_error"), total("collar_speech")), percent(total("missed"), speech),
        percent(total("false_alarm"), speech), percent(total("confusion"), speech), count,
        percent(total("word_errors"), words), percent(total("deleted"), words), percent(total("inserted"), words),
        percent(total("speaker_word_errors"), words), f"{total('seconds') / total('took'):.1f}",
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def table(scores: Sequence[Score]) -> str:
    """Markdown: every recording, then all together."""
    head = ("recording", "DER", "DER, collar", "missed", "false alarm", "confusion", "speakers", "WER", "deleted",
            "inserted", "cpWER", "x real time")  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += [row(one.name, [one]) for one in scores]
    return "\n".join([*lines, row("**pooled**", scores)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path, help="write the counts here")
    parser.add_argument("--only", default="", help="names of recordings, comma-separated")
    parser.add_argument("--language", default="en", help="'auto' detects it")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", module="pyannote")
    logging.getLogger("faster_whisper").setLevel(logging.WARNING)
    settings = load_settings()
    engine = load_engine(settings)
    options = TranscribeOptions(language=None if args.language == "auto" else args.language)
    paths = sorted(p for p in args.folder.iterdir() if p.suffix in SOUND and p.with_suffix(".rttm").exists())
    scores: list[Score] = []
    for path in paths:
        if args.only and path.stem not in args.only.split(","):
            continue
        started = time.perf_counter()
        transcript = transcribe(path, engine, options, lambda _stage, _done: None, DecodeLimits.of(settings))
        scores.append(score(path, transcript, time.perf_counter() - started))
        print(row(path.stem, scores[-1:]), flush=True)
    print(f"\n{platform.processor() or platform.machine()}, {settings.threads} threads\n\n{table(scores)}")
    if args.json:
        args.json.write_text(json.dumps([asdict(one) for one in scores], indent=1))


if __name__ == "__main__":
    main()
