"""From the pieces that a NeMo recogniser says to words with their times."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from diarist.types import RecognizedWord, Seconds, Span

LETTER: Seconds = 0.06
"""What a letter takes at least. A CTC or RNNT model says when a piece is heard, not for how long; a word lasts until
its letters are said, or the next word begins. Conversation has 12 to 15 letters a second."""

_NOT_SAID = re.compile(r"<(?!0x[0-9A-Fa-f]{2}>)[^<>]+>|\[(UNK|PAD|CLS|SEP|MASK)\]")
"""Pieces that are not text: unknown, padding, ends of utterances, languages, tasks."""

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")

_CLOSING = frozenset(".,!?;:…%)]}»”’。，！？、：；」』）】·।؟،؛")
"""Marks that belong to the word before them, whatever the tokenizer says."""

_WITHOUT_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Thai, Lao, Burmese, Khmer, kana and Chinese characters: written without spaces, so that each piece is a word."""


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a word, as heard."""

    piece: int
    """Its number in the vocabulary."""

    start: Seconds
    """From the start of the window."""

    end: Seconds
    confidence: float
    """The model's probability of it, 0..1."""


@dataclass(frozen=True, slots=True)
class _Piece:
    content: bytes
    """UTF-8 without the mark of a new word; a part of a character where the tokenizer falls back to bytes."""

    opens: bool = False
    """A space comes before it."""

    said: bool = True
    """It is text."""

    ends: bool = False
    """It is the space itself."""

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", "replace")

    @property
    def spoken(self) -> bool:
        """Whether anything in it is pronounced; marks are not, and their times mean little."""
        return any(char.isalnum() or unicodedata.category(char)[0] == "M" or char == "�" for char in self.text)


@dataclass(slots=True)
class _Group:
    """The tokens of a word."""

    lead: str
    """What is written before it."""

    tokens: list[Token] = field(default_factory=list)


class Vocabulary:
    """What a model's pieces mean.

    Args:
        pieces: as the tokenizer names them: SentencePiece's with ``▁`` before a new word, WordPiece's with ``##``
            before what goes on, or single characters with a space among them.
    """

    def __init__(self, pieces: Sequence[str]) -> None:
        sentence_piece = any(piece.startswith("▁") for piece in pieces)
        word_piece = not sentence_piece and any(piece.startswith("##") for piece in pieces)
        self._pieces = tuple(_meaning(piece, sentence_piece, word_piece) for piece in pieces)

    def __len__(self) -> int:
        return len(self._pieces)

    def words(self, tokens: Iterable[Token], window: Span, frame: Seconds, letter: Seconds) -> list[RecognizedWord]:
        """The words that the tokens make, in order, within the window.

        Args:
            tokens: in order, with times from the start of the window.
            window: where it lies in the recording.
            frame: no word is shorter, but in a window that is.
            letter: what a letter takes at least, where the model does not tell when a piece ends; else 0.
        """
        groups = [group for group in self._groups(tokens) if self._text(group)]
        # a piece may be heard in the silence that fills up a short window
        latest = max(window.start, window.end - frame)
        starts = [min(window.start + group.tokens[0].start, latest) for group in groups]
        words = []
        for group, (start, following) in zip(groups, pairwise([*starts, window.end]), strict=True):
            text, spoken = self._text(group), self._spoken(group)
            heard = window.start + max(token.end for token in spoken)
            end = max(heard, start + frame, min(start + letter * len(text), following))
            confidence = min(token.confidence for token in spoken)
            words.append(
                RecognizedWord(
                    group.lead + text, Span(start, max(start, min(end, window.end))), min(1.0, max(0.0, confidence))
                )
            )
        return words

    def _groups(self, tokens: Iterable[Token]) -> list[_Group]:
        groups: list[_Group] = []
        ended = True
        for token in tokens:
            piece = self._pieces[token.piece]
            if not piece.said:
                continue
            if piece.ends:
                ended = True
                continue
            text = piece.text
            before = self._text(groups[-1]) if groups else ""
            if text and text[0] in _CLOSING and groups:
                if not before and len(groups) > 1:  # a space before the mark, and nothing else
                    groups.pop()
                groups[-1].tokens.append(token)
            elif ended or piece.opens:
                groups.append(_Group("" if _WITHOUT_SPACES.match(text) else " ", [token]))
            elif _parts(before, text):
                groups.append(_Group("", [token]))
            else:
                groups[-1].tokens.append(token)
            ended = False
        return groups

    def _text(self, group: _Group) -> str:
        content = b"".join(self._pieces[token.piece].content for token in group.tokens)
        return content.decode("utf-8", "ignore")

    def _spoken(self, group: _Group) -> list[Token]:
        """Those that are pronounced; times and probabilities of marks say little of the word."""
        return [token for token in group.tokens if self._pieces[token.piece].spoken] or group.tokens


def _parts(before: str, text: str) -> bool:
    """Whether a new word begins between two pieces that have no space between them."""
    if not before or not text or unicodedata.category(text[0])[0] == "M":
        return False
    return bool(_WITHOUT_SPACES.match(text) or _WITHOUT_SPACES.match(before[-1]))


def _meaning(piece: str, sentence_piece: bool, word_piece: bool) -> _Piece:
    if _NOT_SAID.fullmatch(piece):
        return _Piece(b"", said=False)
    if sentence_piece:
        if byte := _BYTE.fullmatch(piece):
            return _Piece(bytes([int(byte[1], 16)]))
        return _Piece(piece.replace("▁", "").encode(), opens=piece.startswith("▁"))
    if word_piece:
        return _Piece(piece.removeprefix("##").encode(), opens=not piece.startswith("##"))
    return _Piece(b"", ends=True) if piece.isspace() else _Piece(piece.encode())
