"""Translate errors of an S3-compatible store into errors that say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diarist.errors import MediaMissing, MediaUnavailable, ServiceError, StorageFull

OBJECT_MISSING = "The requested object is not in S3: it was removed."

MISSING_CODES = ("NoSuchKey", "NoSuchUpload", "NotFound", "404")
FULL_CODES = ("XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded", "InsufficientCapacity")

ADVICE = {
    ("NoSuchBucket", *MISSING_CODES): "does not exist. Create it, or set MEDIA_URL to another one.",
    ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "AuthFailure"): (
        "does not accept the credentials. Check S3_ACCESS_KEY and S3_SECRET_KEY, or, if they are not set, the AWS "
        "configuration of this machine."
    ),
    ("AccessDenied", "AllAccessDisabled", "Forbidden", "403"): (
        "denies access with these credentials. Allow them to get, put, delete and list objects in it, and to list and "
        "abort multipart uploads."
    ),
    ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"): (
        "is in another region. Set S3_REGION to the region of the bucket."
    ),
    ("RequestTimeTooSkewed",): "refuses requests of this machine because its clock is wrong. Set the clock.",
}
"""Advice by error code, including codes that only MinIO and Ceph use. The response to HEAD has only a status."""


@contextmanager
def translated_errors(client: Any, bucket: str, missing: str = OBJECT_MISSING) -> Iterator[None]:
    """Translate errors of a boto3 client; ``missing`` is the message of ``MediaMissing``.

    Raises:
        MediaMissing: the object or the upload does not exist.
        StorageFull: the store is full.
        MediaUnavailable: anything else.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        if error_code(error) in MISSING_CODES and _bucket_exists(client, bucket):
            raise MediaMissing(missing) from error
        raise _response_error(error, f"The bucket {bucket} at {client.meta.endpoint_url}") from error
    except BotoCoreError as error:
        raise _connection_error(error, bucket, client.meta.endpoint_url) from error


def error_code(error: Any) -> str:
    """Return the code of a ``ClientError``, for example ``NoSuchKey``."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _response_error(error: Any, where: str) -> ServiceError:
    code = error_code(error)
    if code in FULL_CODES:
        return StorageFull(f"{where} is full. Free some space or raise its quota, and try again.")
    for codes, advice in ADVICE.items():
        if code in codes:
            return MediaUnavailable(f"{where} {advice} It answered {error.operation_name} with {code}.")
    return MediaUnavailable(
        f"{where} failed ({error}). Try again later; if the error persists, check the log of the store."
    )


def _connection_error(error: Exception, bucket: str, endpoint: str) -> ServiceError:
    from botocore.exceptions import CredentialRetrievalError, NoCredentialsError, PartialCredentialsError, SSLError

    if isinstance(error, NoCredentialsError | PartialCredentialsError | CredentialRetrievalError):
        return MediaUnavailable(
            f"There are no credentials for the bucket {bucket} ({error}). Set S3_ACCESS_KEY and S3_SECRET_KEY, or "
            "configure AWS on this machine."
        )
    if isinstance(error, SSLError):
        return MediaUnavailable(
            f"The certificate of the S3 store {endpoint} is not trusted ({error}). Check S3_ENDPOINT_URL, or set "
            "AWS_CA_BUNDLE to the file with the certificate of its authority."
        )
    return MediaUnavailable(
        f"The S3 store {endpoint} cannot be reached ({error}). Check that it is running, S3_ENDPOINT_URL, and the "
        "network."
    )


def _bucket_exists(client: Any, bucket: str) -> bool:
    """Return whether the bucket exists, which status 404 of a HEAD request leaves open."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        client.head_bucket(Bucket=bucket)
    except ClientError as error:
        return error_code(error) not in ("NoSuchBucket", "NotFound", "404")
    except BotoCoreError:
        return True
    return True
