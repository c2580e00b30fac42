"""The embedded recogniser: Whisper in CTranslate2, in batches over speech alone.

Radford et al., "Robust speech recognition via large-scale weak supervision" (2022). The model, its tokenizer, its
features and the alignment of words come from faster-whisper; the cutting, the batches and the second look at what was
passed over are ours, since batches over long windows drop whole utterances.
"""

from __future__ import annotations

import zlib
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
from ctranslate2 import StorageView
from faster_whisper import WhisperModel
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_suppressed_tokens, merge_punctuations
from numpy.typing import NDArray

from diarist.engines.chunking import pack
from diarist.engines.embedded.parallel import Relay, Streams, in_order
from diarist.engines.embedded.whisper_features import log_mel
from diarist.errors import InvalidOption
from diarist.protocols import LANGUAGE_DETECTION_COST_S
from diarist.types import SAMPLE_RATE, Audio, Progress, Recognition, RecognizedWord, Seconds, Span

PREPENDED = "\"'“¿([{-"
APPENDED = "\"'.。,，!！?？:：”)]}、"
FRAMES_A_SECOND = 100
EARLY: Seconds = 0.05
"""Whisper's alignment runs ahead: the median over 488 words of meetings, against the corpus' own times."""

WHISPER_WINDOW: Seconds = 30.0

ENCODING = 0.45
"""Share of a batch's time that the encoder takes: makes progress move within it."""

ALIGNING = 0.1
"""The same of the words' times, which come last."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """The numbers of the recogniser. What each one was worth is told in ``docs/accuracy.md``."""

    beam: int = 5
    batch: int = 8
    longest: Seconds = 16.0
    """Longest chunk."""

    pause: Seconds = 4.0
    """A longer pause always ends a chunk."""

    margin: Seconds = 0.2
    """What is heard before and after a chunk's speech."""

    tail: Seconds = 6.0
    """Silence after the longest chunk of a batch: with less Whisper says things twice, and with more, up to the 30 s
    that it was trained on, the encoder works on nothing. Its time grows faster than the length."""

    least_tail: Seconds = 4.0
    """Where ``tail`` would make more than ``roomy``, as much less of it."""

    roomy: Seconds = 20.4
    """Up to here what the encoder compares at once (8 heads, the square of 50 frames a second, 4 bytes) stays below
    32 MiB, from which on glibc gives memory back to the system after every use: 21.5 s take half as long again."""

    word: Seconds = 0.7
    """A short word rarely lasts longer; the rest of its span is a pause, or speech that was passed over."""

    repeats: float = 2.4
    """A text that shrinks by more than this when compressed is a loop (Whisper's own threshold)."""

    passed_over: Seconds = 1.0
    """Speech of this length without a word is looked at again."""


class WhisperRecognizer:
    """Recognition on the CPU. Keeps no state between calls."""

    def __init__(self, folder: Path, threads: int, decoding: Decoding = Decoding()) -> None:
        streams = Streams.of(threads, most=2 if threads < 8 else 4)
        self._model = WhisperModel(
            str(folder), device="cpu", compute_type="int8", cpu_threads=streams.threads, num_workers=streams.count
        )
        self._streams = streams.count
        self._decoding = decoding
        self._suppressed = get_suppressed_tokens(self._tokenizer("en"), [-1])

    def recognize(self, audio: Audio, speech: Sequence[Span], language: str | None, progress: Progress) -> Recognition:
        if not speech:
            return Recognition()
        progress("recognition", 0.0)
        chunks = pack(speech, self._decoding.longest, self._decoding.pause)
        detects = language is None and len(self.languages) > 1
        first = (
            LANGUAGE_DETECTION_COST_S / (LANGUAGE_DETECTION_COST_S + sum(span.duration for span in speech))
            if detects
            else 0.0
        )
        language, probability = self._language(audio, speech, language)
        progress("recognition", 0.95 * first)
        tokenizer = self._tokenizer(language)
        words = self._read(
            audio, chunks, tokenizer, lambda done: progress("recognition", 0.95 * (first + (1 - first) * done))
        )
        words = [shorten(word, self._decoding.word) for word in words]
        again = pack(passed_over(chunks, speech, words, self._decoding.passed_over), self._decoding.longest, 0.0)
        if again:
            words += self._read(audio, again, tokenizer, lambda done: progress("recognition", 0.95 + 0.05 * done))
        progress("recognition", 1.0)
        return Recognition(by_start(words, audio.duration), language, probability)

    @property
    def languages(self) -> tuple[str, ...]:
        return tuple(sorted(self._model.supported_languages))

    def _tokenizer(self, language: str) -> Tokenizer:
        model = self._model
        return Tokenizer(model.hf_tokenizer, model.model.is_multilingual, task="transcribe", language=language)

    def _language(self, audio: Audio, speech: Sequence[Span], wanted: str | None) -> tuple[str, float]:
        """The language asked for, or the one that is heard, and its probability."""
        known = self.languages
        if wanted is not None:
            if wanted not in known:
                raise InvalidOption(f"language {wanted!r} is not one that this model knows: {', '.join(known)}")
            return wanted, 1.0
        return (known[0], 1.0) if len(known) == 1 else self.detect(audio, speech)

    def detect(self, audio: Audio, speech: Sequence[Span]) -> tuple[str, float]:
        """The language that the first 30 s of speech sound like, and its probability."""
        heard = np.zeros(round(WHISPER_WINDOW * SAMPLE_RATE), dtype=np.float32)
        filled = 0
        for span in speech:
            piece = audio.cut(span).samples[: len(heard) - filled]
            heard[filled : filled + len(piece)] = piece
            filled += len(piece)
            if filled == len(heard):
                break
        features = log_mel(self._model.feature_extractor, heard)
        language, probability, _ = self._model.detect_language(features=features)
        return language, float(probability)

    def _read(
        self, audio: Audio, chunks: Sequence[Span], tokenizer: Tokenizer, report: Callable[[float], None]
    ) -> list[RecognizedWord]:
        """The words of all chunks; those of longer chunks first."""
        batches = by_length([self._piece(audio, chunk) for chunk in chunks], self._decoding.batch)
        costs = [len(pieces) * self._length(pieces) for pieces in batches]
        done = [0.0] * len(batches)

        def note(batch: int, part: float) -> None:
            done[batch] = part
            report(min(1.0, sum(part * cost for part, cost in zip(done, costs, strict=True)) / sum(costs)))

        relay = Relay(note)

        def decode(batch: int) -> list[RecognizedWord]:
            words = self._decode(audio, batches[batch], tokenizer, partial(relay.post, batch))
            relay.post(batch, 1.0)
            return words

        with closing(in_order(decode, range(len(batches)), self._streams, relay)) as found:
            return [word for words in found for word in words]

    def _piece(self, audio: Audio, chunk: Span) -> Span:
        margin = self._decoding.margin
        return Span(chunk.start - margin, chunk.end + margin).clamp(0.0, audio.duration)

    def _decode(
        self, audio: Audio, pieces: Sequence[Span], tokenizer: Tokenizer, report: Callable[[float], None]
    ) -> list[RecognizedWord]:
        rows: list[NDArray[np.float32]] = []
        for piece in pieces:
            rows.append(self._encode(audio, piece, self._length(pieces)))
            report(ENCODING * len(rows) / len(pieces))
        prompt = self._model.get_prompt(tokenizer, [], without_timestamps=True)
        tokens = self._generate(np.concatenate(rows), [prompt] * len(pieces))
        loops = [i for i, found in enumerate(tokens) if _loops(tokenizer.decode(found), self._decoding.repeats)]
        for i in loops:  # a loop is broken by forbidding the repetition of three tokens
            alone = self._encode(audio, pieces[i], self._length([pieces[i]]))
            tokens[i] = self._generate(alone, [prompt], no_repeat_ngram_size=3)[0]
        words: list[RecognizedWord] = []
        for aligned, (piece, row, found) in enumerate(zip(pieces, rows, tokens, strict=True)):
            report(1 - ALIGNING * (1 - aligned / len(pieces)))
            spoken = [token for token in found if token < tokenizer.eot]
            # the alignment sees every other frame, and fails without any
            frames = max(2, round(piece.duration * FRAMES_A_SECOND))
            (alignment,) = self._model.find_alignment(tokenizer, [spoken], StorageView.from_array(row), [frames])
            merge_punctuations(alignment, PREPENDED, APPENDED)
            words += [
                RecognizedWord(
                    word["word"],
                    Span(float(word["start"]), max(float(word["end"]), float(word["start"]))).shift(
                        piece.start + EARLY
                    ),
                    min(1.0, max(0.0, float(word["probability"]))),
                )
                for word in alignment
                if word["word"].strip()
            ]
        return words

    def _length(self, pieces: Sequence[Span]) -> Seconds:
        """What pieces of one batch are filled up to with silence."""
        longest = max(piece.duration for piece in pieces)
        tail = min(self._decoding.tail, max(self._decoding.least_tail, self._decoding.roomy - longest))
        return min(WHISPER_WINDOW, longest + tail)

    def _encode(self, audio: Audio, piece: Span, length: Seconds) -> NDArray[np.float32]:
        """Encoder output of a piece, filled up with silence to ``length``: (1, frames, values).

        One piece at a time: what the encoder compares grows with the square of the length, so a batch leaves the
        processor's caches. The values are the same, in a third less time and 240 MB less memory for eight of 22 s.
        """
        samples = round(length * SAMPLE_RATE)
        cut = audio.cut(piece).samples[:samples]
        features = log_mel(self._model.feature_extractor, np.pad(cut, (0, samples - len(cut))))
        return np.array(self._model.encode(features[None]))

    def _generate(self, encoded: NDArray[np.float32], prompts: list[list[int]], **options: int) -> list[list[int]]:
        results = self._model.model.generate(
            StorageView.from_array(encoded), prompts, beam_size=self._decoding.beam, max_length=self._model.max_length,
            suppress_blank=True, suppress_tokens=self._suppressed, **options,
        )  # fmt: skip
        return [list(result.sequences_ids[0]) for result in results]


def by_length(pieces: Sequence[Span], most: int) -> list[list[Span]]:
    """Pieces in batches of at most ``most``, longer ones first: a batch takes as long as its longest piece.

    Batches are as even as can be, and an even number of them where there are two pieces or more, so that two streams
    have the same to do. Their number does not go by that of the streams, so that no word does.
    """
    ordered = sorted(pieces, key=lambda piece: (-piece.duration, piece))
    count = min(len(ordered), 2 * -(-len(ordered) // (2 * most)))
    edges = [len(ordered) * i // count for i in range(count + 1)] if count else []
    return [ordered[first:stop] for first, stop in pairwise(edges)]


def _loops(text: str, ratio: float, least: int = 6) -> bool:
    """Whether a text shrinks by more than ``ratio``, or says ``least`` words or more twice on end."""
    raw = text.encode()
    return (len(raw) > 0 and len(raw) / len(zlib.compress(raw)) > ratio) or _says_twice(text, least)


def _says_twice(text: str, least: int) -> bool:
    words = [word.strip(".,!?;:\"'") for word in text.lower().split()]
    for length in range(least, len(words) // 2 + 1):
        alike = 0
        for word, later in zip(words, words[length:], strict=False):
            alike = alike + 1 if word == later else 0
            if alike == length:
                return True
    return False


def shorten(word: RecognizedWord, longest: Seconds) -> RecognizedWord:
    """The word with an end that is no later than such a word takes to say: 0.1 s a letter where that is more."""
    allowed = max(longest, 0.1 * len(word.text.strip()))
    return RecognizedWord(
        word.text, Span(word.span.start, min(word.span.end, word.span.start + allowed)), word.confidence
    )


def passed_over(
    chunks: Sequence[Span], speech: Sequence[Span], words: Sequence[RecognizedWord], least: Seconds
) -> tuple[Span, ...]:
    """Speech of at least ``least`` seconds in which no word was found, but for chunks that hold no word at all.

    A chunk without any word is left: there the model heard it and said that nobody speaks.
    """
    spans = sorted(word.span for word in words)
    starts, ends = [span.start for span in spans], list(accumulate((span.end for span in spans), max))

    def holds_words(chunk: Span) -> bool:
        last = bisect_left(starts, chunk.end) - 1
        return last >= 0 and (starts[last] >= chunk.start or ends[last] > chunk.start)

    heard = [chunk for chunk in chunks if holds_words(chunk)]
    left: list[Span] = []
    at, following = 0.0, 0
    for span in speech:
        at = max(at, span.start)
        while following < len(spans) and starts[following] < span.end:
            left.append(Span(at, max(at, starts[following])))
            at = max(at, ends[following])
            following += 1
        left.append(Span(min(at, span.end), span.end))
    return tuple(gap for gap in left if gap.duration >= least and any(chunk.overlap(gap) > 0 for chunk in heard))


def by_start(words: Sequence[RecognizedWord], duration: Seconds) -> tuple[RecognizedWord, ...]:
    """Words by start, within the recording."""
    clamped = [RecognizedWord(w.text, w.span.clamp(0.0, duration), w.confidence) for w in words]
    return tuple(sorted(clamped, key=lambda w: (w.span.start, w.span.end)))
