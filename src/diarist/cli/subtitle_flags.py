"""Options of subtitles, ``--subtitle-...``, for commands that write transcripts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar

import click

ViewT = TypeVar("ViewT", bound=Callable[..., Any])
Value: TypeAlias = int | float | str | None

# The choices and ranges are repeated here because importing the formats would slow down every --help.
CHOICES: Mapping[str, tuple[str, ...]] = {
    "preset": ("netflix", "bbc"),
    "labels": ("always", "changes", "never"),
    "dashes": ("none", "hyphen", "dash"),
}

_OPTIONS: tuple[tuple[str, type[int | float] | click.Choice[str], str, str], ...] = (
    ("preset", click.Choice(CHOICES["preset"]), "NAME", "Values of a broadcaster for all of these: netflix or bbc."),
    ("max-chars", int, "N", "Maximum characters a line, 20 to 200; 42 without a preset."),
    ("max-lines", int, "N", "Maximum lines of a subtitle, 1 to 4; 2 without a preset."),
    ("min-duration", float, "S", "Seconds for which a subtitle is shown at least, 0.1 to 10; 1 without a preset."),
    ("max-duration", float, "S", "Seconds for which a subtitle is shown at most, 1 to 60; 7 without a preset."),
    ("reading-speed", float, "N", "Characters a second that can be read, 5 to 100; 20 without a preset."),
    ("gap", float, "S", "Seconds between subtitles if a pause allows it, 0 to 2; 0.08 without a preset."),
    ("labels", click.Choice(CHOICES["labels"]), "WHEN",
     "Name the speaker in each subtitle, only where the speaker changes, or not at all: always, changes or never."),
    ("dashes", click.Choice(CHOICES["dashes"]), "STYLE",
     "Show a quick exchange in one subtitle, with a mark before the line of each speaker: none, hyphen or dash."),
)  # fmt: skip

_META_KEY = "diarist.cli.subtitles"


def subtitle_flags(command: ViewT) -> ViewT:
    """Add the options of subtitles, whose values ``subtitle_values`` returns."""
    for name, kind, metavar, help_text in reversed(_OPTIONS):
        command = click.option(
            f"--subtitle-{name}", type=kind, metavar=metavar, help=f"{help_text}  (srt, vtt)", expose_value=False,
            callback=_store,
        )(command)  # fmt: skip
    return command


def _store(ctx: click.Context, param: click.Parameter, value: Value) -> None:
    if value is not None and param.name is not None:
        ctx.meta.setdefault(_META_KEY, {})[param.name.removeprefix("subtitle_")] = value


def subtitle_values() -> Mapping[str, Value]:
    """Return the options of subtitles that the current command was given, by name without ``subtitle_``."""
    values: Mapping[str, Value] = click.get_current_context().meta.get(_META_KEY, {})
    return values
