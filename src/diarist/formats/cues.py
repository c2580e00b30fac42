"""Subtitle cues of a transcript: what is shown, when, and whose words it is."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from diarist.formats.cue_division import divide
from diarist.formats.cue_layout import count_lines, layout_lines
from diarist.formats.cue_timing import Cue, SpokenLines, delay_starts, set_ends, wanted_ms
from diarist.formats.cue_words import CueWord, cue_words, join
from diarist.formats.line_breaking import columns
from diarist.formats.subtitle_options import DEFAULT, SubtitleOptions
from diarist.formats.timestamps import milliseconds
from diarist.types import Transcript, Utterance

PHRASE_PAUSE_MS = 500
"""A speaker who begins again after a pause of this length interrupts others as one does who begins to speak."""

MAX_EARLY_MS = 1_500
"""The maximum time by which the second line of two speakers is shown before it is spoken, as in the BBC's guidelines
(section 5.2 of version 1.2.5)."""

_DASHES = {"hyphen": "-", "dash": "\N{EN DASH} "}


@dataclass(frozen=True, slots=True)
class _Passage:
    """Represents words of one speaker that fit into a cue."""

    speaker: str
    words: Sequence[CueWord]

    @property
    def start_ms(self) -> int:
        return self.words[0].start_ms

    @property
    def end_ms(self) -> int:
        return max(word.end_ms for word in self.words)


def subtitles(
    transcript: Transcript,
    options: SubtitleOptions = DEFAULT,
    *,
    label: Callable[[str], str] | None = None,
    overlap: bool = True,
) -> tuple[Cue, ...]:
    """Return the cues of a transcript in order of start.

    Breaks are between words, preferably at the ends of sentences and clauses. A cue begins with its first word. It ends
    with its last word, or later in the pause that follows: it is shown for the minimum duration and for as long as it
    takes to read, up to the maximum duration, but only until the gap before the next cue.

    Cues of one speaker never overlap. If cues of different speakers may not overlap either, a cue ends where another
    speaker begins, and goes on in a new cue after that. A cue is delayed if the one before it would be cut short.

    Args:
        transcript: The transcript, which may be empty.
        options: The limits of cues. Without ``overlap`` and with ``dashes`` no cues overlap.
        label: Returns the text before the words of a speaker, which counts as part of the first line. It is shown where
            ``options.labels`` says. None shows no labels.
        overlap: Whether cues of different speakers may overlap.
    """
    overlap = overlap and options.dashes == "none"
    last_ms = milliseconds(transcript.duration)
    labels = _Labels(options, label)
    passages = sorted(_passages(transcript.utterances, options, labels, overlap=overlap), key=_start)
    tracks: dict[str, list[_Passage]] = {}
    for passage in passages:
        tracks.setdefault(passage.speaker if overlap else "", []).append(passage)
    drafts = [
        delay_starts(list(_layout(_short_first(track), options, labels)), options, last_ms) for track in tracks.values()
    ]
    starts = sorted(cue.start_ms for track in drafts for cue in track)
    return tuple(sorted((cue for track in drafts for cue in set_ends(track, options, starts, last_ms)), key=_start))


def _start(each: Cue | _Passage) -> int:
    return each.start_ms


def _passages(
    utterances: Sequence[Utterance], options: SubtitleOptions, labels: _Labels, *, overlap: bool
) -> Iterator[_Passage]:
    spoken = [
        (utterance.speaker, words) for utterance in utterances if (words := cue_words(utterance, options.max_chars))
    ]
    phrases = (
        [] if overlap else sorted((start_ms, speaker) for speaker, words in spoken for start_ms in _phrases(words))
    )
    for speaker, words in spoken:
        width = labels.columns(speaker)
        later = 0 if options.labels == "changes" else width
        first = bisect_right(phrases, words[0].start_ms, key=lambda phrase: phrase[0])
        last = bisect_left(phrases, max(word.end_ms for word in words), key=lambda phrase: phrase[0])
        interruptions = [start_ms for start_ms, other in phrases[first:last] if other != speaker]
        for part in divide(words, options, (width, later), interruptions):
            yield _Passage(speaker, part)


def _phrases(words: Sequence[CueWord]) -> Iterator[int]:
    """Yield the times at which a speaker begins, also after a pause."""
    yield words[0].start_ms
    end_ms = words[0].end_ms
    for word in words[1:]:
        if word.start_ms - end_ms >= PHRASE_PAUSE_MS:
            yield word.start_ms
        end_ms = max(end_ms, word.end_ms)


def _short_first(track: Sequence[_Passage]) -> list[_Passage]:
    """Return passages in the order in which they are shown.

    That is the order of their starts, but of two speakers who begin almost together the one who ends first is first:
    the other one can still be read afterwards.
    """
    ordered = list(track)
    for position, (before, after) in enumerate(pairwise(track)):
        together = after.start_ms - before.start_ms < PHRASE_PAUSE_MS <= before.end_ms - after.end_ms
        if together and ordered[position] is before and before.speaker != after.speaker:
            ordered[position], ordered[position + 1] = after, before
    return ordered


@dataclass(frozen=True, slots=True)
class _Labels:
    """Returns the words of a speaker with a label before them."""

    options: SubtitleOptions
    label: Callable[[str], str] | None

    def text(self, speaker: str) -> str:
        return "" if self.label is None or self.options.labels == "never" else self.label(speaker)

    def columns(self, speaker: str) -> int:
        return columns(self.text(speaker))

    def add(self, passage: _Passage, *, dash: str = "", labeled: bool = True) -> Sequence[CueWord]:
        """Return the words with the dash and the label, which is a word of its own if both do not fit on one line."""
        first, *others = passage.words
        text = self.text(passage.speaker) if labeled else ""
        width = columns(text)
        if not text:
            return (_with_prefix(first, dash), *others)
        if columns(dash) + width + 1 + first.columns <= self.options.max_chars:
            return (_with_prefix(first, f"{dash}{text} "), *others)
        alone = CueWord(f"{dash}{text}", first.spaced, first.start_ms, first.start_ms, columns(dash) + width)
        return (alone, replace(first, spaced=True), *others)


def _with_prefix(word: CueWord, prefix: str) -> CueWord:
    return replace(word, text=f"{prefix}{word.text}", columns=columns(prefix) + word.columns)


def _layout(track: Sequence[_Passage], options: SubtitleOptions, labels: _Labels) -> Iterator[Cue]:
    """Yield the cues of a track with their lines. They begin and end with their words."""
    speaker: str | None = None
    position = 0
    while position < len(track):
        passage, following = track[position], track[position + 1 : position + 2]
        labeled = options.labels == "always" or passage.speaker != speaker
        shared = _shared_cue(passage, following[0], labeled, options, labels) if following else None
        if shared is not None:
            yield shared
            # After two speakers it is not clear who goes on.
            speaker = None
            position += 2
            continue
        yield from _own_cues(passage, labeled, options, labels)
        speaker = passage.speaker
        position += 1


def _own_cues(passage: _Passage, labeled: bool, options: SubtitleOptions, labels: _Labels) -> Iterator[Cue]:
    """Yield the cue of a passage, or several if it was divided without a label and does not fit into one with it."""
    parts = [passage.words]
    if labeled and options.labels == "changes":
        parts = divide(passage.words, options, (labels.columns(passage.speaker), 0))
    for number, words in enumerate(parts):
        part = _Passage(passage.speaker, words)
        shown = labels.add(part, labeled=labeled and number == 0)
        lines = layout_lines(shown, options.max_chars, options.max_lines)
        yield Cue(part.start_ms, part.end_ms, (SpokenLines(part.speaker, lines),))


def _shared_cue(
    first: _Passage, second: _Passage, labeled: bool, options: SubtitleOptions, labels: _Labels
) -> Cue | None:
    """Return the cue of two speakers in a quick exchange, or None if they need cues of their own.

    They share a cue if each needs one line, and the first one could not be shown long enough before the second begins.
    """
    if options.dashes == "none" or options.max_lines < 2 or first.speaker == second.speaker:
        return None
    dash = _DASHES[options.dashes]
    words = (labels.add(first, dash=dash, labeled=labeled), labels.add(second, dash=dash))
    if any(count_lines(line, options.max_chars) > 1 for line in words):
        return None
    parts = tuple(
        SpokenLines(passage.speaker, (join(line),)) for passage, line in zip((first, second), words, strict=True)
    )
    cue = Cue(min(first.start_ms, second.start_ms), max(first.end_ms, second.end_ms), parts)
    early_ms = second.start_ms - first.start_ms
    alone_ms = wanted_ms(replace(cue, parts=parts[:1]), options) + milliseconds(options.gap)
    short = cue.end_ms - cue.start_ms <= milliseconds(options.max_duration)
    return cue if short and early_ms < min(alone_ms, MAX_EARLY_MS) else None
