"""``diarist worker``: start the workers of one machine of a fleet."""

from __future__ import annotations

import click

from diarist.cli.engine_options import engine_options
from diarist.observability import logs, tracing
from diarist.settings import load_settings


@click.command()
@click.option("--queues", help="Queues to serve, separated by commas: any, cpu, gpu, embedded, nemo.  [QUEUES]")
@click.option(
    "--workers", type=click.IntRange(0, 64), help="Number of worker processes; 0 depends on the GPUs.  [WORKERS, 0]"
)
@click.option(
    "--drain", type=click.FloatRange(0, 86_400), help="Seconds to finish running jobs when told to stop.  [DRAIN_S]"
)
@engine_options
def worker(
    queues: str | None,
    workers: int | None,
    drain: float | None,
    engine: str | None,
    diarizer: str | None,
    recognizer: str | None,
    model: str | None,
) -> None:
    """Start the workers of this machine. Ctrl-C stops them.

    Workers take jobs from the job store in DATABASE_URL, are woken through QUEUE_URL, and read recordings from
    MEDIA_URL. The service must use the same three settings. When workers are told to stop, they finish their running
    jobs; a job that takes longer than --drain is taken over by other workers. Logs go to the console.
    """
    from diarist.jobs.workers.node import run_workers

    given = {
        "queues": queues, "workers": workers, "drain_s": drain,
        "engine": engine, "diarizer": diarizer, "recognizer": recognizer, "model": model,
    }  # fmt: skip
    settings = load_settings(**{name: value for name, value in given.items() if value is not None})
    logs.configure(settings, to_file=False)
    tracing.configure(settings, "workers")  # reports a tracing problem once, instead of once for each worker
    run_workers(settings)
