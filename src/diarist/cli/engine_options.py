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


def complete_model(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Return the names of models that a shell can complete."""
    from diarist.errors import ConfigurationError
    from diarist.models.selection import recognizer_names
    from diarist.settings import load_settings

    try:
        names = recognizer_names(load_settings())
    except ConfigurationError:  # a message would appear in the middle of the command line
        return []
    return [name for name in names if name.startswith(incomplete)]


def engine_options(command: ViewT) -> ViewT:
    """Add ``--engine``, ``--diarizer``, ``--recognizer`` and ``--model``; None leaves the choice to the settings."""
    command = click.option(
        "--model",
        shell_complete=complete_model,
        metavar="NAME",
        help="Speech recognition model, such as large-v3-turbo or parakeet-tdt-0.6b-v3; diarist models list shows all."
        "  [MODEL]",
    )(command)
    for name, choices, purpose in (
        ("recognizer", RECOGNIZERS, "Speech recognizer"),
        ("diarizer", DIARIZERS, "Method that tells speakers apart"),
        ("engine", ENGINES, "Engine that does the work"),
    ):
        help_text = f"{purpose}: {', '.join(choices[:-1])} or {choices[-1]}.  [{name.upper()}]"
        command = click.option(f"--{name}", type=click.Choice(choices), metavar="NAME", help=help_text)(command)
    return command
