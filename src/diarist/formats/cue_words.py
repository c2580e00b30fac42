"""Pieces of text between which a subtitle may break, made of the words of an utterance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import pairwise

from diarist.formats.line_breaking import Break, columns, line_break
from diarist.formats.single_line import one_line
from diarist.formats.timestamps import milliseconds
from diarist.types import Utterance


@dataclass(frozen=True, slots=True)
class CueWord:
    """A piece of text without characters that are unsafe to show, at most a word in languages with spaces."""

    text: str
    spaced: bool
    """Whether there is white space between this piece and the previous one."""

    start_ms: int
    end_ms: int
    columns: int


_WITHIN_WORD = frozenset({Break.NEVER, Break.WITHIN_WORD})
_WITHIN_CHARACTER = frozenset({Break.NEVER})


def cue_words(utterance: Utterance, max_columns: int) -> list[CueWord]:
    """Return the pieces of text between which a line may break.

    Words of the recognizer that belong together are one piece. What would be wider than ``max_columns`` is divided
    further: in scripts that put no spaces between words anywhere within the words of the recognizer, since some
    recognizers give a whole sentence as one word; in other scripts between these words, which then are parts of words.
    """
    words: list[CueWord] = []
    for run in _runs(_pieces(utterance), _WITHIN_WORD):
        word = _join_pieces(run)
        if word.columns <= max_columns:
            words.append(word)
            continue
        for part in _runs([each for piece in run for each in _divide(piece)], _WITHIN_WORD):
            word = _join_pieces(part)
            if word.columns <= max_columns:
                words.append(word)
            else:
                words += [_join_pieces(characters) for characters in _runs(part, _WITHIN_CHARACTER)]
    return words


def _pieces(utterance: Utterance) -> list[CueWord]:
    """Return the words of the recognizer, which are divided if they contain spaces."""
    pieces: list[CueWord] = []
    spaced = False
    for word in utterance.words:
        text = one_line(word.text)
        spaced = spaced or word.text[:1].isspace()
        if not text:
            continue
        piece = CueWord(text, spaced, milliseconds(word.span.start), milliseconds(word.span.end), columns(text))
        pieces += _parts(piece, [position for position, character in enumerate(text) if character == " "])
        spaced = word.text[-1].isspace()
    return pieces


def _divide(piece: CueWord) -> Iterator[CueWord]:
    """Return the parts of a piece without spaces between which a line may break."""
    text = piece.text
    # Only the last character before a break matters, and the letter that it belongs to if it is a mark.
    before = (text[max(0, position - 8) : position] for position in range(1, len(text)))
    kinds = (line_break(each, text[position], spaced=False) for position, each in enumerate(before, start=1))
    return _parts(piece, [position for position, kind in enumerate(kinds, start=1) if kind is Break.ALLOWED])


def _parts(piece: CueWord, positions: Sequence[int]) -> Iterator[CueWord]:
    """Yield the parts of a piece that begin at these positions, or at the space there, with their share of the time."""
    start_ms, done_columns = piece.start_ms, 0
    for first, end in pairwise((0, *positions, len(piece.text))):
        text = piece.text[first:end]
        done_columns += columns(text)
        share = done_columns / piece.columns if end < len(piece.text) else 1.0
        end_ms = piece.start_ms + round((piece.end_ms - piece.start_ms) * share)
        spaced = text.startswith(" ") if first else piece.spaced
        yield CueWord(text.lstrip(" "), spaced, start_ms, end_ms, columns(text.lstrip(" ")))
        start_ms = end_ms


def _runs(pieces: Sequence[CueWord], joining: AbstractSet[Break]) -> list[list[CueWord]]:
    """Return the pieces in runs, within which the kind of each break is one of ``joining``."""
    runs: list[list[CueWord]] = []
    for piece in pieces:
        if runs and line_break(runs[-1][-1].text, piece.text, spaced=piece.spaced) in joining:
            runs[-1].append(piece)
        else:
            runs.append([piece])
    return runs


def _join_pieces(run: Sequence[CueWord]) -> CueWord:
    text = join(run)
    return CueWord(text, run[0].spaced, run[0].start_ms, max(piece.end_ms for piece in run), columns(text))


def join(words: Sequence[CueWord]) -> str:
    """Return the text of words with the spaces between them."""
    return words[0].text + "".join(f" {word.text}" if word.spaced else word.text for word in words[1:])
