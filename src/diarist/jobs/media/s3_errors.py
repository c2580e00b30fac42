"""What the errors of an S3-compatible store mean, in words that say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diarist.errors import MediaMissing, MediaUnavailable, ServiceError, StorageFull

OBJECT_MISSING = "What is asked for is not in S3 any more: it was removed."

MISSING_CODES = ("NoSuchKey", "NoSuchUpload", "NotFound", "404")
FULL_CODES = ("XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded", "InsufficientCapacity")

ADVICE = {
    ("NoSuchBucket", *MISSING_CODES): "does not exist. Make it, or name another one in MEDIA_URL.",
    ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "AuthFailure"): (
        "does not accept the credentials. Check S3_ACCESS_KEY and S3_SECRET_KEY, or the AWS configuration of this "
        "machine where they are not set."
    ),
    ("AccessDenied", "AllAccessDisabled", "Forbidden", "403"): (
        "is closed to these credentials. Allow them to get, put, delete and list objects in it, and to list and abort "
        "multipart uploads."
    ),
    ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"): (
        "is in another region. Set S3_REGION to that of the bucket."
    ),
    ("RequestTimeTooSkewed",): "refuses requests of this machine, whose clock is wrong. Set the clock.",
}
"""By the codes of an answer: Amazon's, and those that MinIO and Ceph have for themselves. A HEAD has a number alone."""


@contextmanager
def translated_errors(client: Any, bucket: str, missing: str = OBJECT_MISSING) -> Iterator[None]:
    """Turns the errors of a boto3 client into ours; ``missing`` is the message of ``MediaMissing``.

    Raises:
        MediaMissing: the object, or the upload, is not there.
        StorageFull: the store has no room.
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
    """The code of a ``ClientError``, such as ``NoSuchKey``."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _response_error(error: Any, where: str) -> ServiceError:
    code = error_code(error)
    if code in FULL_CODES:
        return StorageFull(f"{where} is full. Free some space or raise its quota, then try again.")
    for codes, advice in ADVICE.items():
        if code in codes:
            return MediaUnavailable(f"{where} {advice} It answered {error.operation_name} with {code}.")
    return MediaUnavailable(f"{where} failed ({error}). Try again later; see its own log if it goes on.")


def _connection_error(error: Exception, bucket: str, endpoint: str) -> ServiceError:
    from botocore.exceptions import CredentialRetrievalError, NoCredentialsError, PartialCredentialsError, SSLError

    if isinstance(error, NoCredentialsError | PartialCredentialsError | CredentialRetrievalError):
        return MediaUnavailable(
            f"There are no credentials for the bucket {bucket} ({error}). Set S3_ACCESS_KEY and S3_SECRET_KEY, or "
            "configure AWS on this machine."
        )
    if isinstance(error, SSLError):
        return MediaUnavailable(
            f"The certificate of the S3 store {endpoint} is not accepted ({error}). Check S3_ENDPOINT_URL, or name the "
            "file of its authority in AWS_CA_BUNDLE."
        )
    return MediaUnavailable(
        f"The S3 store {endpoint} cannot be reached ({error}). See that it runs, and check S3_ENDPOINT_URL and the "
        "network between."
    )


def _bucket_exists(client: Any, bucket: str) -> bool:
    """What 404 to a HEAD does not tell."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        client.head_bucket(Bucket=bucket)
    except ClientError as error:
        return error_code(error) not in ("NoSuchBucket", "NotFound", "404")
    except BotoCoreError:
        return True
    return True
