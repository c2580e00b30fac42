"""The ``.nemo`` file that a reference means: on this machine if it is anywhere there, else from where it is published.

In order: the path; ``MODEL_SOURCE_DIR``; the cache of the hub; NeMo's own cache; and only then, unless
``HF_HUB_OFFLINE`` is set, the network. Whatever is found in a cache is used without asking anybody whether it is the
newest. A reference comes from the settings or from a configuration file, never from a request.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import hashlib
import http.client
import importlib.metadata
import logging
import os
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import huggingface_hub
from filelock import FileLock
from huggingface_hub import constants, errors

from diarist.engines.nemo import published_models
from diarist.engines.nemo.published_models import Role
from diarist.errors import ModelUnavailable
from diarist.settings import Settings

logger = logging.getLogger(__name__)

OFFLINE = "is in no cache on this machine, and HF_HUB_OFFLINE forbids to download it"

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_CATALOGUE_NAME = re.compile(r"[\w.-]+")


@dataclass(frozen=True, slots=True)
class Reference:
    """A model as it is named, and what names it."""

    text: str
    """A path, a name on the hub (``nvidia/...``), or a name in NVIDIA's catalogue."""

    role: Role
    named_by: str | None = None
    """The setting, or the key of a configuration file."""

    @property
    def words(self) -> str:
        """For messages: ``The model titanet_large (named by ...)``."""
        return f"The model {self.text}" + (f" (named by {self.named_by})" if self.named_by else "")

    @property
    def is_path(self) -> bool:
        """Whether it is meant as a path: it looks like nothing else, or there is a file."""
        return self.text.endswith(".nemo") or self.text.startswith(("/", "./", "../", "~")) or self.path.is_file()

    @property
    def path(self) -> Path:
        return Path(self.text).expanduser()


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A model in NVIDIA's catalogue, as NeMo knows it."""

    url: str
    description: str

    @property
    def file_name(self) -> str:
        return PurePosixPath(self.url).name

    @property
    def cached(self) -> Path:
        """Where NeMo keeps it; its folder is named after the address and the description, as NeMo does it."""
        digest = hashlib.md5((self.url + self.description).encode(), usedforsecurity=False).hexdigest()
        return nemo_cache() / self.file_name.removesuffix(".nemo") / digest / self.file_name


def find(reference: Reference, settings: Settings) -> Path:
    """The file of a model, downloaded where it is nowhere on this machine.

    Raises:
        ModelUnavailable: it could not be had; the message says why, and how to provide it.
    """
    if reference.is_path:
        return _at_path(reference)
    if found := _in_source_folder(f"{PurePosixPath(reference.text).name}.nemo", settings):
        return found
    name = reference.text
    if "/" not in name and (published := published_models.find(name)):
        name = published.name  # of those on the hub, the publisher may be left out
    if _HUB_NAME.fullmatch(name):
        return _in_hub_cache(name) or _from_hub(reference, name, settings)
    if _CATALOGUE_NAME.fullmatch(name):
        entry = _catalogue_entry(reference, name)
        if entry.url.startswith("https://huggingface.co/"):
            name = entry.url.removeprefix("https://huggingface.co/")
            return _in_hub_cache(name) or _from_hub(reference, name, settings)
        found = _in_source_folder(entry.file_name, settings) or _in_nemo_cache(entry)
        return found or _from_catalogue(reference, entry, settings)
    raise _unavailable(
        reference, "is neither the path of a .nemo file nor a name like nvidia/parakeet-tdt-0.6b-v3 or titanet_large"
    )


def nemo_cache() -> Path:
    """NeMo's own cache, where NeMo looks for it; told without importing it."""
    folder = os.environ.get("NEMO_CACHE_DIR")
    version = importlib.metadata.version("nemo_toolkit")
    return Path(folder).resolve() if folder else Path.home() / ".cache" / "torch" / "NeMo" / f"NeMo_{version}"


def _at_path(reference: Reference) -> Path:
    path = reference.path
    if path.is_dir():
        raise _unavailable(reference, "is a folder: give the path of the .nemo file in it")
    if not path.is_file():
        raise _unavailable(reference, "is not there: there is no file of that path")
    if not os.access(path, os.R_OK):
        raise _unavailable(reference, "cannot be read: this user may not read the file")
    return path


def _in_source_folder(file_name: str, settings: Settings) -> Path | None:
    path = settings.model_source_dir / file_name if settings.model_source_dir else None
    return path if path and path.is_file() else None


def _in_hub_cache(name: str) -> Path | None:
    """The ``.nemo`` file of a repository in the hub's cache: of the revision that ``main`` was, else the newest."""
    title = f"models--{name.replace('/', '--')}".lower()  # the hub takes a name in any case
    for folder in sorted(Path(constants.HF_HUB_CACHE).glob("models--*")):
        if folder.name.lower() != title:
            continue
        revisions = sorted(folder.glob("snapshots/*"), key=lambda path: path.stat().st_mtime, reverse=True)
        with contextlib.suppress(OSError):
            revisions.insert(0, folder / "snapshots" / (folder / "refs" / "main").read_text(encoding="utf-8").strip())
        for revision in revisions:
            files = [path.name for path in revision.glob("*.nemo") if path.is_file()]  # no link to half a download
            if file := _choose(files, name):
                return revision / file
    return None


def _choose(files: Iterable[str], name: str) -> str | None:
    """The file named after the repository, or the only one."""
    by_name = {file.lower(): file for file in files}
    wanted = f"{PurePosixPath(name).name}.nemo".lower()
    return by_name.get(wanted) or (next(iter(by_name.values())) if len(by_name) == 1 else None)


def _from_hub(reference: Reference, name: str, settings: Settings) -> Path:
    page = f"{constants.ENDPOINT}/{name}"
    if constants.HF_HUB_OFFLINE:
        raise _unavailable(reference, OFFLINE)
    logger.info("Fetching the model %s from %s", name, constants.ENDPOINT)
    try:
        return _download_from_hub(name, settings.hub_timeout_s)
    except LookupError as error:
        raise _unavailable(reference, f"is not what is needed: {page} does not have one .nemo file") from error
    except errors.GatedRepoError as error:
        terms = f"agree at {page}, and set HF_TOKEN to a token of that account"
        raise _unavailable(reference, f"is given only to those who have agreed to its terms: {terms}") from error
    except errors.RepositoryNotFoundError as error:
        raise _unavailable(reference, f"is not on the hub, or not for everybody: there is no {page}") from error
    except errors.HFValidationError as error:
        raise _unavailable(reference, "has a name that no model on the hub can have") from error
    except Exception as error:
        # what the hub's client lets through of the one below it differs from version to version
        raise _unavailable(reference, _network_fault(error, constants.ENDPOINT)) from error


def _download_from_hub(name: str, timeout_s: float) -> Path:
    hub = huggingface_hub.HfApi(endpoint=constants.ENDPOINT, library_name="diarist")
    # one question without a second try: before the download itself the hub's client would try six times, with pauses
    there = (one.rfilename for one in hub.model_info(name, timeout=timeout_s).siblings or ())
    file = _choose((one for one in there if one.endswith(".nemo")), name)
    if file is None:
        raise LookupError(name)
    return Path(hub.hf_hub_download(name, file, etag_timeout=timeout_s))


def _catalogue_entry(reference: Reference, name: str) -> CatalogueEntry:
    import nemo.collections.asr.models as classes

    entries: dict[str, CatalogueEntry] = {}
    for class_name in (name for names in published_models.CLASSES.values() for name in names):
        for info in getattr(classes, class_name).list_available_models() or ():
            for title in (info.pretrained_model_name, *(info.aliases or ())):
                entries.setdefault(title, CatalogueEntry(info.location, info.description))
    if name in entries:
        return entries[name]
    near = difflib.get_close_matches(name, [*entries, *(model.name for model in published_models.KNOWN)], n=1)
    raise _unavailable(reference, "is not in NVIDIA's catalogue" + (f": is {near[0]} meant?" if near else ""))


def _in_nemo_cache(entry: CatalogueEntry) -> Path | None:
    """Where this NeMo looks, else where another version or a hand has put it."""
    if entry.cached.is_file():
        return entry.cached
    folders = (nemo_cache(), *sorted(nemo_cache().parent.glob("NeMo_*"), reverse=True))
    places = (f"{entry.file_name.removesuffix('.nemo')}/*/{entry.file_name}", entry.file_name)
    return next((path for folder in folders for place in places for path in sorted(folder.glob(place))), None)


def _from_catalogue(reference: Reference, entry: CatalogueEntry, settings: Settings) -> Path:
    if constants.HF_HUB_OFFLINE:
        raise _unavailable(reference, OFFLINE)
    logger.info("Fetching the model %s from %s", reference.text, entry.url)
    path = entry.cached
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f"{path.name}.lock")):  # each GPU has a worker of its own
            if not path.is_file():
                _download(entry.url, path, settings.hub_timeout_s)
    except (OSError, http.client.HTTPException) as error:
        raise _unavailable(reference, _network_fault(error, entry.url)) from error
    return path


def _download(url: str, path: Path, timeout_s: float) -> None:
    """Whole or not at all: NeMo's own download leaves what it has when it is cut off, and takes it for the model."""
    partial = path.with_name(f"{path.name}.partial")
    request = urllib.request.Request(url, headers={"User-Agent": "diarist"})  # noqa: S310 - an address in NeMo's source
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response, partial.open("wb") as stream:  # noqa: S310
            shutil.copyfileobj(response, stream, 2**20)
            length = response.headers.get("Content-Length")
            if length is not None and stream.tell() != int(length):
                raise http.client.IncompleteRead(b"", int(length) - stream.tell())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _network_fault(error: BaseException, place: str) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None) or getattr(error, "code", None)
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"could not be downloaded: the disk is full ({cause.filename or nemo_cache()})"
        if isinstance(cause, PermissionError) and cause.filename:
            return f"could not be downloaded: {cause.filename} cannot be written"
    if status in (401, 403):
        return f"is not given to everybody: {place} answered {status}; set HF_TOKEN to a token that may read it"
    if status == 404:
        return f"is not there any more: {place} answered 404"
    if status:
        return f"could not be downloaded: {place} answered {status}"
    root = [*_causes(error)][-1]
    why = next(iter(str(root).strip().splitlines()), type(root).__name__)
    return f"could not be downloaded: {place} cannot be reached ({why})"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _unavailable(reference: Reference, what: str) -> ModelUnavailable:
    named_by = f" as {reference.named_by}" if reference.named_by else ""
    cache = f"{constants.HF_HUB_CACHE} (HF_HOME)" if "/" in reference.text else f"{nemo_cache()} (NEMO_CACHE_DIR)"
    it = "name it as it is published, and let it" if reference.is_path else "let it"
    return ModelUnavailable(
        f"{reference.words} {what}. There are three ways to provide it: {it} be downloaded once, with a network and"
        f" without HF_HUB_OFFLINE; give the path of its .nemo file{named_by}, or put that file into MODEL_SOURCE_DIR;"
        f" or fill the cache, here {cache}, from a machine that has it."
    )
