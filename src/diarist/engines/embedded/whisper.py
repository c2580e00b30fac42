"""The embedded recognizer: Whisper in CTranslate2, in batches of speech alone.

Radford et al., "Robust speech recognition via large-scale weak supervision" (2022). The model, its tokenizer, its
features and the alignment of words come from faster-whisper. The chunks, the batches, and the second pass over speech
without words are Diarist's own, since batches of long windows drop whole utterances.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from ctranslate2 import StorageView
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_suppressed_tokens
from numpy.typing import NDArray

from diarist.engines.chunking import pack
from diarist.engines.device import CPU, Device
from diarist.engines.embedded.allocator import heap_of_large_blocks
from diarist.engines.embedded.decoding_windows import DecodingWindow, decoding_windows
from diarist.engines.embedded.parallel import ProgressRelay, map_in_order
from diarist.engines.embedded.second_pass import Gap, uncovered_speech
from diarist.engines.embedded.whisper_device import OpenedModel, open_model
from diarist.engines.embedded.whisper_features import log_mel
from diarist.engines.embedded.whisper_model import WhisperShape, load_whisper
from diarist.engines.embedded.word_merging import insert, join
from diarist.engines.embedded.word_times import in_sequence, place, trim_to_speech
from diarist.engines.word_boundaries import continues_word
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

ALIGNMENT_SHARE = 0.2
"""The share of the alignment of words in the time of a batch after the encoder; it comes last."""


@dataclass(frozen=True, slots=True)
class DecodingOptions:
    """The parameters of the recognizer. ``docs/experiments.md`` gives the effect of each of them."""

    beam_size: int = 5
    batch_size: int = 8
    """The maximum number of chunks that are decoded at once; large models decode fewer."""

    max_chunk: Seconds = 27.0
    """The maximum length of a chunk."""

    max_pause: Seconds = 4.0
    """A longer pause always ends a chunk."""

    margin: Seconds = 0.4
    """The audio that is added before and after a chunk's speech."""

    overlap: Seconds = 0.4
    """The audio that two chunks share where speech without a pause is cut."""

    search: Seconds = 1.0
    """The maximum distance of such a cut from its even position in favor of a quieter one."""

    padding: Seconds = 10.0
    """The silence after the longest chunk of a batch, as far as ``max_input`` allows. With less, Whisper repeats
    itself; with more, up to the 30 s that it was trained on, the encoder processes nothing but silence."""

    max_input: Seconds = 28.8
    """The maximum length of a chunk with its padding."""

    max_compression_ratio: float = 2.4
    """A text with a higher compression ratio is a repetition loop (Whisper's own threshold)."""

    min_uncovered: Seconds = 1.0
    """Speech of this length without a word is recognized again in a second pass."""

    min_log_probability: float = -1.0
    """A reading with a lower mean log probability of its tokens, of audio that is also more likely silent than
    ``max_silence_probability``, is dropped. Both thresholds are Whisper's own."""

    max_silence_probability: float = 0.6


class WhisperRecognizer:
    """Recognition on the CPU or on a GPU. It keeps no state between calls, except for the batch size that fits.

    Args:
        folder: The files of a model as they are published.
        threads: The number of threads.
        options: The parameters of the recognizer.
        languages: The languages of the model: those of its tokens may be more.
        device: The device that the model runs on.
    """

    def __init__(
        self,
        folder: Path,
        threads: int,
        options: DecodingOptions = DecodingOptions(),
        *,
        languages: Sequence[str],
        device: Device = CPU,
    ) -> None:
        def open_with(shape: WhisperShape) -> OpenedModel:
            size = shape.batch_size(options.batch_size, options.max_input, options.beam_size)
            return open_model(folder, device, threads, size)

        self.languages = tuple(sorted(languages))
        opened, shape = load_whisper(folder, self.languages, open_with)
        self._model, self._workers, self._limit = opened.model, opened.workers, opened.limit
        self._encoder_share = shape.encoder_share
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

        windows = self._windows(audio, chunks)
        words = join(windows, self._transcribe(audio, windows, tokenizer, report_first))
        words = trim_to_speech(in_sequence(self._placed(audio, words)), speech)
        gaps = uncovered_speech(chunks, speech, words, options.min_uncovered)
        if gaps:
            words = self._with_gaps(audio, words, gaps, tokenizer, report_second)
        progress("recognition", 1.0)
        return Recognition(clamp_to(words, audio.duration), language, probability)

    def _windows(self, audio: Audio, chunks: Sequence[Span]) -> tuple[DecodingWindow, ...]:
        options = self._options
        return decoding_windows(audio, chunks, margin=options.margin, overlap=options.overlap, search=options.search)

    def _with_gaps(
        self,
        audio: Audio,
        words: Sequence[RecognizedWord],
        gaps: Sequence[Gap],
        tokenizer: Tokenizer,
        report: Callable[[float], None],
    ) -> list[RecognizedWord]:
        """Return the words with those that a second pass finds in the gaps."""
        parts = [(gap, part) for gap in gaps for part in pack([gap.span], self._options.max_chunk, 0.0)]
        windows = self._windows(audio, [part for _, part in parts])
        readings = self._transcribe(audio, windows, tokenizer, report)
        blocks: dict[Gap, list[RecognizedWord]] = {}
        for gap in gaps:
            own = [i for i, (of, _) in enumerate(parts) if of == gap]
            block = join([windows[i] for i in own], [readings[i] for i in own])
            blocks[gap] = self._placed(audio, block)
        return in_sequence(insert(words, blocks))

    def _placed(self, audio: Audio, words: Sequence[RecognizedWord]) -> list[RecognizedWord]:
        return [place(word, audio) for word in words]

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
        _, _, probabilities = self._model.detect_language(features=features)
        return next((language, float(share)) for language, share in probabilities if language in self.languages)

    def _transcribe(
        self,
        audio: Audio,
        windows: Sequence[DecodingWindow],
        tokenizer: Tokenizer,
        report: Callable[[float], None],
    ) -> list[list[RecognizedWord]]:
        """Return the words of each window."""
        batches = batch_by_length([window.span for window in windows], self._limit.batch_size)
        costs = [len(spans) * self._input_length(spans) for spans in batches]
        done = [0.0] * len(batches)

        def report_batch(batch: int, share: float) -> None:
            done[batch] = share
            report(min(1.0, sum(share * cost for share, cost in zip(done, costs, strict=True)) / sum(costs)))

        relay = ProgressRelay(report_batch)

        def decode(batch: int) -> list[list[RecognizedWord]]:
            report = partial(relay.post, batch)
            words = self._limit.run(batches[batch], lambda spans: self._decode_batch(audio, spans, tokenizer, report))
            relay.post(batch, 1.0)
            return words

        readings: dict[Span, list[RecognizedWord]] = {}
        results = map_in_order(decode, range(len(batches)), self._workers, relay)
        with heap_of_large_blocks, closing(results):
            for spans, result in zip(batches, results, strict=True):
                readings |= zip(spans, result, strict=True)
        return [readings[window.span] for window in windows]

    def _decode_batch(
        self,
        audio: Audio,
        spans: Sequence[Span],
        tokenizer: Tokenizer,
        report: Callable[[float], None],
    ) -> list[list[RecognizedWord]]:
        rows: list[NDArray[np.float32]] = []
        for span in spans:
            rows.append(self._encode(audio, span, self._input_length(spans)))
            report(self._encoder_share * len(rows) / len(spans))
        heap_of_large_blocks.release_free_memory()
        prompt = self._model.get_prompt(tokenizer, [])
        decoded = self._generate(np.concatenate(rows), [prompt] * len(spans))
        for i, own in enumerate(decoded):
            if _is_repetitive(_text(tokenizer, own), self._options.max_compression_ratio):
                # Forbidding the repetition of three tokens breaks the loop.
                alone = self._encode(audio, spans[i], self._input_length([spans[i]]))
                decoded[i] = self._generate(alone, [prompt], no_repeat_ngram_size=3)[0]
        heap_of_large_blocks.release_free_memory()
        readings: list[list[RecognizedWord]] = []
        for aligned, (span, row, own) in enumerate(zip(spans, rows, decoded, strict=True)):
            report(1 - ALIGNMENT_SHARE * (1 - self._encoder_share) * (1 - aligned / len(spans)))
            if self._is_silence(own):
                readings.append([])
                continue
            text_tokens = [token for token in own.tokens if token < tokenizer.eot]
            # The alignment uses every other frame, and fails without any.
            frames = max(2, round(span.duration * FRAMES_PER_SECOND))
            (alignment,) = self._model.find_alignment(tokenizer, [text_tokens], StorageView.from_array(row), [frames])
            readings.append(whole_words(alignment, span.start + ALIGNMENT_LEAD_S))
        return readings

    def _input_length(self, spans: Sequence[Span]) -> Seconds:
        """Return the length to which the spans of one batch are padded with silence."""
        options = self._options
        longest = max(span.duration for span in spans)
        return max(longest, min(longest + options.padding, options.max_input))

    def _encode(self, audio: Audio, span: Span, length: Seconds) -> NDArray[np.float32]:
        """Return the encoder output of a span, padded with silence to ``length``: (1, frames, values).

        One span at a time: the attention matrix grows with the square of the length, so a whole batch does not fit the
        processor's caches. The values are the same, in a third less time and 240 MB less memory for eight of 22 s.
        """
        count = round(length * SAMPLE_RATE)
        samples = audio.cut(span).samples[:count]
        features = log_mel(self._model.feature_extractor, np.pad(samples, (0, count - len(samples))))
        batch = StorageView.from_array(np.ascontiguousarray(features[None]))
        # Through the CPU, since NumPy cannot read the memory of a GPU.
        return np.array(self._model.model.encode(batch, to_cpu=True))

    def _generate(self, encoded: NDArray[np.float32], prompts: list[list[int]], **options: int) -> list[_Reading]:
        results = self._model.model.generate(
            StorageView.from_array(encoded), prompts, beam_size=self._options.beam_size,
            max_length=self._model.max_length, suppress_blank=True, suppress_tokens=self._suppressed,
            return_scores=True, return_no_speech_prob=True, **options,
        )  # fmt: skip
        return [
            _Reading(tuple(result.sequences_ids[0]), float(result.scores[0]), float(result.no_speech_prob))
            for result in results
        ]

    def _is_silence(self, reading: _Reading) -> bool:
        improbable = reading.log_probability < self._options.min_log_probability
        return improbable and reading.silence_probability > self._options.max_silence_probability


@dataclass(frozen=True, slots=True)
class _Reading:
    """What the decoder made of one window."""

    tokens: tuple[int, ...]
    log_probability: float
    """The mean over the tokens."""

    silence_probability: float
    """The probability that nobody speaks, as the model gives it before the first token."""


def batch_by_length(spans: Sequence[Span], max_size: int) -> list[list[Span]]:
    """Divide spans into batches of at most ``max_size``, longer ones first: a batch takes as long as its longest span.

    Batches are as even as possible, and their number is even if there are two spans or more, so that two workers have
    equal work. It does not depend on the number of workers, so that the words do not either.
    """
    ordered = sorted(spans, key=lambda span: (-span.duration, span))
    count = min(len(ordered), 2 * -(-len(ordered) // (2 * max_size)))
    edges = [len(ordered) * i // count for i in range(count + 1)] if count else []
    return [ordered[first:stop] for first, stop in pairwise(edges)]


def _text(tokenizer: Tokenizer, reading: _Reading) -> str:
    return str(tokenizer.decode(list(reading.tokens)))


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


def whole_words(alignment: Sequence[Mapping[str, Any]], offset: Seconds) -> list[RecognizedWord]:
    """Return the words of an alignment, each with its punctuation and with all parts of its last character.

    Punctuation takes no time: Whisper gives it the pause after the word.

    Args:
        alignment: The parts of words of ``WhisperModel.find_alignment``, in order, with times in seconds.
        offset: The time in the recording from which these times count.
    """
    words: list[RecognizedWord] = []
    prefix = space = ""
    for part in alignment:
        own = str(part["word"])
        text = space + own
        start, end = float(part["start"]) + offset, float(part["end"]) + offset
        probability = min(1.0, max(0.0, float(part["probability"])))
        before = words[-1] if words and not prefix else None
        # In scripts without spaces between words, a space between sentences is a part of its own.
        space = "" if text.strip() else text
        if space:
            continue
        if text[0].isspace() and text.strip() in PREPEND_PUNCTUATIONS:
            prefix += text
        elif before is not None and own in APPEND_PUNCTUATIONS:
            words[-1] = replace(before, text=before.text + own)
        elif before is not None and continues_word(before.text, text):
            span = Span(before.span.start, max(before.span.end, end))
            words[-1] = RecognizedWord(before.text + text, span, min(before.confidence, probability))
        else:
            joined = prefix + text.lstrip() if prefix else text
            words.append(RecognizedWord(joined, Span(start, max(start, end)), probability))
            prefix = ""
    return words


def clamp_to(words: Sequence[RecognizedWord], duration: Seconds) -> tuple[RecognizedWord, ...]:
    """Return the words with spans within the recording."""
    return tuple(replace(word, span=word.span.clamp(0.0, duration)) for word in words)
