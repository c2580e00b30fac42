"""A transcript as text: one module per format, and the one list of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from diarist.errors import InvalidOption
from diarist.formats import json_format, rttm, srt, txt, vtt
from diarist.formats.json_format import Extras
from diarist.types import Transcript

__all__ = ["FORMATS", "Extras", "Format", "find", "render"]


@dataclass(frozen=True, slots=True)
class Format:
    """One way of writing a transcript."""

    name: str
    """As users ask for it."""

    media_type: str
    """For the header ``Content-Type``; what is written is always UTF-8."""

    extension: str
    """Of a file of this format, without the dot."""

    render: Callable[[Transcript, str, Extras], str]
    """Called with the transcript, the recording's name and what is wanted beside the text."""


def _by_name(*formats: Format) -> Mapping[str, Format]:
    return MappingProxyType({each.name: each for each in formats})


FORMATS: Mapping[str, Format] = _by_name(
    Format("json", "application/json", "json", lambda it, _, extras: json_format.render(it, extras)),
    Format("txt", "text/plain", "txt", lambda it, _, __: txt.render(it)),
    Format("srt", "application/x-subrip", "srt", lambda it, _, __: srt.render(it)),
    Format("vtt", "text/vtt", "vtt", lambda it, _, __: vtt.render(it)),
    Format("rttm", "text/plain", "rttm", lambda it, recording, _: rttm.render(it, recording)),
)
"""Every format by its name, in the order in which they are shown."""


def find(name: str) -> Format:
    """The format of that name.

    Raises:
        InvalidOption: there is none; the message lists those that there are.
    """
    if name not in FORMATS:
        raise InvalidOption(f"format must be one of {', '.join(FORMATS)}, not {name!r}")
    return FORMATS[name]


def render(transcript: Transcript, name: str, *, recording: str, words: bool = False, details: bool = False) -> str:
    """``transcript`` in the format called ``name``.

    Args:
        transcript: What to write; an empty one gives a valid, empty document.
        name: A key of ``FORMATS``.
        recording: The recording's name, for formats that carry one (rttm). May hold anything: it is made safe.
        words: Add each word with its times and confidences, where the format has a place for them (json).
        details: Add what is known of the recording and of the work on it, likewise.

    Raises:
        InvalidOption: there is no such format.
    """
    return find(name).render(transcript, recording, Extras(words, details))
