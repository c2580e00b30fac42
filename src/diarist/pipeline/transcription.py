"""A recording in, a transcript out. The service, its worker and the command line all call this."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TypeAlias

from diarist.audio import DecodeLimits, decode
from diarist.engines.chunk_processing import parse_recognition, recognition_chunk, run_distributed
from diarist.errors import InvalidOption
from diarist.pipeline.attribution import Attribution, speech_of
from diarist.pipeline.calibration import count_probability
from diarist.pipeline.finalization import OnFinal, UtteranceFinalizer
from diarist.pipeline.progress import ProgressMeter
from diarist.pipeline.sections import Section, sections
from diarist.protocols import (
    LANGUAGE_DETECTION_COST_S,
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
    finalized: OnFinal | None = None,
    scatter: Scatter | None = None,
) -> Transcript:
    """Who said what, when.

    Args:
        path: an audio or video file of any kind that is read.
        engine: loaded.
        options: what the caller asks for.
        progress: called with the stage's name and the part of the whole that is done, 0..1, never falling; what it
            raises (``Cancelled``) ends the work and goes through.
        limits: what decoding may take.
        finalized: called with utterances as soon as nothing can change them any more; one call after the other they are
            ``Transcript.utterances``. Of separate channels none is settled before the last channel is read.
        scatter: has other machines do portions of the work. The transcript is the same.

    Raises:
        InputError: the recording or an option cannot be used.
        DecoderFailed: the decoder died, or ran out of time or memory.
    """
    known = engine.recognizer.languages
    if options.language is not None and known and options.language not in known:
        raise InvalidOption(f"language {options.language!r} is not one that this model knows: {', '.join(known)}")
    meter = ProgressMeter(progress)
    with meter.timed("decode"):
        channels = decode(path, limits, lambda done: meter.note("decode", done), options.channels)
        distribute = scatter if scatter is not None and scatter.accept(channels) else None
    duration = max(audio.duration for audio in channels)
    hints = options.hints if options.channels == "mix" else SpeakerHints(num_speakers=1)
    finalizer = UtteranceFinalizer(len(channels), finalized)
    parts: list[Diarization] = []
    heard: list[_Heard] = []
    for index, audio in enumerate(channels):
        meter.share(index, len(channels))
        others = None if distribute is None else partial(distribute, index)
        with meter.timed("diarization"):
            diarization = _diarize(audio, engine, hints, meter.note, others)
        read = sections(speech_of(diarization.turns), audio.duration)
        with closing(_recognize(audio, engine, read, options.language, meter, others)) as recognitions:
            found = zip(read, meter.each("recognition", recognitions), strict=True)
            heard.append(_attribute(found, Attribution(diarization), partial(finalizer.add, index), meter))
        parts.append(diarization)
    with meter.timed("attribution"):
        diarization = finalizer.finish(parts)
    most_said = max(heard, key=lambda said: said.words)
    least, most = hints.bounds()
    counted = None if least == most else count_probability(parts[0])
    meter.finish()
    return Transcript(
        utterances=finalizer.utterances,
        diarization=diarization,
        duration=duration,
        language=most_said.language,
        language_probability=most_said.language_probability,
        engine=engine.name,
        timings=meter.timings,
        recognizer=next((model.name for model in engine.models if model.role == "recognition"), ""),
        device=engine.device,
        speakers_confidence=counted,
    )


@dataclass(frozen=True, slots=True)
class _Heard:
    """What the sections of a channel add up to."""

    words: int = 0
    language: str | None = None
    language_probability: float | None = None

    def then(self, section: Recognition) -> _Heard:
        """With one more section. The language is that of the first words, or else of the first section."""
        words = self.words + len(section.words)
        if self.words or (self.language is not None and not section.words):
            return replace(self, words=words)
        return _Heard(words, section.language, section.language_probability)


def _diarize(
    audio: Audio, engine: Engine, hints: SpeakerHints, progress: Progress, scatter: ScatterChunks | None
) -> Diarization:
    if scatter is not None and isinstance(engine.diarizer, DistributedDiarizer):
        return engine.diarizer.diarize_distributed(audio, hints, progress, scatter)
    return engine.diarizer.diarize(audio, hints, progress)


def _attribute(
    found: Iterable[tuple[Section, Recognition]], attribution: Attribution, finalize: _Finalize, meter: ProgressMeter
) -> _Heard:
    """Hand on who said what of a channel, section by section; what was heard in all of it."""
    heard = _Heard()
    for section, recognition in found:
        heard = heard.then(recognition)
        with meter.timed("attribution"):
            utterances = attribution.add(recognition.words)
            since = attribution.open_since
            finalize(utterances, section.within.end if since is None else min(since, section.within.end))
    with meter.timed("attribution"):
        finalize(attribution.finish(), None)
    return heard


def _recognize(
    audio: Audio,
    engine: Engine,
    read: Sequence[Section],
    language: str | None,
    meter: ProgressMeter,
    scatter: ScatterChunks | None,
) -> Generator[Recognition, None, None]:
    """What was said in each section, in order.

    Until there are words, each section is asked for its language; from then on it is known. Only sections whose
    language is known are read elsewhere: where it can be had without the words, that is all of them.
    """
    recognizer = engine.recognizer
    unknown = language is None and len(recognizer.languages) > 1
    costs = [section.spoken for section in read]
    if costs and unknown:
        costs[0] += LANGUAGE_DETECTION_COST_S
    before = [0.0, *accumulate(costs)]
    total = before[-1] or 1.0
    meter.spoken(total / audio.duration)
    for number, section in enumerate(read):
        probability: float | None = None
        if scatter is not None and number < len(read) - 1:
            if unknown and isinstance(recognizer, LanguageDetector):
                language, probability = recognizer.detect(audio, section.speech)
            if language is not None or not unknown:
                rest = meter.part("recognition", before[number] / total, 1.0)
                with closing(_recognize_elsewhere(audio, read[number:], language, scatter, rest)) as results:
                    found = next(results)
                    yield found if probability is None else replace(found, language_probability=probability)
                    if not unknown or found.words:
                        yield from results
                        return
                language = None
                continue
        progress = meter.part("recognition", before[number] / total, before[number + 1] / total)
        found = recognizer.recognize(audio, section.speech, language, progress)
        if unknown and found.words:
            language, unknown = found.language, False
        yield _within(found, section)


def _recognize_elsewhere(
    audio: Audio,
    read: Sequence[Section],
    language: str | None,
    scatter: ScatterChunks,
    progress: Progress,
) -> Generator[Recognition, None, None]:
    chunks = [recognition_chunk(audio, section.speech, language) for section in read]
    costs = [section.spoken for section in read]
    with closing(run_distributed(chunks, costs, scatter, progress)) as results:
        for section, result in zip(read, results, strict=True):
            yield _within(parse_recognition(result), section)


def _within(found: Recognition, section: Section) -> Recognition:
    """No word goes beyond the pauses around its section: those of the next one come after it."""
    bounds = section.within
    words = (replace(word, span=word.span.clamp(bounds.start, bounds.end)) for word in found.words)
    return replace(found, words=tuple(words))
