"""The embedded recognizer: Whisper in CTranslate2, in batches of speech alone.

Radford et al., "Robust speech recognition via large-scale weak supervision" (2022). The model, its tokenizer, its
features and the alignment of words come from faster-whisper. The chunks, the batches, and the second pass over speech
without words are Diarist's own, since batches of long windows drop whole utterances.
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
from diarist.engines.embedded.parallel import Parallelism, ProgressRelay, map_in_order
from diarist.engines.embedded.whisper_features import log_mel
from diarist.errors import InvalidOption
from diarist.protocols import LANGUAGE_DETECTION_COST_S
from diarist.types import SAMPLE_RATE, Audio, Progress, Recognition, RecognizedWord, Seconds, Span

PREPEND_PUNCTUATIONS = "\"'“¿([{-"
APPEND_PUNCTUATIONS = "\"'.。,，!！?？:：”)]}、"
FRAMES_PER_SECOND = 100
ALIGNMENT_LEAD_S: Seconds = 0.05
"""Whisper's alignment is this early: the median over 488 words of meetings, relative to the corpus' own times."""

WHISPER_WINDOW_S: Seconds = 30.0

FIRST_PASS_SHARE = 0.95
"""The share of the first pass in the progress; the second pass has the rest."""

ENCODER_SHARE = 0.45
"""The share of the encoder in a batch's time, for the progress within a batch."""

ALIGNMENT_SHARE = 0.1
"""The share of the alignment of words in a batch's time; it comes last."""


@dataclass(frozen=True, slots=True)
class DecodingOptions:
    """The parameters of the recognizer. ``docs/accuracy.md`` gives the effect of each of them."""

    beam_size: int = 5
    batch_size: int = 8
    max_chunk: Seconds = 16.0
    """The maximum length of a chunk."""

    max_pause: Seconds = 4.0
    """A longer pause always ends a chunk."""

    margin: Seconds = 0.2
    """The audio that is added before and after a chunk's speech."""

    padding: Seconds = 6.0
    """The silence after the longest chunk of a batch. With less, Whisper repeats itself; with more, up to the 30 s that
    it was trained on, the encoder processes nothing but silence. Its time grows faster than the length."""

    min_padding: Seconds = 4.0
    """The lower limit of the padding where ``padding`` would exceed ``max_input``."""

    max_input: Seconds = 20.4
    """Up to this length the encoder's attention matrix (8 heads, the square of 50 frames per second, 4 bytes) stays
    below 32 MiB, from which on glibc returns memory to the system after every use: 21.5 s take half as long again."""

    max_word: Seconds = 0.7
    """A short word rarely lasts longer: the rest of its span is a pause, or speech without a word."""

    max_compression_ratio: float = 2.4
    """A text with a higher compression ratio is a repetition loop (Whisper's own threshold)."""

    min_uncovered: Seconds = 1.0
    """Speech of this length without a word is recognized again in a second pass."""


class WhisperRecognizer:
    """Recognition on the CPU. It keeps no state between calls."""

    def __init__(self, folder: Path, threads: int, options: DecodingOptions = DecodingOptions()) -> None:
        parallelism = Parallelism.of(threads, max_workers=2 if threads < 8 else 4)
        self._model = WhisperModel(
            str(folder), device="cpu", compute_type="int8", cpu_threads=parallelism.threads,
            num_workers=parallelism.workers,
        )  # fmt: skip
        self._workers = parallelism.workers
        self._options = options
        self._suppressed = get_suppressed_tokens(self._tokenizer("en"), [-1])

    def recognize(self, audio: Audio, speech: Sequence[Span], language: str | None, progress: Progress) -> Recognition:
        if not speech:
            return Recognition()
        progress("recognition", 0.0)
        options = self._options
        chunks = pack(speech, options.max_chunk, options.max_pause)
        detects = language is None and len(self.languages) > 1
        cost_s = LANGUAGE_DETECTION_COST_S
        detection_share = cost_s / (cost_s + sum(span.duration for span in speech)) if detects else 0.0
        language, probability = self._language(audio, speech, language)
        progress("recognition", FIRST_PASS_SHARE * detection_share)
        tokenizer = self._tokenizer(language)

        def report_first(done: float) -> None:
            progress("recognition", FIRST_PASS_SHARE * (detection_share + (1 - detection_share) * done))

        def report_second(done: float) -> None:
            progress("recognition", FIRST_PASS_SHARE + 0.05 * done)

        words = self._transcribe(audio, chunks, tokenizer, report_first)
        words = [clamp_word_duration(word, options.max_word) for word in words]
        uncovered = pack(uncovered_speech(chunks, speech, words, options.min_uncovered), options.max_chunk, 0.0)
        if uncovered:
            words += self._transcribe(audio, uncovered, tokenizer, report_second)
        progress("recognition", 1.0)
        return Recognition(sort_words(words, audio.duration), language, probability)

    @property
    def languages(self) -> tuple[str, ...]:
        return tuple(sorted(self._model.supported_languages))

    def _tokenizer(self, language: str) -> Tokenizer:
        model = self._model
        return Tokenizer(model.hf_tokenizer, model.model.is_multilingual, task="transcribe", language=language)

    def _language(self, audio: Audio, speech: Sequence[Span], requested: str | None) -> tuple[str, float]:
        """Return the language that is requested or detected, and its probability."""
        supported = self.languages
        if requested is not None:
            if requested not in supported:
                raise InvalidOption(
                    f"This model does not support the language {requested!r}; it supports {', '.join(supported)}."
                )
            return requested, 1.0
        return (supported[0], 1.0) if len(supported) == 1 else self.detect(audio, speech)

    def detect(self, audio: Audio, speech: Sequence[Span]) -> tuple[str, float]:
        """Return the language of the first 30 s of speech, and its probability."""
        samples = np.zeros(round(WHISPER_WINDOW_S * SAMPLE_RATE), dtype=np.float32)
        filled = 0
        for span in speech:
            part = audio.cut(span).samples[: len(samples) - filled]
            samples[filled : filled + len(part)] = part
            filled += len(part)
            if filled == len(samples):
                break
        features = log_mel(self._model.feature_extractor, samples)
        language, probability, _ = self._model.detect_language(features=features)
        return language, float(probability)

    def _transcribe(
        self, audio: Audio, chunks: Sequence[Span], tokenizer: Tokenizer, report: Callable[[float], None]
    ) -> list[RecognizedWord]:
        """Return the words of all chunks; those of longer chunks come first."""
        batches = batch_by_length([self._with_margin(audio, chunk) for chunk in chunks], self._options.batch_size)
        costs = [len(spans) * self._input_length(spans) for spans in batches]
        done = [0.0] * len(batches)

        def report_batch(batch: int, share: float) -> None:
            done[batch] = share
            report(min(1.0, sum(share * cost for share, cost in zip(done, costs, strict=True)) / sum(costs)))

        relay = ProgressRelay(report_batch)

        def decode(batch: int) -> list[RecognizedWord]:
            words = self._decode_batch(audio, batches[batch], tokenizer, partial(relay.post, batch))
            relay.post(batch, 1.0)
            return words

        with closing(map_in_order(decode, range(len(batches)), self._workers, relay)) as results:
            return [word for words in results for word in words]

    def _with_margin(self, audio: Audio, chunk: Span) -> Span:
        margin = self._options.margin
        return Span(chunk.start - margin, chunk.end + margin).clamp(0.0, audio.duration)

    def _decode_batch(
        self, audio: Audio, spans: Sequence[Span], tokenizer: Tokenizer, report: Callable[[float], None]
    ) -> list[RecognizedWord]:
        rows: list[NDArray[np.float32]] = []
        for span in spans:
            rows.append(self._encode(audio, span, self._input_length(spans)))
            report(ENCODER_SHARE * len(rows) / len(spans))
        prompt = self._model.get_prompt(tokenizer, [], without_timestamps=True)
        tokens = self._generate(np.concatenate(rows), [prompt] * len(spans))
        for i, own in enumerate(tokens):
            if _is_repetitive(tokenizer.decode(own), self._options.max_compression_ratio):
                # Forbidding the repetition of three tokens breaks the loop.
                alone = self._encode(audio, spans[i], self._input_length([spans[i]]))
                tokens[i] = self._generate(alone, [prompt], no_repeat_ngram_size=3)[0]
        words: list[RecognizedWord] = []
        for aligned, (span, row, own) in enumerate(zip(spans, rows, tokens, strict=True)):
            report(1 - ALIGNMENT_SHARE * (1 - aligned / len(spans)))
            text_tokens = [token for token in own if token < tokenizer.eot]
            # The alignment uses every other frame, and fails without any.
            frames = max(2, round(span.duration * FRAMES_PER_SECOND))
            (alignment,) = self._model.find_alignment(tokenizer, [text_tokens], StorageView.from_array(row), [frames])
            merge_punctuations(alignment, PREPEND_PUNCTUATIONS, APPEND_PUNCTUATIONS)
            words += [
                RecognizedWord(
                    word["word"],
                    Span(float(word["start"]), max(float(word["end"]), float(word["start"]))).shift(
                        span.start + ALIGNMENT_LEAD_S
                    ),
                    min(1.0, max(0.0, float(word["probability"]))),
                )
                for word in alignment
                if word["word"].strip()
            ]
        return words

    def _input_length(self, spans: Sequence[Span]) -> Seconds:
        """Return the length to which the spans of one batch are padded with silence."""
        options = self._options
        longest = max(span.duration for span in spans)
        padding = min(options.padding, max(options.min_padding, options.max_input - longest))
        return min(WHISPER_WINDOW_S, longest + padding)

    def _encode(self, audio: Audio, span: Span, length: Seconds) -> NDArray[np.float32]:
        """Return the encoder output of a span, padded with silence to ``length``: (1, frames, values).

        One span at a time: the attention matrix grows with the square of the length, so a whole batch does not fit the
        processor's caches. The values are the same, in a third less time and 240 MB less memory for eight of 22 s.
        """
        count = round(length * SAMPLE_RATE)
        samples = audio.cut(span).samples[:count]
        features = log_mel(self._model.feature_extractor, np.pad(samples, (0, count - len(samples))))
        return np.array(self._model.encode(features[None]))

    def _generate(self, encoded: NDArray[np.float32], prompts: list[list[int]], **options: int) -> list[list[int]]:
        results = self._model.model.generate(
            StorageView.from_array(encoded), prompts, beam_size=self._options.beam_size,
            max_length=self._model.max_length, suppress_blank=True, suppress_tokens=self._suppressed, **options,
        )  # fmt: skip
        return [list(result.sequences_ids[0]) for result in results]


def batch_by_length(spans: Sequence[Span], max_size: int) -> list[list[Span]]:
    """Divide spans into batches of at most ``max_size``, longer ones first: a batch takes as long as its longest span.

    Batches are as even as possible, and their number is even if there are two spans or more, so that two workers have
    equal work. It does not depend on the number of workers, so that the words do not either.
    """
    ordered = sorted(spans, key=lambda span: (-span.duration, span))
    count = min(len(ordered), 2 * -(-len(ordered) // (2 * max_size)))
    edges = [len(ordered) * i // count for i in range(count + 1)] if count else []
    return [ordered[first:stop] for first, stop in pairwise(edges)]


def _is_repetitive(text: str, max_compression_ratio: float, min_words: int = 6) -> bool:
    """Return whether a text compresses by more than the ratio, or repeats a phrase of at least ``min_words``."""
    raw = text.encode()
    compressed = len(raw) > 0 and len(raw) / len(zlib.compress(raw)) > max_compression_ratio
    return compressed or _repeats_phrase(text, min_words)


def _repeats_phrase(text: str, min_words: int) -> bool:
    """Return whether a phrase of at least this number of words occurs twice in succession."""
    words = [word.strip(".,!?;:\"'") for word in text.lower().split()]
    for length in range(min_words, len(words) // 2 + 1):
        equal = 0
        for word, later in zip(words, words[length:], strict=False):
            equal = equal + 1 if word == later else 0
            if equal == length:
                return True
    return False


def clamp_word_duration(word: RecognizedWord, max_word: Seconds) -> RecognizedWord:
    """Return the word with a duration of at most ``max_word``, or 0.1 s per letter if that is more."""
    max_duration = max(max_word, 0.1 * len(word.text.strip()))
    return RecognizedWord(
        word.text, Span(word.span.start, min(word.span.end, word.span.start + max_duration)), word.confidence
    )


def uncovered_speech(
    chunks: Sequence[Span], speech: Sequence[Span], words: Sequence[RecognizedWord], min_duration: Seconds
) -> tuple[Span, ...]:
    """Return the speech of at least ``min_duration`` in which no word was found.

    Speech in chunks without any word is left out: there the model decided that nobody speaks.
    """
    spans = sorted(word.span for word in words)
    starts, ends = [span.start for span in spans], list(accumulate((span.end for span in spans), max))

    def has_words(chunk: Span) -> bool:
        last = bisect_left(starts, chunk.end) - 1
        return last >= 0 and (starts[last] >= chunk.start or ends[last] > chunk.start)

    chunks_with_words = [chunk for chunk in chunks if has_words(chunk)]
    gaps: list[Span] = []
    covered_until, following = 0.0, 0
    for span in speech:
        covered_until = max(covered_until, span.start)
        while following < len(spans) and starts[following] < span.end:
            gaps.append(Span(covered_until, max(covered_until, starts[following])))
            covered_until = max(covered_until, ends[following])
            following += 1
        gaps.append(Span(min(covered_until, span.end), span.end))
    return tuple(
        gap
        for gap in gaps
        if gap.duration >= min_duration and any(chunk.overlap(gap) > 0 for chunk in chunks_with_words)
    )


def sort_words(words: Sequence[RecognizedWord], duration: Seconds) -> tuple[RecognizedWord, ...]:
    """Return the words in order of start, with spans clamped to the recording."""
    clamped = [RecognizedWord(w.text, w.span.clamp(0.0, duration), w.confidence) for w in words]
    return tuple(sorted(clamped, key=lambda w: (w.span.start, w.span.end)))
