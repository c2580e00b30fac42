"""The sources of model files: a folder, installed distributions, and a package index.

A source provides those of the requested files that it has, after checking their hashes, and returns its errors. The
store decides whether the files are sufficient. The hub is in ``hub_source``.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import zipfile
import zlib
from collections.abc import Callable, Collection, Generator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from diarist.errors import ModelCorrupt, ModelUnavailable
from diarist.models.catalog import Model, ModelFile, Part, Wheel
from diarist.models.integrity import write_checked
from diarist.models.pip_download import DownloadFailed, download_wheel

BytesProgress = Callable[[str, int, int], None]
"""Called as ``progress(model, done_bytes, total_bytes)`` for the current source; it may raise to stop the download."""


@dataclass(frozen=True, slots=True)
class RequestedFile:
    """Represents a requested file of a model."""

    model: Model
    file: ModelFile


@dataclass(frozen=True, slots=True)
class FileRequest:
    """Represents a request to the sources for the files of a model."""

    model: Model
    required: tuple[RequestedFile, ...]
    """The files that the model needs."""

    optional: tuple[RequestedFile, ...]
    """Missing files of other models in the same wheels. They are extracted too, to not download a wheel twice."""

    staging: Path
    """The folder for temporary files, which is removed after the pull."""

    partial: Path
    """The folder for partial downloads, which the next pull resumes."""

    progress: BytesProgress

    install: Callable[[RequestedFile, Path], None]
    """Moves a file whose hash is right into the folder of its model."""

    _provided: set[RequestedFile] = field(default_factory=set)

    def provide(self, requested: RequestedFile, path: Path) -> None:
        """Put a file whose hash is right into the folder of its model; ``path`` does not exist afterwards."""
        self.install(requested, path)
        self._provided.add(requested)

    def missing(self) -> tuple[RequestedFile, ...]:
        """Return the files that no source has provided yet."""
        return tuple(each for each in (*self.required, *self.optional) if each not in self._provided)

    def missing_required(self) -> tuple[RequestedFile, ...]:
        """Return the required files that no source has provided yet."""
        return tuple(each for each in self.required if each not in self._provided)

    def partial_path(self, requested: RequestedFile) -> Path:
        """Return the path of a partial download. Its name contains the hash, because only the same file is resumed."""
        name = requested.file.name.replace("/", "-")
        return self.partial / f"{name}.{requested.file.sha256[:16]}"

    @property
    def is_complete(self) -> bool:
        return not self.missing_required()


@dataclass(frozen=True, slots=True)
class SourceFailure:
    """Represents the reason why a source did not provide a file."""

    message: str
    """The message for the user: the source and the reason."""

    corrupt: bool = False
    """Whether the source has a file of that name, but with an unexpected hash."""


class Source(Protocol):
    """A source of model files."""

    @property
    def name(self) -> str:
        """The name for messages."""
        ...

    @property
    def remote(self) -> bool:
        """Whether the source is accessed over the network."""
        ...

    def needed_bytes(self, request: FileRequest) -> int:
        """Return the disk space that ``fetch`` needs for the missing files that the source probably has."""
        ...

    def fetch(self, request: FileRequest) -> tuple[SourceFailure, ...]:
        """Provide the available files of the request, and return the errors for the user.

        Raises:
            OSError: If the model folder cannot be written.
            Cancelled: If ``progress`` raised it.
        """
        ...


@dataclass(frozen=True, slots=True)
class FolderSource:
    """A folder of the user with model files as ``<model>/<file>``, or with the wheels that contain them."""

    folder: Path
    remote: bool = False

    @property
    def name(self) -> str:
        return str(self.folder)

    def needed_bytes(self, request: FileRequest) -> int:
        wheels = {wheel for wheel in _wheels_of(request.missing()) if self._matching_wheels(wheel)}
        return sum(
            requested.file.size_bytes
            for requested in request.missing()
            if self._plain(requested).is_file() or _is_in(requested, wheels)
        )

    def fetch(self, request: FileRequest) -> tuple[SourceFailure, ...]:
        failures: list[SourceFailure] = []
        for requested in request.missing():
            if self._plain(requested).is_file():
                _stage(requested, request, _open_files([self._plain(requested)]), self.name, failures)
        wheels = {wheel: found for wheel in _wheels_of(request.missing()) for found in self._matching_wheels(wheel)}
        _unpack(request, wheels, self.name, failures)
        if not request.is_complete and not failures:
            has_wheels = any(requested.file.parts for requested in request.required)
            what = "neither the files nor the wheels" if has_wheels else "none of the files"
            failures.append(SourceFailure(f"{self.name}: it contains {what}"))
        return tuple(failures)

    def _plain(self, requested: RequestedFile) -> Path:
        return self.folder / requested.model.name / requested.file.name

    def _matching_wheels(self, wheel: Wheel) -> list[Path]:
        return sorted(self.folder.glob(wheel.pattern))


@dataclass(frozen=True, slots=True)
class InstalledSource:
    """The distributions that are installed in this environment."""

    name: str = "the installed package"
    remote: bool = False

    def needed_bytes(self, request: FileRequest) -> int:
        return sum(requested.file.size_bytes for requested in request.missing() if _installed_parts(requested))

    def fetch(self, request: FileRequest) -> tuple[SourceFailure, ...]:
        failures: list[SourceFailure] = []
        for requested in request.missing():
            if parts := _installed_parts(requested):
                _stage(requested, request, _open_files(parts), self.name, failures)
        return tuple(failures)


def _installed_parts(requested: RequestedFile) -> tuple[Path, ...]:
    """Return the paths of the installed parts of a file; none if one of them is not installed."""
    paths = [_installed_path(part) for part in requested.file.parts]
    found = tuple(path for path in paths if path is not None)
    return found if len(found) == len(paths) else ()


def _installed_path(part: Part) -> Path | None:
    try:
        distribution = importlib.metadata.distribution(part.wheel.distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    path = Path(str(distribution.locate_file(part.path)))
    return path if distribution.version == part.wheel.version and path.is_file() else None


@dataclass(frozen=True, slots=True)
class IndexSource:
    """The package index of pip's configuration, accessed with pip, so that mirrors, credentials and proxies apply."""

    name: str = "package index"
    remote: bool = True

    def needed_bytes(self, request: FileRequest) -> int:
        wheels = _wheels_of(request.missing_required())
        files = sum(requested.file.size_bytes for requested in request.missing() if _is_in(requested, wheels))
        wheel_sizes = [wheel.size_bytes for wheel in wheels]
        # pip copies each wheel after downloading it
        return sum(wheel_sizes) + max(wheel_sizes, default=0) + files

    def fetch(self, request: FileRequest) -> tuple[SourceFailure, ...]:
        failures: list[SourceFailure] = []
        wheels = _wheels_of(request.missing_required())
        total = sum(wheel.size_bytes for wheel in wheels)
        before, highest = 0, 0
        paths: dict[Wheel, Path] = {}
        for wheel in wheels:

            def report(done_bytes: int, before: int = before, size_bytes: int = wheel.size_bytes) -> None:
                # pip copies the wheel at the end and may download it again; neither counts as progress.
                nonlocal highest
                highest = max(highest, before + min(done_bytes, size_bytes))
                request.progress(request.model.name, highest, total)

            try:
                paths[wheel] = download_wheel(wheel, request.staging / "wheels" / wheel.distribution, report)
            except DownloadFailed as failure:
                failures.append(SourceFailure(f"{self.name} ({wheel.requirement}): {failure}"))
                break
            before += wheel.size_bytes
            report(wheel.size_bytes)
        if not failures:
            _unpack(request, paths, self.name, failures)
        shutil.rmtree(request.staging / "wheels", ignore_errors=True)
        return tuple(failures)


def _wheels_of(requested: Iterable[RequestedFile]) -> tuple[Wheel, ...]:
    return tuple(dict.fromkeys(part.wheel for item in requested for part in item.file.parts))


def _is_in(requested: RequestedFile, wheels: Collection[Wheel]) -> bool:
    """Return whether the wheels contain the whole file."""
    parts = requested.file.parts
    return bool(parts) and all(part.wheel in wheels for part in parts)


def _unpack(request: FileRequest, wheels: dict[Wheel, Path], source: str, failures: list[SourceFailure]) -> None:
    """Extract every missing file of the request that the wheels contain completely."""
    for requested in request.missing():
        parts = requested.file.parts
        if _is_in(requested, wheels):
            _stage(
                requested,
                request,
                _open_wheel_members((wheels[part.wheel], part.path) for part in parts),
                source,
                failures,
            )


def _open_files(paths: Iterable[Path]) -> Generator[BinaryIO, None, None]:
    for path in paths:
        with _open_source_file(path) as stream:
            yield stream


def _open_wheel_members(places: Iterable[tuple[Path, str]]) -> Generator[BinaryIO, None, None]:
    for wheel, path in places:
        with _open_source_file(wheel) as file, zipfile.ZipFile(file) as archive, archive.open(path) as stream:
            yield cast(BinaryIO, stream)


def _open_source_file(path: Path) -> BinaryIO:
    # An unreadable file is an error of the source; an OSError would be reported as one of the model folder.
    try:
        return path.open("rb")
    except OSError as error:
        raise ModelUnavailable(f"{path} cannot be read ({error.strerror})") from error


def _stage(
    requested: RequestedFile,
    request: FileRequest,
    streams: Generator[BinaryIO, None, None],
    source: str,
    failures: list[SourceFailure],
) -> None:
    target = request.staging / requested.model.name / requested.file.name
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_checked(requested.file, streams, target)
    except ModelCorrupt as error:
        failure = SourceFailure(f"{source}: rejected, {error}", corrupt=True)
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
        failure = SourceFailure(f"{source}: rejected, the wheel is damaged ({error})", corrupt=True)
    except ModelUnavailable as error:
        failure = SourceFailure(f"{source}: {error}")
    else:
        request.provide(requested, target)
        return
    finally:
        streams.close()
    if requested in request.required:
        failures.append(failure)
