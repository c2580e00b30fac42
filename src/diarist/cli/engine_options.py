"""Options that choose the engine, for every command that loads one. The names are those of the settings' choices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

ViewT = TypeVar("ViewT", bound=Callable[..., Any])

# Written out: to read them from the settings would make every --help wait for pydantic.
ENGINES = ("embedded", "nemo")
DIARIZERS = ("embedded", "clustering", "sortformer", "auto", "onnx")
RECOGNIZERS = ("whisper", "nemo", "onnx")


def engine_options(command: ViewT) -> ViewT:
    """Adds ``--engine``, ``--diarizer`` and ``--recognizer``; what is not given is None, and left to the settings."""
    for name, known, what in (
        ("recognizer", RECOGNIZERS, "what finds the words"),
        ("diarizer", DIARIZERS, "what tells the speakers apart"),
        ("engine", ENGINES, "what does the work"),
    ):
        listed = f"{', '.join(known[:-1])} or {known[-1]}: {what}.  [{name.upper()}]"
        command = click.option(f"--{name}", type=click.Choice(known), metavar="NAME", help=listed)(command)
    return command
