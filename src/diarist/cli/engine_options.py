"""Options that choose the engine, for every command that loads one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

ViewT = TypeVar("ViewT", bound=Callable[..., Any])

# The choices of the settings are repeated here because importing pydantic would slow down every --help.
ENGINES = ("embedded", "nemo")
DIARIZERS = ("embedded", "community-1", "clustering", "sortformer", "auto", "onnx")
RECOGNIZERS = ("whisper", "nemo", "onnx")


def engine_options(command: ViewT) -> ViewT:
    """Add ``--engine``, ``--diarizer`` and ``--recognizer``; None leaves the choice to the settings."""
    for name, choices, purpose in (
        ("recognizer", RECOGNIZERS, "Speech recognizer"),
        ("diarizer", DIARIZERS, "Method that tells speakers apart"),
        ("engine", ENGINES, "Engine that does the work"),
    ):
        help_text = f"{purpose}: {', '.join(choices[:-1])} or {choices[-1]}.  [{name.upper()}]"
        command = click.option(f"--{name}", type=click.Choice(choices), metavar="NAME", help=help_text)(command)
    return command
