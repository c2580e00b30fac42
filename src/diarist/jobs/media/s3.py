"""Recordings and parts in an S3-compatible store: the keys ``<folder>/<job id>/recording`` and ``.../parts/<name>``.

Objects appear whole or not at all, so nothing is renamed here; only uploads of many pieces can be left half done.
"""

from __future__ import annotations

import fcntl
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from tempfile import mkstemp
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from diarist.errors import ConfigurationError, MediaMissing, MediaUnavailable, ServiceError, StorageFull
from diarist.jobs.media.directory import (
    CHUNK_BYTES,
    PARTS,
    RECORDING,
    check_disk,
    check_part_name,
    check_range,
    check_size,
)
from diarist.jobs.media.s3_errors import GONE, code_of, explained
from diarist.jobs.model import check_job_id, is_job_id
from diarist.scratch import disk_full
from diarist.settings import Settings

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0
TRIES = 4
CONNECTIONS = 32

PIECE_BYTES = 8 * 2**20
"""Of an upload: what is in memory of it. Larger where 10,000 of them, the most that S3 takes, would not do."""
MAX_PIECES = 10_000

_LOCAL = "recording-"
_PROBE = "probe-"


def open_s3(settings: Settings, min_free_bytes: int = 0) -> S3Media:
    """The recordings in the bucket of MEDIA_URL. Asks nothing of the store yet.

    Raises:
        ConfigurationError: a setting cannot be used, or boto3 is not installed.
    """
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError as error:
        raise ConfigurationError(
            f"MEDIA_URL names S3, which takes more libraries ({error}). Run `pip install 'diarist[distributed]'`."
        ) from error
    url = urlsplit(settings.media_url)
    if not url.netloc or url.query or url.fragment:
        raise ConfigurationError(f"MEDIA_URL is {settings.media_url!r}: write it as s3://bucket or s3://bucket/folder.")
    if bool(settings.s3_access_key) != bool(settings.s3_secret_key):
        raise ConfigurationError("Set both S3_ACCESS_KEY and S3_SECRET_KEY, or neither.")
    compatible = {
        "request_checksum_calculation": "when_required",  # older ones know no trailing checksums
        "response_checksum_validation": "when_required",
        "s3": {"addressing_style": "path"},  # they seldom have a name for each bucket
    }
    try:
        session = boto3.session.Session()
        client = session.client(
            "s3",
            endpoint_url=settings.s3_endpoint_url or None,
            region_name=settings.s3_region or session.region_name or "us-east-1",
            aws_access_key_id=settings.s3_access_key or None,
            aws_secret_access_key=settings.s3_secret_key or None,
            config=Config(
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=READ_TIMEOUT_S,
                retries={"total_max_attempts": TRIES, "mode": "standard"},
                max_pool_connections=CONNECTIONS,
                **(compatible if settings.s3_endpoint_url else {}),
            ),
        )
    except (BotoCoreError, ValueError) as error:
        raise ConfigurationError(
            f"The settings of S3 cannot be used ({error}). Check S3_ENDPOINT_URL, an address such as "
            "http://minio:9000, S3_REGION, and the AWS configuration of this machine."
        ) from error
    return S3Media(client, url.netloc, url.path.strip("/"), settings.temp_dir, min_free_bytes)


class S3Media:
    """A ``MediaStore`` in a bucket, by a client of boto3. Recordings that are worked on lie in ``temp_dir`` meanwhile.

    A lock on such a file tells ``clean`` that it is in use; the system drops it when the process dies.
    """

    def __init__(self, client: Any, bucket: str, folder: str, temp_dir: Path, min_free_bytes: int = 0) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = f"{folder}/" if folder else ""
        self._temp_dir = temp_dir
        self._min_free_bytes = min_free_bytes

    def check_room(self, size_bytes: int) -> None:
        """Raises ``StorageFull`` where this machine has too little; nobody can ask a bucket."""
        with self._explained():
            self._temp_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            check_disk(self._temp_dir, size_bytes, self._min_free_bytes, "TEMP_AUDIO_DIR or DATA_DIR")

    def keep(self, job_id: str, upload: BinaryIO | Path, limit_bytes: int) -> int:
        key = self._key(job_id, RECORDING)
        if isinstance(upload, Path):
            check_size(upload.stat().st_size, limit_bytes)
            with upload.open("rb") as file:
                size_bytes = self._put(key, file, limit_bytes)
            upload.unlink()
            return size_bytes
        return self._put(key, upload, limit_bytes)

    @contextmanager
    def local(self, job_id: str, tick: Callable[[], None] | None = None) -> Iterator[Path]:
        key = self._key(job_id, RECORDING)
        self._temp_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = mkstemp(prefix=_LOCAL, dir=self._temp_dir)
        path = Path(name)
        try:
            with open(handle, "wb") as file:  # noqa: PTH123 - it is open already
                fcntl.flock(file, fcntl.LOCK_EX)
                with self._explained(f"The recording of job {job_id} is not in S3 any more: it was removed."):
                    self._fetch(key, file, tick or _nothing)
                yield path
        finally:
            path.unlink(missing_ok=True)

    def keep_part(self, job_id: str, name: str, source: bytes | Path) -> None:
        key, recording = self._part(job_id, name), self._key(job_id, RECORDING)
        if isinstance(source, Path):
            with source.open("rb") as file:
                self._put(key, file, source.stat().st_size)
        else:
            with self._explained():
                self._client.put_object(Bucket=self._bucket, Key=key, Body=source)
        # Afterwards: remove() takes the recording first, so either it sees this part or this sees that it was there.
        try:
            with self._explained(f"Job {job_id} has no recording any more: it was removed."):
                self._client.head_object(Bucket=self._bucket, Key=recording)
        except MediaMissing:
            self._delete([key])
            raise

    def part(self, job_id: str, name: str) -> bytes:
        return self._get(job_id, name)

    def part_range(self, job_id: str, name: str, first_byte: int, stop_byte: int) -> bytes:
        check_range(first_byte, stop_byte)
        if first_byte == stop_byte:
            # S3 has no empty ranges; the part must be there all the same
            self._get(job_id, name, Range="bytes=0-0")
            return b""
        return self._get(job_id, name, Range=f"bytes={first_byte}-{stop_byte - 1}")

    def parts(self, job_id: str) -> frozenset[str]:
        prefix = self._key(job_id, f"{PARTS}/")
        return frozenset(key.removeprefix(prefix) for key in self._keys(prefix))

    def remove_parts(self, job_id: str) -> None:
        self._delete(self._keys(self._key(job_id, f"{PARTS}/")))

    def remove_recording(self, job_id: str) -> None:
        key = self._key(job_id, RECORDING)
        self._abort(key)
        self._delete([key])

    def remove(self, job_id: str) -> None:
        self.remove_recording(job_id)
        self._delete(self._keys(self._key(job_id, "")))
        self._abort(self._key(job_id, ""))

    def job_ids(self, *, with_parts: bool = False) -> frozenset[str]:
        if with_parts:
            halves = (key.removeprefix(self._prefix).split(f"/{PARTS}/") for key in self._keys(self._prefix))
            return frozenset(half[0] for half in halves if len(half) > 1 and is_job_id(half[0]))
        found = self._list("list_objects_v2", "CommonPrefixes", Prefix=self._prefix, Delimiter="/")
        names = (entry["Prefix"].removeprefix(self._prefix).removesuffix("/") for entry in found)
        return frozenset(name for name in names if is_job_id(name))

    def clean(self, older_than: datetime) -> int:
        """Files of this machine as well. MinIO lists no half-done uploads by folder, and ends them by itself."""
        probes = self._keys(f"{self._prefix}{_PROBE}", older_than)
        self._delete(probes)
        return len(probes) + self._abort(self._prefix, older_than) + self._clean_here(older_than)

    def probe(self) -> None:
        """Also whether deleting deletes, and all that this needs is allowed."""
        said, key = secrets.token_bytes(16), f"{self._prefix}{_PROBE}{secrets.token_hex(8)}"
        with self._explained():
            self._client.put_object(Bucket=self._bucket, Key=key, Body=said)
            try:
                same = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read() == said
                self._client.list_objects_v2(Bucket=self._bucket, Prefix=key, MaxKeys=1)
                self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=key, MaxUploads=1)
            finally:
                self._client.delete_object(Bucket=self._bucket, Key=key)
        if not same:
            raise MediaUnavailable(f"The bucket {self._bucket} gives back other bytes than were written.")
        if self._keeps_versions():
            raise MediaUnavailable(
                f"The bucket {self._bucket} keeps what is deleted as old versions, recordings of people among it. "
                "Suspend versioning, and remove the old versions, or name another bucket in MEDIA_URL."
            )

    def close(self) -> None:
        self._client.close()

    def _key(self, job_id: str, name: str) -> str:
        return f"{self._prefix}{check_job_id(job_id)}/{name}"

    def _part(self, job_id: str, name: str) -> str:
        return self._key(job_id, f"{PARTS}/{check_part_name(name)}")

    def _put(self, key: str, file: BinaryIO, limit_bytes: int) -> int:
        counted = _Counted(file, limit_bytes)
        try:
            with self._explained("The job was removed while its recording was stored."):
                self._client.upload_fileobj(
                    counted, self._bucket, key, Config=_transfer(max(PIECE_BYTES, -(-limit_bytes // MAX_PIECES)))
                )
        except Exception:
            raise  # boto3 has ended the upload
        except BaseException:
            with suppress(ServiceError):
                self._abort(key)
            raise
        return counted.size_bytes

    def _fetch(self, key: str, file: BinaryIO, tick: Callable[[], None]) -> None:
        """Not boto3's own way: that leaves its connection open where ``tick`` stops it."""
        from botocore.exceptions import HTTPClientError, IncompleteReadError

        which: dict[str, str] = {}
        size_bytes: int | None = None
        left = TRIES
        while size_bytes is None or file.tell() < size_bytes:
            begun = file.tell()
            try:
                answer = self._client.get_object(Bucket=self._bucket, Key=key, **which)
                if size_bytes is None:
                    size_bytes, which["IfMatch"] = int(answer["ContentLength"]), answer["ETag"]
                with closing(answer["Body"]) as body:
                    while piece := body.read(CHUNK_BYTES):
                        _write(file, piece)
                        tick()
            except (HTTPClientError, IncompleteReadError):
                left = TRIES if file.tell() > begun else left - 1
                if not left:
                    raise
                which["Range"] = f"bytes={file.tell()}-"

    def _get(self, job_id: str, name: str, **which: str) -> bytes:
        from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError

        key = self._part(job_id, name)
        with self._explained(f"The part {name} of job {job_id} is not there."):
            for left in reversed(range(TRIES)):
                try:
                    answer = self._client.get_object(Bucket=self._bucket, Key=key, **which)
                    with closing(answer["Body"]) as body:
                        return bytes(body.read())
                except ClientError as error:
                    if code_of(error) not in ("InvalidRange", "416"):
                        raise
                    return b""
                except (HTTPClientError, IncompleteReadError):
                    # boto3 tries again until an answer begins, not when it breaks off later
                    if not left:
                        raise
        raise AssertionError  # the loop ends otherwise

    def _list(self, operation: str, what: str, **which: str) -> list[Any]:
        with self._explained():
            pages = self._client.get_paginator(operation).paginate(Bucket=self._bucket, **which)
            return [entry for page in pages for entry in page.get(what, ())]

    def _keys(self, prefix: str, older_than: datetime | None = None) -> list[str]:
        return [
            entry["Key"]
            for entry in self._list("list_objects_v2", "Contents", Prefix=prefix)
            if older_than is None or entry["LastModified"] < older_than
        ]

    def _delete(self, keys: list[str]) -> None:
        # One by one: not every compatible store deletes many in one request as boto3 asks for it.
        with self._explained():
            for key in keys:
                self._client.delete_object(Bucket=self._bucket, Key=key)

    def _abort(self, prefix: str, older_than: datetime | None = None) -> int:
        """End uploads that are under way; how many."""
        uploads = [
            upload
            for upload in self._list("list_multipart_uploads", "Uploads", Prefix=prefix)
            if upload["Key"].startswith(prefix) and (older_than is None or upload["Initiated"] < older_than)
        ]
        for upload in uploads:
            with suppress(MediaMissing), self._explained():
                self._client.abort_multipart_upload(Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        return len(uploads)

    def _clean_here(self, older_than: datetime) -> int:
        left = 0
        for path in self._temp_dir.glob(f"{_LOCAL}*"):
            with suppress(FileNotFoundError, BlockingIOError), path.open("r+b") as file:
                if path.stat().st_mtime < older_than.timestamp():
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
                    left += 1
        return left

    def _keeps_versions(self) -> bool:
        from botocore.exceptions import ClientError

        try:
            return bool(self._client.get_bucket_versioning(Bucket=self._bucket).get("Status") == "Enabled")
        except ClientError:
            return False  # a right that nothing else here takes, or a store without versions

    def _explained(self, missing: str = GONE) -> AbstractContextManager[None]:
        return explained(self._client, self._bucket, missing)


class _Counted:
    """A stream that is read in full pieces, as boto3 expects, and no further than ``limit_bytes``."""

    def __init__(self, stream: BinaryIO, limit_bytes: int) -> None:
        self._stream = stream
        self._limit_bytes = limit_bytes
        self.size_bytes = 0

    def read(self, size: int = -1) -> bytes:
        piece = bytearray()
        while size < 0 or len(piece) < size:
            got = self._stream.read(CHUNK_BYTES if size < 0 else min(CHUNK_BYTES, size - len(piece)))
            if not got:
                break
            self.size_bytes += len(got)
            check_size(self.size_bytes, self._limit_bytes)
            piece += got
        return bytes(piece)


def _write(file: BinaryIO, piece: bytes) -> None:
    try:
        file.write(piece)
        file.flush()
    except OSError as error:
        if not disk_full(error):
            raise
        raise StorageFull(
            "The disk of this machine ran full while the recording was fetched. Free space in TEMP_AUDIO_DIR or "
            "DATA_DIR, then try again."
        ) from error


def _transfer(piece_bytes: int) -> Any:
    """In the caller's thread, piece by piece: there may be dozens at a time."""
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(
        multipart_threshold=piece_bytes,
        multipart_chunksize=piece_bytes,
        use_threads=False,
        preferred_transfer_client="classic",
    )


def _nothing() -> None:
    """Where nobody wants to stop."""
