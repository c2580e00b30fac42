"""Lookup and download of ``.nemo`` files: on this machine if possible, otherwise from the publisher.

The places are tried in this order: the path; ``MODEL_SOURCE_DIR``; the hub's cache; NeMo's own cache; and then, unless
``HF_HUB_OFFLINE`` is set, the network. A file that is found in a cache is used without checking for a newer version. A
reference comes from the settings or from a configuration file, never from a request.
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

from diarist.engines.nemo import archive, published_models
from diarist.engines.nemo.published_models import Role
from diarist.errors import ModelCorrupt, ModelUnavailable
from diarist.models.file_hashes import sha256_of
from diarist.settings import Settings

logger = logging.getLogger(__name__)

OFFLINE_REASON = "is not in any cache on this machine, and HF_HUB_OFFLINE does not allow downloading it"

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_CATALOG_NAME = re.compile(r"[\w.-]+")


@dataclass(frozen=True, slots=True)
class Reference:
    """Represents the name of a model together with the setting that contains it."""

    text: str
    """A path, a name on the hub (``nvidia/...``), or a name in NVIDIA's catalog."""

    role: Role
    named_by: str | None = None
    """The setting, or the key of a configuration file, that contains the name."""

    @property
    def label(self) -> str:
        """The description for messages: ``The model titanet_large (named by ...)``."""
        return f"The model {self.text}" + (f" (named by {self.named_by})" if self.named_by else "")

    @property
    def is_path(self) -> bool:
        """Whether the reference is a path: it has the form of a path, or a file of that name exists."""
        return self.text.endswith(".nemo") or self.text.startswith(("/", "./", "../", "~")) or self.path.is_file()

    @property
    def path(self) -> Path:
        return Path(self.text).expanduser()


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """Represents a model in NVIDIA's catalog, as NeMo lists it."""

    url: str
    description: str

    @property
    def file_name(self) -> str:
        return PurePosixPath(self.url).name

    @property
    def cache_path(self) -> Path:
        """The path in NeMo's cache. NeMo derives the folder's name from the URL and the description."""
        digest = hashlib.md5((self.url + self.description).encode(), usedforsecurity=False).hexdigest()
        return nemo_cache() / self.file_name.removesuffix(".nemo") / digest / self.file_name


def find(reference: Reference, settings: Settings) -> Path:
    """Return the path of a model's file, which is downloaded if it is not on this machine.

    Raises:
        ModelUnavailable: If the file is unavailable. The message gives the reason and the ways to provide the file.
    """
    if reference.is_path:
        return _local_file(reference)
    if found := _find_in_source_folder(f"{PurePosixPath(reference.text).name}.nemo", settings):
        return found
    name = reference.text
    if "/" not in name and (published := published_models.find(name)):
        name = published.name  # the publisher may be omitted from the name of a model on the hub
    if _HUB_NAME.fullmatch(name):
        return _find_in_hub_cache(name) or _fetch_from_hub(reference, name, settings)
    if _CATALOG_NAME.fullmatch(name):
        entry = _catalog_entry(reference, name)
        if entry.url.startswith("https://huggingface.co/"):
            name = entry.url.removeprefix("https://huggingface.co/")
            return _find_in_hub_cache(name) or _fetch_from_hub(reference, name, settings)
        found = _find_in_source_folder(entry.file_name, settings) or _find_in_nemo_cache(entry)
        return found or _fetch_from_catalog(reference, entry, settings)
    raise _unavailable(
        reference, "is neither a path to a .nemo file nor a name like nvidia/parakeet-tdt-0.6b-v3 or titanet_large"
    )


def check_hash(reference: Reference, path: Path, settings: Settings) -> None:
    """Check the SHA-256 of a model's file, if it is known: from ``NEMO_SHA256``, or else that of a published model.

    A file that is given by its path may be another model with the name of a published one, so that only
    ``NEMO_SHA256`` counts for it.

    Raises:
        ModelCorrupt: If the file has another hash.
        ConfigurationError: If ``NEMO_SHA256`` cannot be read.
    """
    hashes = archive.parse_hashes(settings.nemo_sha256)
    published = None if reference.is_path else published_models.find(reference.text)
    names = (reference.text, published.name) if published else (reference.text,)
    required = next((hashes[name] for name in names if name in hashes), None)
    expected = required or (published.sha256 if published else None)
    if expected is None or (digest := sha256_of(path, record_folder=settings.model_dir)) == expected:
        return
    if required:
        raise ModelCorrupt(
            f"{reference.label} does not have the hash in NEMO_SHA256: {path} has the SHA-256 {digest}. Download it"
            " again, or correct the hash."
        )
    raise ModelCorrupt(
        f"{reference.label} is not the file that was published: {path} has the SHA-256 {digest} instead of {expected}."
        f" Remove it, so that it is downloaded again, or set NEMO_SHA256={reference.text}={digest} if you trust it."
    )


def nemo_cache() -> Path:
    """Return the folder of NeMo's own cache, without importing NeMo."""
    folder = os.environ.get("NEMO_CACHE_DIR")
    version = importlib.metadata.version("nemo_toolkit")
    return Path(folder).resolve() if folder else Path.home() / ".cache" / "torch" / "NeMo" / f"NeMo_{version}"


def _local_file(reference: Reference) -> Path:
    path = reference.path
    if path.is_dir():
        raise _unavailable(reference, "is a folder: give the path of the .nemo file in it")
    if not path.is_file():
        raise _unavailable(reference, "is missing: no file exists at that path")
    if not os.access(path, os.R_OK):
        raise _unavailable(reference, "cannot be read: this user does not have permission to read the file")
    return path


def _find_in_source_folder(file_name: str, settings: Settings) -> Path | None:
    path = settings.model_source_dir / file_name if settings.model_source_dir else None
    return path if path and path.is_file() else None


def _find_in_hub_cache(name: str) -> Path | None:
    """Return the ``.nemo`` file of a repository in the hub's cache, or None.

    The revision that ``main`` refers to is preferred, then the newest one.
    """
    folder_name = f"models--{name.replace('/', '--')}".lower()  # names on the hub are case-insensitive
    for folder in sorted(Path(constants.HF_HUB_CACHE).glob("models--*")):
        if folder.name.lower() != folder_name:
            continue
        revisions = sorted(folder.glob("snapshots/*"), key=lambda path: path.stat().st_mtime, reverse=True)
        with contextlib.suppress(OSError):
            revisions.insert(0, folder / "snapshots" / (folder / "refs" / "main").read_text(encoding="utf-8").strip())
        for revision in revisions:
            # is_file() is false for a link to an incomplete download
            files = [path.name for path in revision.glob("*.nemo") if path.is_file()]
            if file := _choose(files, name):
                return revision / file
    return None


def _choose(files: Iterable[str], name: str) -> str | None:
    """Return the file that is named after the repository, or the only file, or None."""
    by_name = {file.lower(): file for file in files}
    expected = f"{PurePosixPath(name).name}.nemo".lower()
    return by_name.get(expected) or (next(iter(by_name.values())) if len(by_name) == 1 else None)


def _fetch_from_hub(reference: Reference, name: str, settings: Settings) -> Path:
    page = f"{constants.ENDPOINT}/{name}"
    if constants.HF_HUB_OFFLINE:
        raise _unavailable(reference, OFFLINE_REASON)
    logger.info("Downloading the model %s from %s", name, constants.ENDPOINT)
    try:
        return _download_from_hub(name, settings.hub_timeout_s)
    except LookupError as error:
        raise _unavailable(reference, f"cannot be used: {page} does not contain exactly one .nemo file") from error
    except errors.GatedRepoError as error:
        terms = f"accept them at {page}, and set HF_TOKEN to a token of that account"
        raise _unavailable(reference, f"is available only to users who have accepted its terms: {terms}") from error
    except errors.RepositoryNotFoundError as error:
        raise _unavailable(reference, f"is not on the hub or is not public: {page} was not found") from error
    except errors.HFValidationError as error:
        raise _unavailable(reference, "has a name that is not valid on the hub") from error
    except Exception as error:
        # which errors of its HTTP library the hub's client lets through differs from version to version
        raise _unavailable(reference, _network_error(error, constants.ENDPOINT)) from error


def _download_from_hub(name: str, timeout_s: float) -> Path:
    hub = huggingface_hub.HfApi(endpoint=constants.ENDPOINT, library_name="diarist")
    published = published_models.find(name)
    revision = published.revision if published and published.name.lower() == name.lower() else None
    # one request without retries: for the download itself the hub's client would retry six times, with pauses
    info = hub.model_info(name, revision=revision, timeout=timeout_s)
    file_names = (file_info.rfilename for file_info in info.siblings or ())
    file = _choose((file_name for file_name in file_names if file_name.endswith(".nemo")), name)
    if file is None:
        raise LookupError(name)
    return Path(hub.hf_hub_download(name, file, revision=revision, etag_timeout=timeout_s))


def _catalog_entry(reference: Reference, name: str) -> CatalogEntry:
    import nemo.collections.asr.models as classes

    entries: dict[str, CatalogEntry] = {}
    for class_name in (name for names in published_models.CLASSES.values() for name in names):
        for info in getattr(classes, class_name).list_available_models() or ():
            for model_name in (info.pretrained_model_name, *(info.aliases or ())):
                entries.setdefault(model_name, CatalogEntry(info.location, info.description))
    if name in entries:
        return entries[name]
    similar = difflib.get_close_matches(
        name, [*entries, *(model.name for model in published_models.PUBLISHED_MODELS)], n=1
    )
    raise _unavailable(
        reference, "is not in NVIDIA's catalog" + (f"; the most similar name is {similar[0]}" if similar else "")
    )


def _find_in_nemo_cache(entry: CatalogEntry) -> Path | None:
    """Return the file in the cache of this version of NeMo, or where another version or a user has put it, or None."""
    if entry.cache_path.is_file():
        return entry.cache_path
    folders = (nemo_cache(), *sorted(nemo_cache().parent.glob("NeMo_*"), reverse=True))
    patterns = (f"{entry.file_name.removesuffix('.nemo')}/*/{entry.file_name}", entry.file_name)
    return next((path for folder in folders for pattern in patterns for path in sorted(folder.glob(pattern))), None)


def _fetch_from_catalog(reference: Reference, entry: CatalogEntry, settings: Settings) -> Path:
    if constants.HF_HUB_OFFLINE:
        raise _unavailable(reference, OFFLINE_REASON)
    logger.info("Downloading the model %s from %s", reference.text, entry.url)
    path = entry.cache_path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f"{path.name}.lock")):  # each GPU has its own worker process
            if not path.is_file():
                _download(entry.url, path, settings.hub_timeout_s)
    except (OSError, http.client.HTTPException) as error:
        raise _unavailable(reference, _network_error(error, entry.url)) from error
    return path


def _download(url: str, path: Path, timeout_s: float) -> None:
    """Download a file completely or not at all.

    NeMo's own download leaves a partial file when it is interrupted, and uses that file as the model afterwards.
    """
    partial = path.with_name(f"{path.name}.partial")
    request = urllib.request.Request(url, headers={"User-Agent": "diarist"})  # noqa: S310 - a URL in NeMo's source
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response, partial.open("wb") as stream:  # noqa: S310
            shutil.copyfileobj(response, stream, 2**20)
            length = response.headers.get("Content-Length")
            if length is not None and stream.tell() != int(length):
                raise http.client.IncompleteRead(b"", int(length) - stream.tell())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _network_error(error: BaseException, url: str) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None) or getattr(error, "code", None)
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"could not be downloaded: the disk is full ({cause.filename or nemo_cache()})"
        if isinstance(cause, PermissionError) and cause.filename:
            return f"could not be downloaded: {cause.filename} is not writable"
    if status in (401, 403):
        return f"is not public: {url} returned {status}; set HF_TOKEN to a token that may read it"
    if status == 404:
        return f"no longer exists: {url} returned 404"
    if status:
        return f"could not be downloaded: {url} returned {status}"
    root = [*_causes(error)][-1]
    reason = next(iter(str(root).strip().splitlines()), type(root).__name__)
    return f"could not be downloaded: {url} cannot be reached ({reason})"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _unavailable(reference: Reference, reason: str) -> ModelUnavailable:
    named_by = f" as {reference.named_by}" if reference.named_by else ""
    cache = f"{constants.HF_HUB_CACHE} (HF_HOME)" if "/" in reference.text else f"{nemo_cache()} (NEMO_CACHE_DIR)"
    first_way = "give its published name and let it" if reference.is_path else "let it"
    return ModelUnavailable(
        f"{reference.label} {reason}. There are three ways to provide it: {first_way} be downloaded once, with a"
        f" network and without HF_HUB_OFFLINE; give the path of its .nemo file{named_by}, or put that file into"
        f" MODEL_SOURCE_DIR; or copy the cache, here {cache}, from a machine that has it."
    )
