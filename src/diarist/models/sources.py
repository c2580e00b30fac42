"""The sources of model files: a folder, installed distributions, a package index, and a model hub.

A source puts those of the requested files that it has into the staging folder, after checking their hashes, and
returns its errors. The store decides whether the files are sufficient.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from diarist.errors import ModelCorrupt, ModelUnavailable
from diarist.models.catalog import Model, ModelFile, Part, Wheel
from diarist.models.integrity import write_checked
from diarist.models.pip_download import DownloadFailed, download_wheel

BytesProgress = Callable[[str, int, int], None]
"""Called as ``progress(model, done_bytes, total_bytes)`` for the current source; it may raise to stop the download."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Represents a requested file of a model."""

    model: Model
    file: ModelFile

    def staged(self, staging: Path) -> Path:
        return staging / self.model.name / self.file.name


@dataclass(frozen=True, slots=True)
class Request:
    """Represents a request to the sources for the files of a model."""

    model: Model
    needed: tuple[Wanted, ...]
    """The files that the model needs."""

    welcome: tuple[Wanted, ...]
    """Missing files of other models in the same wheels. They are extracted too, to not download a wheel twice."""

    staging: Path
    """The folder for the files and for temporary files."""

    progress: BytesProgress

    def open(self) -> tuple[Wanted, ...]:
        """Return the files that no source has provided yet."""
        return tuple(w for w in (*self.needed, *self.welcome) if not w.staged(self.staging).exists())

    @property
    def done(self) -> bool:
        return all(wanted.staged(self.staging).exists() for wanted in self.needed)


@dataclass(frozen=True, slots=True)
class Fault:
    """Represents the reason why a source did not provide a file."""

    words: str
    """The message for the user: the source and the reason."""

    refused: bool = False
    """Whether the source has a file of that name, but with an unexpected hash."""


class Source(Protocol):
    """A source of model files."""

    @property
    def remote(self) -> bool:
        """Whether the source is accessed over the network."""
        ...

    def fetch(self, request: Request) -> tuple[Fault, ...]:
        """Put the available files of the request into the staging folder, and return the errors for the user.

        Raises:
            OSError: If the staging folder cannot be written.
            Cancelled: If ``progress`` raised it.
        """
        ...


@dataclass(frozen=True, slots=True)
class FolderSource:
    """A folder of the user with model files as ``<model>/<file>``, or with the wheels that contain them."""

    folder: Path
    remote: bool = False

    def fetch(self, request: Request) -> tuple[Fault, ...]:
        faults: list[Fault] = []
        for wanted in request.open():
            plain = self.folder / wanted.model.name / wanted.file.name
            if plain.is_file():
                _stage(wanted, request, _opened([plain]), f"{self.folder}", faults)
        wheels = {wheel: found for wheel in _wheels(request.open()) for found in self._wheels_of(wheel)}
        _unpack(request, wheels, f"{self.folder}", faults)
        if not request.done and not faults:
            faults.append(Fault(f"{self.folder}: it contains neither the files nor the wheels"))
        return tuple(faults)

    def _wheels_of(self, wheel: Wheel) -> list[Path]:
        return sorted(self.folder.glob(wheel.pattern))


@dataclass(frozen=True, slots=True)
class InstalledSource:
    """The distributions that are installed in this environment."""

    remote: bool = False

    def fetch(self, request: Request) -> tuple[Fault, ...]:
        faults: list[Fault] = []
        for wanted in request.open():
            paths = [_installed(part) for part in wanted.file.parts]
            found = [path for path in paths if path is not None]
            if found and len(found) == len(paths):
                _stage(wanted, request, _opened(found), "the installed package", faults)
        return tuple(faults)


def _installed(part: Part) -> Path | None:
    try:
        distribution = importlib.metadata.distribution(part.wheel.distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    path = Path(str(distribution.locate_file(part.path)))
    return path if distribution.version == part.wheel.version and path.is_file() else None


@dataclass(frozen=True, slots=True)
class IndexSource:
    """The package index of pip's configuration, accessed with pip, so that mirrors, credentials and proxies apply."""

    remote: bool = True

    def fetch(self, request: Request) -> tuple[Fault, ...]:
        faults: list[Fault] = []
        wheels = _wheels(wanted for wanted in request.needed if not wanted.staged(request.staging).exists())
        total = sum(wheel.size_bytes for wheel in wheels)
        before, highest = 0, 0
        got: dict[Wheel, Path] = {}
        for wheel in wheels:

            def note(done_bytes: int, before: int = before, size_bytes: int = wheel.size_bytes) -> None:
                # pip copies the wheel at the end and may download it again; neither counts as progress.
                nonlocal highest
                highest = max(highest, before + min(done_bytes, size_bytes))
                request.progress(request.model.name, highest, total)

            try:
                got[wheel] = download_wheel(wheel, request.staging / "wheels" / wheel.distribution, note)
            except DownloadFailed as failure:
                faults.append(Fault(f"package index ({wheel.requirement}): {failure}"))
                break
            before += wheel.size_bytes
            note(wheel.size_bytes)
        if not faults:
            _unpack(request, got, "package index", faults)
        shutil.rmtree(request.staging / "wheels", ignore_errors=True)
        return tuple(faults)


def _wheels(wanted: Iterable[Wanted]) -> tuple[Wheel, ...]:
    return tuple(dict.fromkeys(part.wheel for item in wanted for part in item.file.parts))


def _unpack(request: Request, wheels: dict[Wheel, Path], place: str, faults: list[Fault]) -> None:
    """Extract every missing file of the request that the wheels contain completely."""
    for wanted in request.open():
        parts = wanted.file.parts
        if parts and all(part.wheel in wheels for part in parts):
            _stage(wanted, request, _members((wheels[part.wheel], part.path) for part in parts), place, faults)


def _opened(paths: Iterable[Path]) -> Generator[BinaryIO, None, None]:
    for path in paths:
        with _readable(path) as stream:
            yield stream


def _members(places: Iterable[tuple[Path, str]]) -> Generator[BinaryIO, None, None]:
    for wheel, path in places:
        with _readable(wheel) as file, zipfile.ZipFile(file) as archive, archive.open(path) as stream:
            yield cast(BinaryIO, stream)


def _readable(path: Path) -> BinaryIO:
    # An unreadable file is an error of the source; an OSError would be reported as one of the model folder.
    try:
        return path.open("rb")
    except OSError as error:
        raise ModelUnavailable(f"{path} cannot be read ({error.strerror})") from error


def _stage(
    wanted: Wanted, request: Request, streams: Generator[BinaryIO, None, None], place: str, faults: list[Fault]
) -> None:
    target = wanted.staged(request.staging)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_checked(wanted.file, streams, target)
    except ModelCorrupt as error:
        fault = Fault(f"{place}: rejected, {error}", refused=True)
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
        fault = Fault(f"{place}: rejected, the wheel is damaged ({error})", refused=True)
    except ModelUnavailable as error:
        fault = Fault(f"{place}: {error}")
    else:
        return
    finally:
        streams.close()
    if wanted in request.needed:
        faults.append(fault)


@dataclass(frozen=True, slots=True)
class HubSource:
    """The model hub, accessed with its own client, so that its settings (mirror, token, HF_HUB_OFFLINE) apply."""

    remote: bool = True

    def fetch(self, request: Request) -> tuple[Fault, ...]:
        hub = request.model.hub
        if hub is None:
            return ()
        from huggingface_hub import hf_hub_download

        faults: list[Fault] = []
        place = f"model hub ({hub})"
        total = sum(wanted.file.size_bytes for wanted in request.needed)
        done = 0
        folder = request.staging / "hub"
        for wanted in request.needed:
            request.progress(request.model.name, done, total)
            try:
                got = hf_hub_download(hub, wanted.file.name, revision=request.model.revision, local_dir=folder)
            # The client raises errors of several libraries, which differ from version to version.
            except Exception as error:  # noqa: BLE001
                words = next(iter(str(error).splitlines()), "") or type(error).__name__
                faults.append(Fault(f"{place}: {words}"))
                break
            _stage(wanted, request, _opened([Path(got)]), place, faults)
            done += wanted.file.size_bytes
        shutil.rmtree(folder, ignore_errors=True)
        return tuple(faults)
