"""The command line. Each command is imported when it is used, so that ``diarist --help`` is fast."""

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
from diarist.inference_environment import set_defaults

FAILED = 1
USAGE = 2
UNAVAILABLE = 3
INTERRUPTED = 130
"""128 + SIGINT, the convention of shells."""

PIPE_CLOSED = 141
"""128 + SIGPIPE: the reader of standard output has closed it."""


@dataclass(frozen=True, slots=True)
class LazyCommand:
    """The location of a command, and its summary in ``diarist --help``."""

    module: str
    name: str
    summary: str

    def load(self) -> click.Command:
        command: click.Command = getattr(importlib.import_module(self.module), self.name)
        command.short_help = self.summary
        return command


COMMANDS: Mapping[str, LazyCommand] = {
    "transcribe": LazyCommand("diarist.cli.transcribe", "transcribe", "Transcribe recordings and say who speaks when."),
    "evaluate": LazyCommand("diarist.cli.evaluate", "evaluate", "Score transcripts against references."),
    "serve": LazyCommand("diarist.cli.serve", "serve", "Start the HTTP service."),
    "keys": LazyCommand("diarist.cli.keys", "keys", "Create, list and revoke API keys."),
    "worker": LazyCommand("diarist.cli.worker", "worker", "Start the workers of one machine of a fleet."),
    "models": LazyCommand("diarist.cli.models", "models", "List, fetch and verify models."),
    "doctor": LazyCommand("diarist.cli.doctor", "doctor", "Check this installation and say how to fix problems."),
}


def printable(text: str) -> str:
    """Return ``text`` with unprintable characters replaced: file names could otherwise control the terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def exit_code(error: DiaristError) -> int:
    """Return the exit code for an error: 2 for wrong options, 3 without engine or models, 1 for anything else."""
    if isinstance(error, ConfigurationError | InputError):
        return USAGE
    return UNAVAILABLE if isinstance(error, EngineUnavailable | ModelError) else FAILED


class Diarist(click.Group):
    """Loads commands when they are used, and turns errors into one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        lazy = COMMANDS.get(cmd_name)
        return lazy.load() if lazy else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.summary) for name, lazy in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        set_defaults()  # before a command loads NumPy
        try:
            return super().invoke(ctx)
        except DiaristError as error:
            logging.getLogger(__name__).debug("traceback of the error", exc_info=error)
            click.echo(f"diarist: {printable(str(error))}", err=True)
            ctx.exit(exit_code(error))
        except BrokenPipeError:
            _exit_on_closed_pipe()
        except OSError as error:
            from diarist.scratch import disk_full

            if not disk_full(error):
                raise
            where = f" that holds {error.filename}" if error.filename else ""
            click.echo(f"diarist: The disk{printable(where)} is full. Free some space, then try again.", err=True)
            ctx.exit(FAILED)
        except KeyboardInterrupt:
            click.echo("diarist: interrupted", err=True)
            ctx.exit(INTERRUPTED)


def _exit_on_closed_pipe() -> NoReturn:
    # The buffered output has no reader. Without this the interpreter would report an error when it exits.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(PIPE_CLOSED)


@click.group(cls=Diarist, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="diarist", prog_name="diarist", message="%(prog)s %(version)s")
def main() -> None:
    """Transcribe recordings and say who speaks when.

    Settings are read from the environment and from .env in the current folder.
    """
