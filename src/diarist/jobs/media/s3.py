"""A media store in an S3 bucket, with the keys ``<folder>/<job ID>/recording`` and ``<folder>/<job ID>/parts/<name>``.

An object appears only when it is complete, so nothing is renamed here; only multipart uploads can be left incomplete.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from diarist import scratch
from diarist.errors import ConfigurationError, MediaMissing, MediaUnavailable, ServiceError
from diarist.jobs.media.base import CHUNK_BYTES, PARTS, RECORDING, check_part_name, check_range, check_size
from diarist.jobs.media.s3_errors import OBJECT_MISSING, error_code, translated_errors
from diarist.jobs.model import check_job_id, is_job_id
from diarist.settings import Settings

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0
ATTEMPTS = 4
CONNECTIONS = 32

UPLOAD_PART_BYTES = 8 * 2**20
"""The size of a part of a multipart upload, which is held in memory; larger if ``MAX_UPLOAD_PARTS`` do not suffice."""
MAX_UPLOAD_PARTS = 10_000
"""The limit of S3."""

_PROBE = "probe-"


def open_s3(settings: Settings, min_free_bytes: int = 0) -> S3Media:
    """Return the media store in the bucket of MEDIA_URL, without connecting to it.

    Raises:
        ConfigurationError: a setting is not valid, or boto3 is not installed.
    """
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError as error:
        raise ConfigurationError(
            f"MEDIA_URL names S3, which needs more libraries ({error}). Run `pip install 'diarist[distributed]'`."
        ) from error
    url = urlsplit(settings.media_url)
    if not url.netloc or url.query or url.fragment:
        raise ConfigurationError(f"MEDIA_URL is {settings.media_url!r}: write it as s3://bucket or s3://bucket/folder.")
    if bool(settings.s3_access_key) != bool(settings.s3_secret_key):
        raise ConfigurationError("Set both S3_ACCESS_KEY and S3_SECRET_KEY, or neither.")
    compatible = {
        "request_checksum_calculation": "when_required",  # older S3-compatible stores do not support trailing checksums
        "response_checksum_validation": "when_required",
        "s3": {"addressing_style": "path"},  # they seldom have a host name for each bucket
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
                retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
                max_pool_connections=CONNECTIONS,
                **(compatible if settings.s3_endpoint_url else {}),
            ),
        )
    except (BotoCoreError, ValueError) as error:
        raise ConfigurationError(
            f"The settings of S3 are not valid ({error}). Check S3_ENDPOINT_URL, for example http://minio:9000, "
            "S3_REGION, and the AWS configuration of this machine."
        ) from error
    return S3Media(client, url.netloc, url.path.strip("/"), settings.temp_dir, min_free_bytes)


class S3Media:
    """A ``MediaStore`` in a bucket, which uses a boto3 client.

    Recordings that are processed are copied to ``temp_dir``, as locked files that ``remove_incomplete`` skips.
    """

    def __init__(self, client: Any, bucket: str, folder: str, temp_dir: Path, min_free_bytes: int = 0) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = f"{folder}/" if folder else ""
        self._temp_dir = temp_dir
        self._min_free_bytes = min_free_bytes

    def check_free_space(self, size_bytes: int) -> None:
        """Raise ``StorageFull`` if this machine has too little free space; that of a bucket is unknown."""
        with self._translated_errors():
            scratch.make_private_folder(self._temp_dir)
            scratch.check_free_space(self._temp_dir, size_bytes, self._min_free_bytes, "TEMP_AUDIO_DIR or DATA_DIR")

    def store_recording(self, job_id: str, upload: BinaryIO | Path, limit_bytes: int) -> int:
        key = self._key(job_id, RECORDING)
        if isinstance(upload, Path):
            check_size(upload.stat().st_size, limit_bytes)
            with upload.open("rb") as file:
                size_bytes = self._put(key, file, limit_bytes)
            upload.unlink()
            return size_bytes
        return self._put(key, upload, limit_bytes)

    @contextmanager
    def local_recording(self, job_id: str, check: Callable[[], None] | None = None) -> Iterator[Path]:
        key = self._key(job_id, RECORDING)
        with scratch.locked_file(self._temp_dir, scratch.S3_COPY_PREFIX) as path:
            with (
                self._translated_errors(f"The recording of job {job_id} is not in S3 any more: it was removed."),
                scratch.disk_full_errors("the recording was copied from S3", "TEMP_AUDIO_DIR or DATA_DIR"),
                path.open("wb") as file,
            ):
                self._fetch(key, file, check or _no_check)
            yield path

    def store_part(self, job_id: str, name: str, source: bytes | Path) -> None:
        key, recording = self._part(job_id, name), self._key(job_id, RECORDING)
        if isinstance(source, Path):
            with source.open("rb") as file:
                self._put(key, file, source.stat().st_size)
        else:
            with self._translated_errors():
                self._client.put_object(Bucket=self._bucket, Key=key, Body=source)
        # This is checked afterwards: remove() deletes the recording first, so either it finds this part, or the
        # recording is missing here.
        try:
            with self._translated_errors(f"Job {job_id} has no recording any more: it was removed."):
                self._client.head_object(Bucket=self._bucket, Key=recording)
        except MediaMissing:
            self._delete([key])
            raise

    def read_part(self, job_id: str, name: str) -> bytes:
        return self._get(job_id, name)

    def read_part_range(self, job_id: str, name: str, first_byte: int, stop_byte: int) -> bytes:
        check_range(first_byte, stop_byte)
        if first_byte == stop_byte:
            # S3 has no empty ranges, but the part has to exist.
            self._get(job_id, name, Range="bytes=0-0")
            return b""
        return self._get(job_id, name, Range=f"bytes={first_byte}-{stop_byte - 1}")

    def part_names(self, job_id: str) -> frozenset[str]:
        prefix = self._key(job_id, f"{PARTS}/")
        return frozenset(key.removeprefix(prefix) for key in self._keys(prefix))

    def remove_parts(self, job_id: str) -> None:
        self._delete(self._keys(self._key(job_id, f"{PARTS}/")))

    def remove_recording(self, job_id: str) -> None:
        key = self._key(job_id, RECORDING)
        self._abort_uploads(key)
        self._delete([key])

    def remove(self, job_id: str) -> None:
        self.remove_recording(job_id)
        self._delete(self._keys(self._key(job_id, "")))
        self._abort_uploads(self._key(job_id, ""))

    def job_ids(self, *, with_parts: bool = False) -> frozenset[str]:
        if with_parts:
            halves = (key.removeprefix(self._prefix).split(f"/{PARTS}/") for key in self._keys(self._prefix))
            return frozenset(half[0] for half in halves if len(half) > 1 and is_job_id(half[0]))
        found = self._list("list_objects_v2", "CommonPrefixes", Prefix=self._prefix, Delimiter="/")
        names = (entry["Prefix"].removeprefix(self._prefix).removesuffix("/") for entry in found)
        return frozenset(name for name in names if is_job_id(name))

    def remove_incomplete(self, older_than: datetime) -> int:
        """Remove incomplete uploads and local copies. MinIO does not list uploads by folder, but ends them itself."""
        probes = self._keys(f"{self._prefix}{_PROBE}", older_than)
        self._delete(probes)
        return len(probes) + self._abort_uploads(self._prefix, older_than) + self._clean_temp_dir(older_than)

    def probe(self) -> None:
        """Also check that deleting is not undone by versioning, and that all needed operations are allowed."""
        content, key = secrets.token_bytes(16), f"{self._prefix}{_PROBE}{secrets.token_hex(8)}"
        with self._translated_errors():
            self._client.put_object(Bucket=self._bucket, Key=key, Body=content)
            try:
                identical = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read() == content
                self._client.list_objects_v2(Bucket=self._bucket, Prefix=key, MaxKeys=1)
                self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=key, MaxUploads=1)
            finally:
                self._client.delete_object(Bucket=self._bucket, Key=key)
        if not identical:
            raise MediaUnavailable(f"The bucket {self._bucket} returned other bytes than were written.")
        if self._is_versioned():
            raise MediaUnavailable(
                f"The bucket {self._bucket} keeps deleted objects, including recordings of people, as old versions. "
                "Suspend versioning and remove the old versions, or set MEDIA_URL to another bucket."
            )

    def close(self) -> None:
        self._client.close()

    def _key(self, job_id: str, name: str) -> str:
        return f"{self._prefix}{check_job_id(job_id)}/{name}"

    def _part(self, job_id: str, name: str) -> str:
        return self._key(job_id, f"{PARTS}/{check_part_name(name)}")

    def _put(self, key: str, file: BinaryIO, limit_bytes: int) -> int:
        limited = _LimitedStream(file, limit_bytes)
        try:
            with self._translated_errors("The job was removed while its recording was stored."):
                self._client.upload_fileobj(
                    limited,
                    self._bucket,
                    key,
                    Config=_transfer(max(UPLOAD_PART_BYTES, -(-limit_bytes // MAX_UPLOAD_PARTS))),
                )
        except Exception:
            raise  # boto3 has aborted the upload
        except BaseException:
            with suppress(ServiceError):
                self._abort_uploads(key)
            raise
        return limited.size_bytes

    def _fetch(self, key: str, file: BinaryIO, check: Callable[[], None]) -> None:
        """Download without boto3's transfer manager, which leaves its connection open if ``check`` raises."""
        from botocore.exceptions import HTTPClientError, IncompleteReadError

        arguments: dict[str, str] = {}
        size_bytes: int | None = None
        free_space = scratch.FreeSpaceGuard(self._temp_dir, self._min_free_bytes, "TEMP_AUDIO_DIR or DATA_DIR")
        remaining = ATTEMPTS
        while size_bytes is None or file.tell() < size_bytes:
            offset = file.tell()
            try:
                response = self._client.get_object(Bucket=self._bucket, Key=key, **arguments)
                if size_bytes is None:
                    size_bytes, arguments["IfMatch"] = int(response["ContentLength"]), response["ETag"]
                with closing(response["Body"]) as body:
                    while block := body.read(CHUNK_BYTES):
                        free_space.before_write(len(block))
                        file.write(block)
                        check()
            except (HTTPClientError, IncompleteReadError):
                remaining = ATTEMPTS if file.tell() > offset else remaining - 1
                if not remaining:
                    raise
                arguments["Range"] = f"bytes={file.tell()}-"

    def _get(self, job_id: str, name: str, **arguments: str) -> bytes:
        from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError

        key = self._part(job_id, name)
        with self._translated_errors(f"The part {name} of job {job_id} does not exist."):
            for remaining in reversed(range(ATTEMPTS)):
                try:
                    response = self._client.get_object(Bucket=self._bucket, Key=key, **arguments)
                    with closing(response["Body"]) as body:
                        return bytes(body.read())
                except ClientError as error:
                    if error_code(error) not in ("InvalidRange", "416"):
                        raise
                    return b""
                except (HTTPClientError, IncompleteReadError):
                    # boto3 retries until a response begins, but not if it is interrupted later.
                    if not remaining:
                        raise
        raise AssertionError  # the loop returns or raises

    def _list(self, operation: str, what: str, **arguments: str) -> list[Any]:
        with self._translated_errors():
            pages = self._client.get_paginator(operation).paginate(Bucket=self._bucket, **arguments)
            return [entry for page in pages for entry in page.get(what, ())]

    def _keys(self, prefix: str, older_than: datetime | None = None) -> list[str]:
        return [
            entry["Key"]
            for entry in self._list("list_objects_v2", "Contents", Prefix=prefix)
            if older_than is None or entry["LastModified"] < older_than
        ]

    def _delete(self, keys: list[str]) -> None:
        # One by one, because not every compatible store supports the bulk deletion of boto3.
        with self._translated_errors():
            for key in keys:
                self._client.delete_object(Bucket=self._bucket, Key=key)

    def _abort_uploads(self, prefix: str, older_than: datetime | None = None) -> int:
        """Abort incomplete uploads, and return their number."""
        uploads = [
            upload
            for upload in self._list("list_multipart_uploads", "Uploads", Prefix=prefix)
            if upload["Key"].startswith(prefix) and (older_than is None or upload["Initiated"] < older_than)
        ]
        for upload in uploads:
            with suppress(MediaMissing), self._translated_errors():
                self._client.abort_multipart_upload(Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        return len(uploads)

    def _clean_temp_dir(self, older_than: datetime) -> int:
        return scratch.sweep(self._temp_dir, older_than, (scratch.S3_COPY_PREFIX,))

    def _is_versioned(self) -> bool:
        from botocore.exceptions import ClientError

        try:
            return bool(self._client.get_bucket_versioning(Bucket=self._bucket).get("Status") == "Enabled")
        except ClientError:
            return False  # nothing else needs this permission, and some stores have no versions

    def _translated_errors(self, missing: str = OBJECT_MISSING) -> AbstractContextManager[None]:
        return translated_errors(self._client, self._bucket, missing)


class _LimitedStream:
    """A stream that returns full blocks, as boto3 expects, and raises ``UploadTooLarge`` beyond ``limit_bytes``."""

    def __init__(self, stream: BinaryIO, limit_bytes: int) -> None:
        self._stream = stream
        self._limit_bytes = limit_bytes
        self.size_bytes = 0

    def read(self, size: int = -1) -> bytes:
        block = bytearray()
        while size < 0 or len(block) < size:
            got = self._stream.read(CHUNK_BYTES if size < 0 else min(CHUNK_BYTES, size - len(block)))
            if not got:
                break
            self.size_bytes += len(got)
            check_size(self.size_bytes, self._limit_bytes)
            block += got
        return bytes(block)


def _transfer(upload_part_bytes: int) -> Any:
    """Return a configuration that transfers parts one by one in the calling thread: there may be dozens of uploads."""
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(
        multipart_threshold=upload_part_bytes,
        multipart_chunksize=upload_part_bytes,
        use_threads=False,
        preferred_transfer_client="classic",
    )


def _no_check() -> None:
    """Do nothing, if the caller passes no check."""
