"""The messages between a model and its engine process, which are pickled one after the other.

Requests go to the process with a number each, in ``Numbered``. It answers each request by any number of ``Progressed``,
``Finalized`` and ``Logged``, and at its end by one ``Ended`` or ``Failed``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from diarist.settings import Settings
from diarist.types import ModelInfo, SpeakerHints, TranscribeOptions, Utterance


@dataclass(frozen=True, slots=True)
class Load:
    """Asks to load the engine. This is the first request; its result is ``LoadedModel``."""

    settings: Settings
    offline: bool
    """Whether fetching models over the network is forbidden."""

    recognizes: bool
    """Whether the recognizer is loaded too."""

    log_level: int
    """The minimum level of Diarist's log records that are passed on. Those of libraries are passed on from WARNING."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """The facts about a loaded engine."""

    models: tuple[ModelInfo, ...]
    device: str
    languages: tuple[str, ...]
    """The languages of the recognizer; empty if they are unknown."""


@dataclass(frozen=True, slots=True)
class Transcribe:
    """Asks to transcribe a file; its result is a ``diarist.types.Transcript``."""

    path: Path
    options: TranscribeOptions


@dataclass(frozen=True, slots=True)
class Diarize:
    """Asks for the turns of a file; its result is a ``diarist.pipeline.diarization.DiarizedRecording``."""

    path: Path
    hints: SpeakerHints


@dataclass(frozen=True, slots=True)
class Cancel:
    """Asks to stop the work on the request of the same number, if it is still running."""


Request: TypeAlias = Load | Transcribe | Diarize


@dataclass(frozen=True, slots=True)
class Numbered:
    """A request or its cancellation, with the number of the request."""

    number: int
    request: Request | Cancel


@dataclass(frozen=True, slots=True)
class Progressed:
    """Reports the stage, and the share of the whole work that is done, 0..1."""

    stage: str
    done: float


@dataclass(frozen=True, slots=True)
class Finalized:
    """Reports utterances that are final."""

    utterances: tuple[Utterance, ...]


@dataclass(frozen=True, slots=True)
class Logged:
    """Passes a log record on, by its attributes (``logging.makeLogRecord``)."""

    record: Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Ended:
    """Reports that the request has been performed."""

    result: Any


@dataclass(frozen=True, slots=True, eq=False)
class Failed:
    """Reports that the request has failed."""

    error: BaseException


Message: TypeAlias = Progressed | Finalized | Logged | Ended | Failed
