"""``diarist serve``: start the HTTP service."""

from __future__ import annotations

import click

from diarist.cli.engine_options import engine_options
from diarist.settings import load_settings


@click.command()
@click.option("--host", help="Address to listen on; 0.0.0.0 is all networks.  [FLASK_HOST, 127.0.0.1]")
@click.option(
    "--port", type=click.IntRange(0, 65_535), help="Port to listen on; 0 picks a free one.  [FLASK_PORT, 5000]"
)
@engine_options
@click.option("--debug", is_flag=True, help="Log every request in detail.  [FLASK_DEBUG]")
def serve(
    host: str | None,
    port: int | None,
    engine: str | None,
    diarizer: str | None,
    recognizer: str | None,
    model: str | None,
    debug: bool,
) -> None:
    """Start the HTTP service. Ctrl-C stops it.

    Settings are read from the environment and from .env in the current folder. Options take precedence over both.
    """
    from diarist.api import serving

    given = {
        "flask_host": host, "flask_port": port, "flask_debug": debug or None,
        "engine": engine, "diarizer": diarizer, "recognizer": recognizer, "model": model,
    }  # fmt: skip
    serving.serve(load_settings(**{name: value for name, value in given.items() if value is not None}))
