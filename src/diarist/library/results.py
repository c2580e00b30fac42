"""The results of the library: transcripts and diarizations that can write themselves in each output format."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diarist import types
from diarist.errors import InvalidOption
from diarist.formats import FORMATS, rttm
from diarist.formats import render as render_format
from diarist.formats.speaker_names import checked_speaker_names
from diarist.formats.subtitle_options import subtitle_options
from diarist.formats.timestamps import milliseconds
from diarist.pipeline.diarization import DiarizedRecording
from diarist.types import Seconds, Turn

RECORDING = "recording"
"""The name of the recording in RTTM, unless another one is given."""


class Transcript(types.Transcript):
    """Who said what and when.

    Attributes:
        utterances: The utterances in order of start. Each has ``speaker``, ``start``, ``end``, ``text``, ``confidence``
            and ``words``.
        words: The words of all utterances. Each has ``speaker``, ``start``, ``end``, ``text`` (with the white space
            before it), ``confidence`` and ``speaker_confidence``.
        speakers: The labels of the speakers (``SPEAKER_00`` ...), in the order of their words.
        turns: Who speaks when, with overlaps. Each turn has ``speaker``, ``start`` and ``end``.
        language: The ISO 639-1 code of the language, or None if nothing was said.
        language_probability: The probability of a detected language, 0..1.
        duration: The duration of the recording in seconds.
        speakers_confidence: The probability that the number of speakers is right, 0..1, or None.
        warnings: Sentences about choices that were made for the recording.
        text: The texts of the utterances, one per line.
        timings: The duration of each stage of the work.

    All times are in seconds from the start of the recording.
    """

    __slots__ = ()

    @classmethod
    def of(cls, transcript: types.Transcript) -> Transcript:
        """Return the same transcript as an object of this class."""
        return cls(**{field.name: getattr(transcript, field.name) for field in fields(transcript)})

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The turns in order of start. Turns of different speakers may overlap."""
        return self.diarization.turns

    @property
    def text(self) -> str:
        """The texts of the utterances, one per line."""
        return "\n".join(utterance.text for utterance in self.utterances)

    def render(
        self,
        format: str,  # noqa: A002 - the name that the API and the command line use
        *,
        recording: str = RECORDING,
        words: bool = False,
        details: bool = False,
        speaker_names: Sequence[str] = (),
        subtitle_preset: str | None = None,
        subtitle_options: Mapping[str, int | float | str | None] | None = None,
    ) -> str:
        """Return the transcript in an output format.

        Args:
            format: ``json``, ``txt``, ``srt``, ``vtt`` or ``rttm``.
            recording: The name of the recording in RTTM.
            words: Whether JSON contains each word with its times and confidences.
            details: Whether JSON contains facts about the recording and its processing.
            speaker_names: Names in place of the labels, in the order of ``speakers``.
            subtitle_preset: ``netflix`` or ``bbc``, for SRT and WebVTT.
            subtitle_options: Limits of subtitles such as ``max_chars`` in place of those of the preset.

        Raises:
            InvalidOption: There is no such format, or an option is invalid.
        """
        return render_format(
            self, format, recording=recording, words=words, details=details,
            subtitles=_subtitle_options(subtitle_preset, subtitle_options), speaker_names=_names(speaker_names),
        )  # fmt: skip

    def save(
        self,
        path: str | os.PathLike[str],
        format: str | None = None,  # noqa: A002
        *,
        words: bool = False,
        details: bool = False,
        speaker_names: Sequence[str] = (),
        subtitle_preset: str | None = None,
        subtitle_options: Mapping[str, int | float | str | None] | None = None,
    ) -> None:
        """Write the transcript to a file in UTF-8, and replace an existing one.

        Args:
            path: The file.
            format: The format as in ``render``; None takes that of the file's extension.
            words: As in ``render``.
            details: As in ``render``.
            speaker_names: As in ``render``.
            subtitle_preset: As in ``render``.
            subtitle_options: As in ``render``.

        Raises:
            InvalidOption: The extension is not that of a format, or an option is invalid.
            OSError: The file cannot be written.
        """
        target = Path(path)
        text = self.render(
            _format_of(target, FORMATS) if format is None else format, recording=target.stem, words=words,
            details=details, speaker_names=speaker_names, subtitle_preset=subtitle_preset,
            subtitle_options=subtitle_options,
        )  # fmt: skip
        target.write_text(text, encoding="utf-8", newline="\n")

    def to_json(self, *, words: bool = False, details: bool = False, speaker_names: Sequence[str] = ()) -> str:
        """Return the JSON of the service: the response of ``POST /diarize``. The arguments are those of ``render``."""
        return self.render("json", words=words, details=details, speaker_names=speaker_names)

    def to_dict(
        self, *, words: bool = False, details: bool = False, speaker_names: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Return what ``to_json`` contains, as a dictionary."""
        content: dict[str, Any] = json.loads(self.to_json(words=words, details=details, speaker_names=speaker_names))
        return content

    def to_txt(self, *, speaker_names: Sequence[str] = ()) -> str:
        """Return one line for each utterance, with its start and its speaker."""
        return self.render("txt", speaker_names=speaker_names)

    def to_srt(self, *, speaker_names: Sequence[str] = (), subtitle_preset: str | None = None) -> str:
        """Return SubRip subtitles. The arguments are those of ``render``."""
        return self.render("srt", speaker_names=speaker_names, subtitle_preset=subtitle_preset)

    def to_vtt(self, *, speaker_names: Sequence[str] = (), subtitle_preset: str | None = None) -> str:
        """Return WebVTT subtitles. The arguments are those of ``render``."""
        return self.render("vtt", speaker_names=speaker_names, subtitle_preset=subtitle_preset)

    def to_rttm(self, recording: str = RECORDING, *, speaker_names: Sequence[str] = ()) -> str:
        """Return the turns in RTTM, with this name of the recording."""
        return self.render("rttm", recording=recording, speaker_names=speaker_names)


@dataclass(frozen=True, slots=True, eq=False)
class Diarization:
    """Who speaks when, without words. All times are in seconds from the start of the recording."""

    turns: tuple[Turn, ...]
    """The turns in order of start. Each has ``speaker``, ``start`` and ``end``. Turns of different speakers may
    overlap."""

    duration: Seconds
    """The duration of the recording."""

    embeddings: NDArray[np.float32]
    """The embedding of each speaker, shape (speakers, values), in the order of ``speakers``. There are no values if the
    diarizer has no embeddings."""

    diarizer: str
    """The name of the diarizer."""

    warnings: tuple[str, ...] = ()
    """Sentences about choices that were made for the recording."""

    @classmethod
    def of(cls, recording: DiarizedRecording) -> Diarization:
        """Return the diarization of a recording as an object of this class."""
        found = recording.diarization
        return cls(found.turns, recording.duration, found.embeddings, found.diarizer, recording.warnings)

    @property
    def speakers(self) -> tuple[str, ...]:
        """The labels of the speakers (``SPEAKER_00`` ...), in the order in which they first speak."""
        return tuple(dict.fromkeys(turn.speaker for turn in self.turns))

    def to_rttm(self, recording: str = RECORDING) -> str:
        """Return one line for each turn, with this name of the recording."""
        return rttm.render_turns(self.turns, recording)

    def to_dict(self) -> dict[str, Any]:
        """Return the turns, the speakers, the duration and the diarizer, with times rounded to milliseconds."""
        return {
            "turns": [
                {"speaker": turn.speaker, "start_time": _rounded(turn.start), "end_time": _rounded(turn.end)}
                for turn in self.turns
            ],
            "speakers": list(self.speakers),
            "duration": _rounded(self.duration),
            "diarizer": self.diarizer,
            "warnings": list(self.warnings),
        }

    def to_json(self) -> str:
        """Return what ``to_dict`` contains, as JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=1) + "\n"

    def save(self, path: str | os.PathLike[str], format: str | None = None) -> None:  # noqa: A002
        """Write the turns to a file in UTF-8, and replace an existing one.

        Args:
            path: The file.
            format: ``rttm`` or ``json``; None takes that of the file's extension.

        Raises:
            InvalidOption: There is no such format.
            OSError: The file cannot be written.
        """
        target = Path(path)
        chosen = _format_of(target, ("rttm", "json")) if format is None else format
        if chosen not in ("rttm", "json"):
            raise InvalidOption(f"a diarization has no format {chosen!r}: it must be rttm or json")
        text = self.to_json() if chosen == "json" else self.to_rttm(target.stem)
        target.write_text(text, encoding="utf-8", newline="\n")


def _format_of(path: Path, formats: Mapping[str, object] | Sequence[str]) -> str:
    extension = path.suffix[1:].lower()
    if extension not in formats:
        raise InvalidOption(f"the extension of {path.name!r} is not one of {', '.join(formats)}: give format=")
    return extension


def _names(names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise InvalidOption('speaker_names must be a list of names, such as ["Anna", "Ben"]')
    return checked_speaker_names(names)


def _subtitle_options(preset: str | None, changes: Mapping[str, int | float | str | None] | None) -> Any:
    try:
        return subtitle_options(preset, changes or {})
    except TypeError:
        raise InvalidOption(f"there is no subtitle option among {', '.join(changes or {})} of that name") from None


def _rounded(time: Seconds) -> float:
    return milliseconds(time) / 1000
