"""Measure the calibration of the confidences of words and speakers: whether 0.9 means correct nine times in ten.

    python benchmarks/reliability.py FOLDER ... [--svg OUT]

Each FOLDER contains NAME.wav (or another audio file) with NAME.rttm, and with NAME.stm and NAME.words.json if there is
a text. The script needs the ``bench`` extra. Speakers are matched one to one by the time that they share. The true
speaker of a word is the one who says the same word at the same time in the reference, or else the one whose turn
contains the middle of the word. If several people speak at that time, the true speaker is the one whose text at that
time contains the word; a word that several or none of them say is left out.
"""

from __future__ import annotations

import argparse
import logging
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jiwer
import numpy as np
from numpy.typing import NDArray
from pyannote.core import Annotation, Segment
from pyannote.metrics.diarization import DiarizationErrorRate

from diarist.audio import DecodeLimits
from diarist.engines.registry import load_engine
from diarist.evaluation.normalization import normalizer
from diarist.evaluation.reference import Reference, find
from diarist.pipeline.transcription import transcribe
from diarist.settings import load_settings
from diarist.types import Seconds, TranscribeOptions, Transcript, Turn, Word

Floats = NDArray[np.float64]

NEAR: Seconds = 0.3
"""A word that is further than this from all turns has no true speaker."""

SAME_WORD: Seconds = 0.7
"""The maximum distance between the middle of a recognized word and that of the same word in the reference."""

EDGES = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0)


@dataclass(frozen=True, slots=True)
class Claim:
    """A confidence, and whether the result that it was given for is correct."""

    confidence: float
    true: bool


def simplify(text: str) -> str:
    """Return the text in lower case without punctuation and spaces; apostrophes are kept."""
    return re.sub(r"[^\w']", "", text.lower())


def true_speaker(word: Word, reference: Reference) -> str | None:
    """Return the true speaker of a word, or None if there is none or it is ambiguous."""
    middle, text = word.span.middle, simplify(word.text)
    timed = [(abs(w.span.middle - middle), w.speaker) for w in reference.words if simplify(w.text) == text]
    if timed and min(timed)[0] <= SAME_WORD:
        return min(timed)[1]
    near = {t.speaker for t in reference.turns if t.span.start - NEAR <= middle <= t.span.end + NEAR}
    speaking = {t.speaker for t in reference.turns if t.span.start <= middle <= t.span.end} or near
    if len(speaking) > 1:
        speaking &= {
            segment.speaker
            for segment in reference.segments or ()
            if segment.span.start - NEAR <= middle <= segment.span.end + NEAR
            and text in map(simplify, segment.text.split())
        }
    return next(iter(speaking)) if len(speaking) == 1 else None


def speaker_claims(reference: Reference, transcript: Transcript) -> list[Claim]:
    """Return the speaker confidence of each word whose true speaker is known."""
    same = DiarizationErrorRate().optimal_mapping(annotation(reference.turns), annotation(transcript.diarization.turns))
    known = [(word, true_speaker(word, reference)) for word in transcript.words]
    return [Claim(word.speaker_confidence, same.get(word.speaker) == who) for word, who in known if who is not None]


def annotation(turns: Iterable[Turn]) -> Annotation:
    """Convert turns to an annotation for pyannote.metrics."""
    made = Annotation(uri="recording")
    for index, turn in enumerate(turns):
        made[Segment(turn.span.start, turn.span.end), index] = turn.speaker
    return made


def word_claims(reference: Reference, transcript: Transcript, language: str | None) -> list[Claim]:
    """Return the recognizer's confidence of each word; a word is correct if it matches in the best alignment."""
    normal = normalizer(language)
    recognized = [(part, word.confidence) for word in transcript.words for part in normal(word.text).split()]
    spoken = normal(" ".join(segment.text for segment in reference.segments or ()))
    if not spoken or not recognized:
        return []
    aligned = jiwer.process_words(spoken, " ".join(part for part, _ in recognized)).alignments[0]
    true = {i for c in aligned if c.type == "equal" for i in range(c.hyp_start_idx, c.hyp_end_idx)}
    return [Claim(confidence, i in true) for i, (_, confidence) in enumerate(recognized)]


def bins(claims: Sequence[Claim], edges: Sequence[float]) -> list[tuple[float, float, int, float, float]]:
    """Return for each non-empty bin its edges, the count, the mean confidence, and the share that is correct."""
    confidence = np.array([claim.confidence for claim in claims])
    true = np.array([claim.true for claim in claims])
    which = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, len(edges) - 2)
    return [
        (edges[k], edges[k + 1], int(at.sum()), float(confidence[at].mean()), float(true[at].mean()))
        for k in range(len(edges) - 1)
        if (at := which == k).any()
    ]


def summary(claims: Sequence[Claim]) -> str:
    """Return the expected calibration error over ten equal bins, the Brier score, and both means."""
    parts = bins(claims, np.linspace(0, 1, 11).tolist())
    error = sum(count * abs(mean - share) for _, _, count, mean, share in parts) / len(claims)
    brier = float(np.mean([(claim.confidence - claim.true) ** 2 for claim in claims]))
    mean, share = (float(np.mean(values)) for values in zip(*((c.confidence, c.true) for c in claims), strict=True))
    return f"{len(claims)}: {mean:.3f} expected, {share:.3f} true, ECE {error:.4f}, Brier {brier:.4f}"


def table(name: str, claims: Sequence[Claim]) -> str:
    """Return a Markdown table, or a line that says that there is no data."""
    if not claims:
        return f"{name}: nothing to compare with a reference"
    lines = [f"{name}, {summary(claims)}", "", "| confidence | count | expected | correct |", "|---|---|---|---|"]
    lines += [f"| {a:g} to {b:g} | {n} | {mean:.3f} | {share:.3f} |" for a, b, n, mean, share in bins(claims, EDGES)]
    return "\n".join(lines)


def picture(panels: Iterable[tuple[str, Sequence[Claim]]]) -> str:
    """Return an SVG with one reliability diagram per kind of claim; calibrated confidences lie on the diagonal."""
    side, gap = 240, 50
    drawn: list[str] = []
    for index, (name, claims) in enumerate((name, claims) for name, claims in panels if claims):
        left = gap + index * (side + gap)
        drawn.append(f'<text x="{left}" y="30">{name}</text>')
        drawn.append(f'<rect x="{left}" y="{gap}" width="{side}" height="{side}" fill="none" stroke="#999"/>')
        drawn.append(f'<path d="M{left} {gap + side}l{side} -{side}" stroke="#999" stroke-dasharray="4"/>')
        for _, _, count, mean, share in bins(claims, EDGES):
            x, y, size = left + side * mean, gap + side * (1 - share), 2 + 2 * np.log10(count)
            title = f"{count}: {mean:.3f} expected, {share:.3f} correct"
            drawn.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}" fill="#1f6f8b"><title>{title}</title></circle>'
            )
    width, height = gap + (side + gap) * 3, side + 2 * gap
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif">'
    return "\n".join([head, *drawn, "</svg>\n"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--svg", type=Path, help="write the reliability diagrams to this file")
    parser.add_argument("--only", default="", help="names of recordings, comma-separated; default: all")
    parser.add_argument("--language", default="en", help="the spoken language; 'auto' detects it")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", module="pyannote")
    logging.getLogger("faster_whisper").setLevel(logging.WARNING)
    settings = load_settings()
    engine = load_engine(settings)
    options = TranscribeOptions(language=None if args.language == "auto" else args.language)
    speakers: list[Claim] = []
    words: list[Claim] = []
    counts: list[Claim] = []
    for reference in (one for folder in args.folders for one in find(folder)):
        if reference.recording is None or (args.only and reference.name not in args.only.split(",")):
            continue
        limits = DecodeLimits.of(settings)
        transcript = transcribe(reference.recording, engine, options, lambda _stage, _done: None, limits)
        speakers += speaker_claims(reference, transcript)
        words += word_claims(reference, transcript, options.language)
        if transcript.speakers_confidence is not None:
            exact = len(transcript.diarization.speakers) == len(reference.speakers)
            counts.append(Claim(transcript.speakers_confidence, exact))
    panels = (("Speaker of a word", speakers), ("Word", words), ("Number of speakers", counts))
    print("\n\n".join(table(name, claims) for name, claims in panels))
    if args.svg:
        args.svg.write_text(picture(panels))


if __name__ == "__main__":
    main()
