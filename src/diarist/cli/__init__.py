"""The command line. Each command is imported when it is used, so that ``diarist --help`` answers at once."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import click

from diarist.errors import ConfigurationError, DiaristError, EngineUnavailable, InputError, ModelError

FAILED = 1
USAGE = 2
UNAVAILABLE = 3
INTERRUPTED = 130
"""128 + SIGINT, as shells count."""

PIPE_CLOSED = 141
"""128 + SIGPIPE: the reader of standard output has gone."""


@dataclass(frozen=True, slots=True)
class LazyCommand:
    """Where a command is, and the line that ``diarist --help`` shows for it."""

    module: str
    name: str
    summary: str

    def load(self) -> click.Command:
        command: click.Command = getattr(importlib.import_module(self.module), self.name)
        command.short_help = self.summary
        return command


COMMANDS: Mapping[str, LazyCommand] = {
    "transcribe": LazyCommand("diarist.cli.transcribe", "transcribe", "Say who said what, when, in recordings."),
    "evaluate": LazyCommand("diarist.cli.evaluate", "evaluate", "Score transcripts against references."),
    "serve": LazyCommand("diarist.cli.serve", "serve", "Start the HTTP service."),
    "keys": LazyCommand("diarist.cli.keys", "keys", "Make, list and revoke API keys."),
    "worker": LazyCommand("diarist.cli.worker", "worker", "Start the workers of one machine of a fleet."),
    "models": LazyCommand("diarist.cli.models", "models", "List, fetch and check the models."),
    "doctor": LazyCommand("diarist.cli.doctor", "doctor", "Check this installation, and say what to do."),
}


def printable(text: str) -> str:
    """``text`` without what could drive a terminal or break a line: names of files come from anywhere."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def exit_code(error: DiaristError) -> int:
    """What the shell is told: the caller's options 2, no engine or models 3, anything else 1."""
    if isinstance(error, ConfigurationError | InputError):
        return USAGE
    return UNAVAILABLE if isinstance(error, EngineUnavailable | ModelError) else FAILED


class Diarist(click.Group):
    """Loads commands on use and turns errors into one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        lazy = COMMANDS.get(cmd_name)
        return lazy.load() if lazy else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.summary) for name, lazy in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except DiaristError as error:
            logging.getLogger(__name__).debug("the error in full", exc_info=error)
            click.echo(f"diarist: {printable(str(error))}", err=True)
            ctx.exit(exit_code(error))
        except BrokenPipeError:
            _exit_on_closed_pipe()
        except KeyboardInterrupt:
            click.echo("diarist: stopped", err=True)
            ctx.exit(INTERRUPTED)


def _exit_on_closed_pipe() -> NoReturn:
    # What is still buffered has no reader; without this the interpreter would complain of it at its own end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(PIPE_CLOSED)


@click.group(cls=Diarist, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="diarist", prog_name="diarist", message="%(prog)s %(version)s")
def main() -> None:
    """Who said what, when: a recording in, a transcript with speakers and times out.

    Settings are read from the environment and from .env in this folder.
    """
