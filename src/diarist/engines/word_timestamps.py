"""From the subword tokens of a NeMo recognizer to words with their times."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from diarist.engines.word_boundaries import continues_word, is_unspaced
from diarist.types import RecognizedWord, Seconds, Span

LETTER_DURATION_S: Seconds = 0.06
"""The minimum duration of a letter. A CTC or RNNT model gives the start of a token but not its duration; a word lasts
until its letters are spoken, or the next word starts. Conversation has 12 to 15 letters per second."""

_SPECIAL = re.compile(r"<(?!0x[0-9A-Fa-f]{2}>)[^<>]+>|\[(UNK|PAD|CLS|SEP|MASK)\]")
"""Tokens that are not text: unknown, padding, ends of utterances, languages, tasks."""

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")

_CLOSING = frozenset(".,!?;:…%)]}»”’。，！？、：；」』）】·।؟،؛")
"""Punctuation that belongs to the word before it, whether or not the tokenizer has a space there."""


@dataclass(frozen=True, slots=True)
class Token:
    """An occurrence of a token in the output of a recognizer."""

    id: int
    """The index of the token in the vocabulary."""

    start: Seconds
    """Seconds from the start of the window."""

    end: Seconds
    confidence: float
    """The model's probability of the token, 0..1."""


@dataclass(frozen=True, slots=True)
class _VocabularyEntry:
    content: bytes
    """UTF-8 without the marker of a new word; a part of a character where the tokenizer falls back to bytes."""

    starts_word: bool = False
    """Whether a space comes before it."""

    is_text: bool = True
    """Whether it is text, and not a special token."""

    is_space: bool = False
    """Whether it is the space itself."""

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", "replace")

    @property
    def is_pronounced(self) -> bool:
        """Whether anything in it is pronounced. Punctuation is not, and its times mean little."""
        return any(char.isalnum() or unicodedata.category(char)[0] == "M" or char == "�" for char in self.text)


@dataclass(slots=True)
class _WordTokens:
    """The tokens of a word."""

    prefix: str
    """The white space before the word."""

    tokens: list[Token] = field(default_factory=list)


class Vocabulary:
    """The meaning of a model's tokens.

    Args:
        tokens: The tokens as the tokenizer names them: SentencePiece's with ``▁`` before a new word, WordPiece's with
            ``##`` before the continuation of a word, or single characters with a space among them.
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        sentence_piece = any(token.startswith("▁") for token in tokens)
        word_piece = not sentence_piece and any(token.startswith("##") for token in tokens)
        self._entries = tuple(_entry(token, sentence_piece, word_piece) for token in tokens)

    def __len__(self) -> int:
        return len(self._entries)

    def words(
        self, tokens: Iterable[Token], window: Span, min_word: Seconds, min_letter: Seconds
    ) -> list[RecognizedWord]:
        """Return the words that the tokens make, in order, within the window.

        Args:
            tokens: The tokens in order, with times from the start of the window.
            window: The span of the window in the recording.
            min_word: The minimum duration of a word, except in a shorter window.
            min_letter: The minimum duration of a letter if the model does not give the end of a token, and 0 otherwise.
        """
        groups = [group for group in self._groups(tokens) if self._text(group)]
        # A token may start in the silence that a short window is padded with.
        latest = max(window.start, window.end - min_word)
        starts = [min(window.start + group.tokens[0].start, latest) for group in groups]
        words = []
        for group, (start, following) in zip(groups, pairwise([*starts, window.end]), strict=True):
            text, pronounced = self._text(group), self._pronounced(group)
            last_end = window.start + max(token.end for token in pronounced)
            end = max(last_end, start + min_word, min(start + min_letter * len(text), following))
            confidence = min(token.confidence for token in pronounced)
            words.append(
                RecognizedWord(
                    group.prefix + text, Span(start, max(start, min(end, window.end))), min(1.0, max(0.0, confidence))
                )
            )
        return words

    def _groups(self, tokens: Iterable[Token]) -> list[_WordTokens]:
        groups: list[_WordTokens] = []
        after_space = True
        for token in tokens:
            entry = self._entries[token.id]
            if not entry.is_text:
                continue
            if entry.is_space:
                after_space = True
                continue
            text = entry.text
            before = self._text(groups[-1]) if groups else ""
            if text and text[0] in _CLOSING and groups:
                if not before and len(groups) > 1:  # only a space before the punctuation
                    groups.pop()
                groups[-1].tokens.append(token)
            elif after_space or entry.starts_word:
                groups.append(_WordTokens("" if text and is_unspaced(text[0]) else " ", [token]))
            elif _separates(before, text):
                groups.append(_WordTokens("", [token]))
            else:
                groups[-1].tokens.append(token)
            after_space = False
        return groups

    def _text(self, group: _WordTokens) -> str:
        content = b"".join(self._entries[token.id].content for token in group.tokens)
        return content.decode("utf-8", "ignore")

    def _pronounced(self, group: _WordTokens) -> list[Token]:
        """Return the tokens that are pronounced: times and probabilities of punctuation say little about the word."""
        return [token for token in group.tokens if self._entries[token.id].is_pronounced] or group.tokens


def _separates(before: str, text: str) -> bool:
    """Return whether a new word starts between two tokens that have no space between them."""
    if not before or not text or continues_word(before, text):
        return False
    return is_unspaced(text[0]) or is_unspaced(before[-1])


def _entry(token: str, sentence_piece: bool, word_piece: bool) -> _VocabularyEntry:
    if _SPECIAL.fullmatch(token):
        return _VocabularyEntry(b"", is_text=False)
    if sentence_piece:
        if byte := _BYTE.fullmatch(token):
            return _VocabularyEntry(bytes([int(byte[1], 16)]))
        return _VocabularyEntry(token.replace("▁", "").encode(), starts_word=token.startswith("▁"))
    if word_piece:
        return _VocabularyEntry(token.removeprefix("##").encode(), starts_word=not token.startswith("##"))
    return _VocabularyEntry(b"", is_space=True) if token.isspace() else _VocabularyEntry(token.encode())
