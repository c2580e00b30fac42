"""Diarist transcribes recordings and says who speaks when.

::

    import diarist

    with diarist.load() as model:
        transcript = model.transcribe("meeting.mp3")
    for utterance in transcript.utterances:
        print(utterance.speaker, utterance.start, utterance.text)
    transcript.save("meeting.srt")

Importing the package loads none of its libraries and changes nothing in the process: each name is imported when it is
first used.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diarist.errors import (
        AudioError,
        AudioTooLong,
        Cancelled,
        ConfigurationError,
        CorruptAudio,
        DecoderFailed,
        DiaristError,
        EmptyAudio,
        EngineUnavailable,
        InputError,
        InvalidOption,
        JobFailed,
        ModelCorrupt,
        ModelError,
        ModelUnavailable,
        NotAudio,
        ServiceError,
        StorageFull,
        TrackNotFound,
        UnsupportedAudio,
    )
    from diarist.library.model import Model, diarize, load, transcribe
    from diarist.library.results import Diarization, Transcript
    from diarist.settings import Settings, load_settings
    from diarist.types import Span, Turn, Utterance, Word

    __version__: str

__all__ = [
    "AudioError",
    "AudioTooLong",
    "Cancelled",
    "ConfigurationError",
    "CorruptAudio",
    "DecoderFailed",
    "DiaristError",
    "Diarization",
    "EmptyAudio",
    "EngineUnavailable",
    "InputError",
    "InvalidOption",
    "JobFailed",
    "Model",
    "ModelCorrupt",
    "ModelError",
    "ModelUnavailable",
    "NotAudio",
    "ServiceError",
    "Settings",
    "Span",
    "StorageFull",
    "TrackNotFound",
    "Transcript",
    "Turn",
    "UnsupportedAudio",
    "Utterance",
    "Word",
    "__version__",
    "diarize",
    "load",
    "load_settings",
    "transcribe",
]

_MODULES = {
    "diarist.library.model": ("Model", "diarize", "load", "transcribe"),
    "diarist.library.results": ("Diarization", "Transcript"),
    "diarist.settings": ("Settings", "load_settings"),
    "diarist.types": ("Span", "Turn", "Utterance", "Word"),
}
"""The modules of the public names; all others are errors."""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import a public name when it is first used (PEP 562)."""
        if name not in __all__:
            raise AttributeError(f"module 'diarist' has no attribute {name!r}")
        if name == "__version__":
            from importlib.metadata import version

            value = version("diarist")
        else:
            from importlib import import_module

            module = next((module for module, names in _MODULES.items() if name in names), "diarist.errors")
            value = getattr(import_module(module), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
