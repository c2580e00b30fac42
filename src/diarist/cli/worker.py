"""``diarist worker``: the workers of one machine of a fleet."""

from __future__ import annotations

import click

from diarist.cli.engine_options import engine_options
from diarist.observability import logs, tracing
from diarist.settings import load_settings


@click.command()
@click.option("--queues", help="Queues to serve, with commas between them: any, cpu, gpu, embedded, nemo.  [QUEUES]")
@click.option("--workers", type=click.IntRange(0, 64), help="Worker processes; 0 goes by the GPUs.  [WORKERS, 0]")
@click.option("--drain", type=click.FloatRange(0, 86_400), help="Seconds to finish in when told to stop.  [DRAIN_S]")
@engine_options
def worker(
    queues: str | None,
    workers: int | None,
    drain: float | None,
    engine: str | None,
    diarizer: str | None,
    recognizer: str | None,
) -> None:
    """Start the workers of this machine, and stop them with Ctrl-C.

    They take jobs from the store of DATABASE_URL, are woken over QUEUE_URL, and find recordings in MEDIA_URL: the same
    three that the service has. When they are told to stop they finish what they have in hand, and what takes longer
    than --drain is taken up by others. They log to the console.
    """
    from diarist.jobs.workers.node import run_workers

    given = {
        "queues": queues, "workers": workers, "drain_s": drain,
        "engine": engine, "diarizer": diarizer, "recognizer": recognizer,
    }  # fmt: skip
    settings = load_settings(**{name: value for name, value in given.items() if value is not None})
    logs.configure(settings, to_file=False)
    tracing.configure(settings, "workers")  # or each of them would find out by itself that it cannot
    run_workers(settings)
