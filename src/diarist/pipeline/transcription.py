"""The pipeline from a recording to a transcript. The service, its workers and the command line all call it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TypeAlias

from diarist.audio import DecodeLimits, read_recording
from diarist.audio.muting import mute
from diarist.engines.distributed_chunks import (
    parse_recognition,
    recognition_chunk,
    recognition_range,
    run_distributed,
)
from diarist.errors import InvalidOption
from diarist.pipeline.attribution import Attribution
from diarist.pipeline.confidence_calibration import count_probability
from diarist.pipeline.crosstalk import find_crosstalk, without_crosstalk
from diarist.pipeline.progress import ProgressMeter
from diarist.pipeline.sections import Section, split_into_sections
from diarist.pipeline.speech import ConfirmedSpeech, merged_speech, spans_of_speech
from diarist.pipeline.utterance_finalization import OnFinal, UtteranceFinalizer
from diarist.protocols import (
    LANGUAGE_DETECTION_COST_S,
    RECOGNITION_REACH,
    DistributedDiarizer,
    Engine,
    LanguageDetector,
    Scatter,
    ScatterChunks,
)
from diarist.types import (
    Audio,
    Diarization,
    Progress,
    Recognition,
    Seconds,
    Span,
    SpeakerHints,
    TranscribeOptions,
    Transcript,
    Utterance,
)

_Finalize: TypeAlias = Callable[[Sequence[Utterance], Seconds | None], None]


def transcribe(
    path: Path,
    engine: Engine,
    options: TranscribeOptions,
    progress: Progress,
    limits: DecodeLimits,
    *,
    on_final: OnFinal | None = None,
    scatter: Scatter | None = None,
) -> Transcript:
    """Transcribe a recording: recognize its words, and assign them to speakers.

    Args:
        path: An audio or video file in any supported format.
        engine: The loaded engine.
        options: The options of the caller.
        progress: Called with the name of the stage and the share of the whole work that is done, 0..1, never falling.
            An exception that it raises, such as ``Cancelled``, ends the work and is propagated.
        limits: The limits of the decoder.
        on_final: Called with utterances as soon as nothing can change them any more. All calls together give
            ``Transcript.utterances``. Utterances of separate channels are not final before the last channel.
        scatter: Has other machines process chunks of the work. The transcript is the same.

    Raises:
        InputError: The recording or an option cannot be used.
        DecoderFailed: The decoder crashed, or ran out of time or memory.
    """
    supported = engine.recognizer.languages
    if options.language is not None and supported and options.language not in supported:
        raise InvalidOption(
            f"This model does not support the language {options.language!r}; it supports {', '.join(supported)}."
        )
    meter = ProgressMeter(progress)
    with meter.timed("decode"):
        recording = read_recording(
            path, limits, lambda done: meter.report("decode", done), options.channels, options.track, options.partial,
            options.hints,
        )  # fmt: skip
        channels = recording.channels
        distribute = scatter if scatter is not None and scatter.accept(channels) else None
    duration = max(audio.duration for audio in channels)
    one_speaker_each = recording.channel_choice.used == "separate" or options.track == "all"
    hints = SpeakerHints(num_speakers=1) if one_speaker_each else options.hints
    finalizer = UtteranceFinalizer(len(channels), on_final)
    scatter_chunks = [None if distribute is None else partial(distribute, index) for index in range(len(channels))]
    meter.set_channels(len(channels))
    diarizations: list[Diarization] = []
    with meter.timed("diarization"):
        for index, audio in enumerate(channels):
            meter.start_channel(index)
            diarizations.append(_diarize(audio, engine, hints, meter.report, scatter_chunks[index]))
        crosstalk = _find_crosstalk(channels, diarizations, meter)
        diarizations = list(map(without_crosstalk, diarizations, crosstalk))
    detects = options.language is None and len(engine.recognizer.languages) > 1
    work = [
        _RecognitionWork.of(audio, diarization, other, detects)
        for audio, diarization, other in zip(channels, diarizations, crosstalk, strict=True)
    ]
    meter.set_speech_shares([each.total_cost / each.audio.duration for each in work])
    summaries: list[_ChannelSummary] = []
    extended: list[Diarization] = []
    for index, each in enumerate(work):
        meter.start_channel(index)
        with closing(_recognize(each, engine, options.language, meter, scatter_chunks[index])) as recognitions:
            recognized = zip(each.sections, meter.timed_items("recognition", recognitions), strict=True)
            attribution = Attribution(diarizations[index])
            confirmed = ConfirmedSpeech(diarizations[index])
            summaries.append(_attribute(recognized, attribution, confirmed, partial(finalizer.add, index), meter))
            extended.append(confirmed.extended())
    with meter.timed("attribution"):
        diarization = finalizer.finish(extended)
    main = max(summaries, key=lambda summary: summary.words)
    min_speakers, max_speakers = hints.bounds()
    speakers_confidence = None if min_speakers == max_speakers else count_probability(diarizations[0])
    meter.finish()
    return Transcript(
        utterances=finalizer.utterances,
        diarization=diarization,
        duration=duration,
        language=main.language,
        language_probability=main.language_probability,
        engine=engine.name,
        timings=meter.timings,
        recognizer=next((model.name for model in engine.models if model.role == "recognition"), ""),
        device=engine.device,
        speakers_confidence=speakers_confidence,
        warnings=recording.warnings,
        channels=recording.channel_choice,
        audio_tracks=recording.tracks,
        truncation=recording.truncation,
    )


@dataclass(frozen=True, slots=True)
class _ChannelSummary:
    """The number of words and the language of the sections of a channel so far."""

    words: int = 0
    language: str | None = None
    language_probability: float | None = None

    def extended(self, section: Recognition) -> _ChannelSummary:
        """Return the summary with one more section.

        The language is that of the first words, or of the first section if there are no words.
        """
        words = self.words + len(section.words)
        if self.words or (self.language is not None and not section.words):
            return replace(self, words=words)
        return _ChannelSummary(words, section.language, section.language_probability)


@dataclass(frozen=True, slots=True, eq=False)
class _RecognitionWork:
    """What to recognize in a channel."""

    audio: Audio
    sections: tuple[Section, ...]
    crosstalk: tuple[Span, ...]
    costs: tuple[Seconds, ...]
    """The cost of each section, as a duration of speech."""

    turns: tuple[Span, ...]
    """The time of the turns: ordered, disjoint spans."""

    @classmethod
    def of(
        cls, audio: Audio, diarization: Diarization, crosstalk: tuple[Span, ...], detects_language: bool
    ) -> _RecognitionWork:
        sections = split_into_sections(merged_speech(spans_of_speech(diarization)), audio.duration)
        costs = [section.speech_duration for section in sections]
        if costs and detects_language:
            costs[0] += LANGUAGE_DETECTION_COST_S
        turns = merged_speech(turn.span for turn in diarization.turns)
        return cls(audio, sections, crosstalk, tuple(costs), turns)

    @property
    def total_cost(self) -> Seconds:
        """The cost of all sections; 1 if there are none."""
        return sum(self.costs) or 1.0

    def muted(self, section: Section) -> tuple[Span, ...]:
        """Return the crosstalk that a recognizer of the section may read."""
        start = section.speech[0].start - RECOGNITION_REACH
        end = section.speech[-1].end + RECOGNITION_REACH
        return tuple(span for span in self.crosstalk if span.end > start and span.start < end)

    def certain_speech(self, section: Section) -> Sequence[Span]:
        """Return the turns of a section, or its possible speech if it has none.

        The language is detected in them: possible speech is the faintest, and may be of no language at all.
        """
        start, end = section.speech[0].start, section.speech[-1].end
        turns = [span.clamp(start, end) for span in self.turns if span.end > start and span.start < end]
        return turns or section.speech

    def section_audio(self, section: Section) -> Audio:
        """Return the audio for the recognition of a section, in which crosstalk is muted."""
        muted = self.muted(section)
        return mute(self.audio, muted, *recognition_range(self.audio, section.speech)) if muted else self.audio


def _find_crosstalk(
    channels: Sequence[Audio], diarizations: Sequence[Diarization], meter: ProgressMeter
) -> Sequence[tuple[Span, ...]]:
    """Return the crosstalk of each channel; a single channel has none."""
    if len(channels) == 1:
        return ((),)
    speech = [spans_of_speech(diarization) for diarization in diarizations]
    return find_crosstalk(channels, speech, lambda: meter.report("clustering", 1.0))


def _diarize(
    audio: Audio, engine: Engine, hints: SpeakerHints, progress: Progress, scatter: ScatterChunks | None
) -> Diarization:
    if scatter is not None and isinstance(engine.diarizer, DistributedDiarizer):
        return engine.diarizer.diarize_distributed(audio, hints, progress, scatter)
    return engine.diarizer.diarize(audio, hints, progress)


def _attribute(
    recognized: Iterable[tuple[Section, Recognition]],
    attribution: Attribution,
    confirmed: ConfirmedSpeech,
    finalize: _Finalize,
    meter: ProgressMeter,
) -> _ChannelSummary:
    """Pass the utterances of a channel on, section by section, and return a summary of all sections."""
    summary = _ChannelSummary()
    for section, recognition in recognized:
        summary = summary.extended(recognition)
        with meter.timed("attribution"):
            utterances = attribution.add(recognition.words)
            confirmed.add(utterances)
            since = attribution.open_since
            finalize(utterances, section.bounds.end if since is None else min(since, section.bounds.end))
    with meter.timed("attribution"):
        utterances = attribution.finish()
        confirmed.add(utterances)
        finalize(utterances, None)
    return summary


def _recognize(
    work: _RecognitionWork, engine: Engine, language: str | None, meter: ProgressMeter, scatter: ScatterChunks | None
) -> Generator[Recognition, None, None]:
    """Yield the recognition of each section, in order.

    The language is detected in each section until there are words, and then stays the same. Only sections whose
    language is known are distributed: all of them if the recognizer can detect it without recognizing words.
    """
    recognizer = engine.recognizer
    unknown = language is None and len(recognizer.languages) > 1
    sections = work.sections
    before = [0.0, *accumulate(work.costs)]
    total = work.total_cost
    for number, section in enumerate(sections):
        probability: float | None = None
        if unknown and isinstance(recognizer, LanguageDetector):
            language, probability = recognizer.detect(work.section_audio(section), work.certain_speech(section))
        if scatter is not None and number < len(sections) - 1 and (language is not None or not unknown):
            progress = meter.subrange("recognition", before[number] / total, 1.0)
            with closing(_recognize_distributed(work, number, language, scatter, progress)) as results:
                first = next(results)
                yield first if probability is None else replace(first, language_probability=probability)
                if not unknown or first.words:
                    yield from results
                    return
            language = None
            continue
        progress = meter.subrange("recognition", before[number] / total, before[number + 1] / total)
        recognition = recognizer.recognize(work.section_audio(section), section.speech, language, progress)
        if probability is not None:
            recognition = replace(recognition, language_probability=probability)
        if unknown:
            language, unknown = (recognition.language, False) if recognition.words else (None, True)
        yield _clamped(recognition, section)


def _recognize_distributed(
    work: _RecognitionWork, first: int, language: str | None, scatter: ScatterChunks, progress: Progress
) -> Generator[Recognition, None, None]:
    """Yield the recognition of the sections from ``first`` on."""
    sections = work.sections[first:]
    chunks = [recognition_chunk(work.audio, section.speech, language, work.muted(section)) for section in sections]
    costs = [section.speech_duration for section in sections]
    with closing(run_distributed(chunks, costs, scatter, progress)) as results:
        for section, result in zip(sections, results, strict=True):
            yield _clamped(parse_recognition(result), section)


def _clamped(recognition: Recognition, section: Section) -> Recognition:
    """Clamp words to the bounds of their section, so that those of the next section come after them."""
    bounds = section.bounds
    words = (replace(word, span=word.span.clamp(bounds.start, bounds.end)) for word in recognition.words)
    return replace(recognition, words=tuple(words))
