"""``diarist models``: what models there are, fetch them, check them, export those of NeMo."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from diarist.errors import EngineUnavailable, InvalidOption, ModelError
from diarist.settings import Settings, load_settings

if TYPE_CHECKING:
    from diarist.models import BytesProgress, ModelStore


@click.group()
def models() -> None:
    """List, fetch, check and export the models.

    They are kept in MODEL_DIR (~/.cache/diarist unless set otherwise) and shared by all installations of a user.
    """


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object instead of a table.")
def list_models(as_json: bool) -> None:
    """Show every model: role, licence, size, whether it is here.

    The state goes by the names and sizes of the files; `diarist models verify` reads them.
    """
    from diarist.models import required

    settings, store = _store()
    needed = required(settings)
    if as_json:
        rows = [
            {
                "name": model.name,
                "role": model.role,
                "licence": model.licence,
                "size_bytes": model.size_bytes,
                "state": store.state(model.name),
                "needed": model.name in needed,
                "origin": model.origin,
            }
            for model in store.models.values()
        ]
        click.echo(json.dumps({"models": rows, "folder": str(store.root)}, indent=2))
        return
    line = "{:<17} {:<13} {:<11} {:>8}  {}"
    click.echo(line.format("NAME", "ROLE", "LICENCE", "SIZE", "STATE"))
    for model in store.models.values():
        state = store.state(model.name) + ("" if model.name in needed else ", not needed")
        click.echo(line.format(model.name, model.role, model.licence, _megabytes(model.size_bytes), state))


@models.command()
@click.argument("names", metavar="[NAME...]", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Fetch every model in the list.")
@click.option("--offline", is_flag=True, help="Use no network: only MODEL_SOURCE_DIR and installed packages.")
def pull(names: tuple[str, ...], everything: bool, offline: bool) -> None:
    """Fetch models, and mend those that are damaged.

    Without a NAME: those that the settings need, NeMo's among them. What is here and whole is left alone.
    """
    settings, store = _store()
    for name in _chosen(names, settings, store, everything=everything):
        with _progress_of(name) as progress:
            path = store.pull(name, progress, offline=offline)
        click.echo(f"{name}: ready in {path}")
    if not names and not everything:
        _pull_nemo(settings, offline=offline)


@models.command()
@click.argument("names", metavar="[NAME...]", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Check every model in the list.")
def verify(names: tuple[str, ...], everything: bool) -> None:
    """Read models and compare them with their known hashes.

    Without a NAME: those that the settings need. The exit code is 1 when one is missing or damaged.
    """
    settings, store = _store()
    bad = False
    for name in _chosen(names, settings, store, everything=everything):
        try:
            path = store.verify(name)
        except ModelError as error:
            bad = True
            click.echo(f"{name}: {error}", err=True)
        else:
            click.echo(f"{name}: whole, in {path}")
    if bad:
        sys.exit(1)


@models.command()
@click.argument("model", metavar="NAME_OR_PATH")
@click.option(
    "--to",
    "folder",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Make the model's folder in DIR.  [default: MODEL_DIR/exported]",
)
@click.option("--name", metavar="NAME", help="Call the folder NAME.  [default: as the model is called]")
@click.option(
    "--quantize",
    type=click.Choice(["int8"]),
    help="Store a recogniser's matrices in a byte a number: a third of the size, and not quite what NeMo says.",
)
def export(model: str, folder: Path | None, name: str | None, quantize: Literal["int8"] | None) -> None:
    """Turn a NeMo model into ONNX files, which run without PyTorch.

    NAME_OR_PATH is a CTC, RNN-T or TDT recogniser, a speaker model or a frame VAD: a name on the hub or in NVIDIA's
    catalogue, or the path of a .nemo file. This takes NeMo; where the files are used (RECOGNIZER=onnx, DIARIZER=onnx)
    it is not needed. A model of that name that was exported before is replaced.
    """
    settings = load_settings()
    try:
        from diarist.engines.nemo.export import Wish
        from diarist.engines.nemo.export import export as run

        path = run(Wish(model, folder, name, quantize), settings, lambda step: click.echo(f"{model}: {step}", err=True))
    except ImportError as error:
        raise EngineUnavailable(
            f"The export needs NeMo, which is not installed here ({error}): `pip install -e '.[nemo]'`, or export on"
            " another machine and copy the folder."
        ) from error
    click.echo(f"{path.name}: ready in {path}")


def _pull_nemo(settings: Settings, *, offline: bool) -> None:
    """NeMo's models that the settings name, into the caches of the hub and of NeMo; nothing is loaded."""
    from diarist.engines.required_models import required_models

    of_nemo = [model for model in required_models(settings) if not model.exported]
    if not of_nemo:
        return
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"  # before the hub's library reads it
    from diarist.engines.nemo.download import Reference, find

    for model in of_nemo:
        click.echo(f"{model.name}: looking for it", err=True)
        try:
            path = find(Reference(model.reference, model.role, model.named_by), settings)
        except ImportError as error:
            raise EngineUnavailable(
                f"{model.reference} is in NVIDIA's catalogue, which only NeMo can read, and NeMo is not installed here"
                f" ({error}): `pip install -e '.[nemo]'`."
            ) from error
        click.echo(f"{model.name}: ready in {path}")


def _store() -> tuple[Settings, ModelStore]:
    from diarist.models import ModelStore

    settings = load_settings()
    return settings, ModelStore.of(settings)


def _chosen(names: tuple[str, ...], settings: Settings, store: ModelStore, *, everything: bool) -> tuple[str, ...]:
    """What the user asked for, each once.

    Raises:
        InvalidOption: a name that no model has.
    """
    from diarist.models import required

    for name in names:
        if name not in store.models:
            raise InvalidOption(f"There is no model {name!r}: there are {', '.join(store.models)}.")
    if everything:
        return tuple(store.models)
    return tuple(dict.fromkeys(names)) or required(settings)


@contextmanager
def _progress_of(name: str) -> Iterator[BytesProgress]:
    """On standard error: a bar where that is a terminal, else one line; nothing if nothing is fetched."""
    if not sys.stderr.isatty():
        said = False

        def tell(_model: str, _done_bytes: int, total_bytes: int) -> None:
            nonlocal said
            if not said and total_bytes:
                click.echo(f"{name}: fetching {_megabytes(total_bytes)}", err=True)
                said = True

        yield tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)

        def show(_model: str, done_bytes: int, total_bytes: int) -> None:
            bar.update(task, completed=done_bytes, total=total_bytes or None)

        yield show


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"
