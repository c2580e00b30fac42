"""Count repeated words in a transcript, and words that are not in order of time.

    python benchmarks/word_order.py FOLDER ... [--language en] [--show]

Each FOLDER contains recordings NAME.wav (or another audio file) with NAME.stm. A phrase of up to four words that
directly follows itself counts as doubled, unless the reference has words for both of its occurrences, be they the same
or others that were misheard. A word counts as out of order if it starts before the word that precedes it in the text.
The script needs the ``bench`` extra.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import jiwer

from diarist.audio import DecodeLimits
from diarist.engines.registry import load_engine
from diarist.evaluation.normalization import normalizer
from diarist.evaluation.reference import Reference, find
from diarist.pipeline.transcription import transcribe
from diarist.settings import load_settings
from diarist.types import TranscribeOptions, Transcript

MAX_PHRASE_WORDS = 4


@dataclass(frozen=True, slots=True)
class Faults:
    """The faults of one transcript."""

    words: int
    doubled: tuple[str, ...]
    """The phrases that directly follow themselves, and for one of which the reference has no words."""

    disordered: tuple[str, ...]
    """The words that start before the word that precedes them in the text."""


def doubled_phrases(words: Sequence[str], reference: Sequence[str]) -> tuple[str, ...]:
    """Return the phrases that directly follow themselves without words of the reference for both occurrences.

    Both texts are aligned by the minimum number of edits. A phrase of which one occurrence is too much has at least as
    many inserted words as it is long.
    """
    inserted = _inserted(words, reference)
    found: list[str] = []
    for length in range(1, MAX_PHRASE_WORDS + 1):
        for at in range(len(words) - 2 * length + 1):
            phrase = words[at : at + length]
            if phrase != words[at + length : at + 2 * length] or (length > 1 and len(set(phrase)) == 1):
                continue
            if sum(position in inserted for position in range(at, at + 2 * length)) >= length:
                found.append(" ".join(phrase))
    return tuple(found)


def _inserted(words: Sequence[str], reference: Sequence[str]) -> set[int]:
    """Return the positions of the words that the reference does not have."""
    if not words or not reference:
        return set(range(len(words)))
    (alignment,) = jiwer.process_words(" ".join(reference), " ".join(words)).alignments
    chunks = (chunk for chunk in alignment if chunk.type == "insert")
    return {position for chunk in chunks for position in range(chunk.hyp_start_idx, chunk.hyp_end_idx)}


def faults(transcript: Transcript, reference: Reference, language: str | None) -> Faults:
    """Compare a transcript with its reference, which must have a text."""
    normalize = normalizer(language)
    spoken = normalize(" ".join(segment.text for segment in reference.segments or ())).split()
    words = [word for utterance in transcript.utterances for word in utterance.words]
    recognized = normalize(" ".join(word.text.strip() for word in words)).split()
    disordered = tuple(after.text.strip() for before, after in pairwise(words) if after.span.start < before.span.start)
    return Faults(len(words), doubled_phrases(recognized, spoken), disordered)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--language", default="en")
    parser.add_argument("--show", action="store_true", help="print the doubled phrases and the words out of order")
    options = parser.parse_args(arguments)
    logging.getLogger("faster_whisper").setLevel(logging.WARNING)
    engine = load_engine(load_settings())
    total: list[Faults] = []
    for reference in (each for folder in options.folders for each in find(folder)):
        if reference.recording is None or not reference.segments:
            continue
        transcribe_options = TranscribeOptions(language=options.language)
        transcript = transcribe(
            reference.recording, engine, transcribe_options, lambda _stage, _done: None, DecodeLimits()
        )
        own = faults(transcript, reference, options.language)
        total.append(own)
        print(f"{reference.name}: {own.words} words, {len(own.doubled)} doubled, {len(own.disordered)} out of order")
        if options.show:
            print("".join(f"  {text}\n" for text in (*own.doubled, *own.disordered)), end="")
    doubled, disordered = sum(len(own.doubled) for own in total), sum(len(own.disordered) for own in total)
    print(f"all {len(total)}: {sum(own.words for own in total)} words, {doubled} doubled, {disordered} out of order")
    return 0 if total else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
