"""What is particular to recordings in S3; what every store of them must do is in the contract suite."""

from __future__ import annotations

import fcntl
import io
import os
import resource
import socket
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from botocore.exceptions import ClientError, NoCredentialsError, ResponseStreamingError, SSLError
from botocore.response import StreamingBody

from diarist.errors import Cancelled, ConfigurationError, MediaMissing, MediaUnavailable, ServiceError, StorageFull
from diarist.jobs.media.factory import open_media
from diarist.jobs.media.s3 import ATTEMPTS
from diarist.jobs.media.s3_errors import translated_errors
from diarist.jobs.model import new_job_id
from diarist.settings import load_settings
from support.servers import S3Server


@pytest.fixture
def opened(tmp_path, request):
    """``opened(**settings)``: a store that is closed in the end."""

    def open_it(**settings: object):
        media = open_media(load_settings(data_dir=tmp_path / "data", **({"min_free_mb": 0} | settings)))
        request.addfinalizer(media.close)
        return media

    return open_it


@pytest.fixture
def bucket(s3_server: S3Server) -> str:
    return s3_server.fresh_bucket()


@pytest.fixture
def media(opened, s3_server, bucket):
    return opened(**s3_server.settings(bucket))


@pytest.fixture
def temp_dir(tmp_path) -> Path:
    return tmp_path / "data" / "tmp"


def kept(media, said: bytes = b"said") -> str:
    job_id = new_job_id()
    media.store_recording(job_id, io.BytesIO(said), 2**30)
    return job_id


def every_call(media):
    job_id = new_job_id()
    return (
        lambda: media.store_recording(job_id, io.BytesIO(b"said"), 4),
        lambda: media.store_recording(job_id, io.BytesIO(bytes(2**24)), 2**24),
        lambda: media.local_recording(job_id).__enter__(),
        lambda: media.store_part(job_id, "a", b""),
        lambda: media.read_part(job_id, "a"),
        lambda: media.read_part_range(job_id, "a", 0, 1),
        lambda: media.part_names(job_id),
        lambda: media.remove_parts(job_id),
        lambda: media.remove_recording(job_id),
        lambda: media.remove(job_id),
        media.job_ids,
        lambda: media.remove_incomplete(datetime.now(UTC)),
        media.probe,
    )


def every_word(media, exactly: type[ServiceError] = MediaUnavailable) -> set[str]:
    said = set()
    for call in every_call(media):
        with pytest.raises(exactly) as caught:
            call()
        assert type(caught.value) is exactly
        said.add(str(caught.value))
    return said


def test_several_installations_share_a_bucket(opened, s3_server, bucket):
    folders = ("", "a", "a/b", "/c/")
    stores = [opened(**s3_server.settings(bucket, folder)) for folder in folders]
    ids = [kept(store, folder.encode()) for store, folder in zip(stores, folders, strict=True)]
    for store, job_id in zip(stores, ids, strict=True):
        assert store.job_ids() == {job_id}
        store.remove(job_id)
    assert "Contents" not in s3_server.client.list_objects_v2(Bucket=bucket)


def test_a_recording_is_fetched_into_a_private_file_that_goes_with_the_context(media, temp_dir):
    job_id, said = kept(media, os.urandom(2**20)), []
    with media.local_recording(job_id) as first, media.local_recording(job_id) as second:
        assert first != second
        for path in (first, second):
            assert path.parent == temp_dir
            assert path.stat().st_mode & 0o777 == 0o600
            said.append(path.read_bytes())
    assert said[0] == said[1]
    assert list(temp_dir.iterdir()) == []


def test_a_fetch_is_stopped_by_its_tick_and_leaves_nothing(media, temp_dir):
    job_id, ticks = kept(media, bytes(20 * 2**20)), []

    def tick() -> None:
        ticks.append(1)
        if len(ticks) == 3:
            raise Cancelled("enough")

    with pytest.raises(Cancelled, match="enough"), media.local_recording(job_id, tick):
        pytest.fail("it was stopped")
    assert len(ticks) == 3
    assert list(temp_dir.iterdir()) == []


def test_a_fetch_that_finds_no_room_is_told_and_leaves_nothing(media, temp_dir):
    job_id = kept(media, bytes(2**21))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
    try:
        with pytest.raises(StorageFull, match="TEMP_AUDIO_DIR"), media.local_recording(job_id):
            pytest.fail("there is no room")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(temp_dir.iterdir()) == []


def test_local_files_are_cleaned_once_their_process_is_gone(media, temp_dir):
    soon = datetime.now(UTC) + timedelta(minutes=1)
    with media.local_recording(kept(media)) as used:
        for name in ("recording-0123", "recording-4567", "somebody-elses"):
            (temp_dir / name).write_bytes(b"said")
        os.utime(temp_dir / "recording-4567", (2**33, 2**33))
        with (temp_dir / "recording-0123").open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            assert media.remove_incomplete(soon) == 0
        assert media.remove_incomplete(soon) == 1
        assert used.exists()
    assert {path.name for path in temp_dir.iterdir()} == {"recording-4567", "somebody-elses"}


def test_a_stream_in_short_reads_is_cut_into_whole_pieces(media):
    class Drops(io.BytesIO):
        def read(self, size=-1):
            return super().read(min(size, 7_777) if size >= 0 else 7_777)

    said = os.urandom(17 * 2**20 + 5)
    job_id = new_job_id()
    assert media.store_recording(job_id, Drops(said), 2**30) == len(said)
    with media.local_recording(job_id) as path:
        assert path.read_bytes() == said


def test_a_bucket_that_keeps_what_is_deleted_is_told_by_the_probe(media, s3_server, bucket):
    media.probe()
    s3_server.client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    with pytest.raises(MediaUnavailable, match="Suspend versioning"):
        media.probe()


def test_a_bucket_that_is_not_there_is_told_by_every_call(opened, s3_server):
    said = every_word(opened(**s3_server.settings("nowhere")))
    assert all("nowhere" in words and "MEDIA_URL" in words for words in said)


def test_credentials_that_are_refused_are_told_by_every_call(media, s3_server):
    s3_server.check_keys(check=True)
    try:
        said = every_word(media)
    finally:
        s3_server.check_keys(check=False)
    assert all("credentials" in words for words in said)
    assert not any(S3Server.secret_key in words for words in said)


def test_a_server_that_is_not_there_is_told(opened, s3_server, bucket, monkeypatch):
    monkeypatch.setattr("diarist.jobs.media.s3.ATTEMPTS", 1)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        settings = s3_server.settings(bucket) | {"s3_endpoint_url": f"http://127.0.0.1:{nobody.getsockname()[1]}"}
        said = every_word(opened(**settings))
    assert all("S3_ENDPOINT_URL" in words for words in said)


@pytest.fixture
def break_off(monkeypatch):
    """``break_off(times)``: so many answers end after 2 MB. Only boto3's reading of them is replaced."""

    def arrange(times: int) -> None:
        read, heard, left = StreamingBody.read, Counter(), [times]

        def break_off(body, amt=None):
            if left[0] and (amt is None or heard[body] >= 2):
                left[0] -= 1
                raise ResponseStreamingError(error="connection broken")
            heard[body] += 1
            return read(body, amt)

        monkeypatch.setattr(StreamingBody, "read", break_off)

    return arrange


def test_a_part_whose_answer_breaks_off_is_asked_for_again(media, break_off):
    job_id = kept(media)
    media.store_part(job_id, "a", b"part")
    break_off(ATTEMPTS - 1)
    assert media.read_part(job_id, "a") == b"part"
    break_off(ATTEMPTS)
    with pytest.raises(MediaUnavailable, match="cannot be reached"):
        media.read_part(job_id, "a")


def test_a_fetch_that_breaks_off_goes_on_from_there(media, break_off):
    said = os.urandom(13 * 2**20 + 1)
    job_id = kept(media, said)
    break_off(2 * ATTEMPTS)
    with media.local_recording(job_id) as path:
        assert path.read_bytes() == said


def test_a_fetch_that_always_breaks_off_before_it_begins_is_given_up(media, temp_dir, monkeypatch):
    def break_off(body, amt=None):
        raise ResponseStreamingError(error="connection broken")

    job_id = kept(media)
    monkeypatch.setattr(StreamingBody, "read", break_off)
    with pytest.raises(MediaUnavailable, match="cannot be reached"), media.local_recording(job_id):
        pytest.fail("it was given up")
    assert list(temp_dir.iterdir()) == []


def answer(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "words of it"}}, "PutObject")


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (answer("NoSuchUpload"), MediaMissing, "removed"),
        (answer("XMinioStorageFull"), StorageFull, "is full"),
        (answer("QuotaExceeded"), StorageFull, "quota"),
        (answer("SignatureDoesNotMatch"), MediaUnavailable, "S3_SECRET_KEY"),
        (answer("AccessDenied"), MediaUnavailable, "Allow them"),
        (answer("403"), MediaUnavailable, "Allow them"),
        (answer("AuthorizationHeaderMalformed"), MediaUnavailable, "S3_REGION"),
        (answer("RequestTimeTooSkewed"), MediaUnavailable, "clock"),
        (answer("SlowDown"), MediaUnavailable, "words of it"),
        (NoCredentialsError(), MediaUnavailable, "S3_ACCESS_KEY"),
        (SSLError(endpoint_url="https://127.0.0.1", error="self-signed"), MediaUnavailable, "AWS_CA_BUNDLE"),
    ],
)
def test_what_else_a_store_may_answer(s3_server, bucket, error, kind, said):
    with pytest.raises(ServiceError) as caught, translated_errors(s3_server.client, bucket):
        raise error
    assert type(caught.value) is kind
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"media_url": "s3://"}, "s3://bucket"),
        ({"media_url": "s3://bucket?a=b"}, "s3://bucket"),
        ({"media_url": "s3://bucket", "s3_access_key": "alone"}, "S3_SECRET_KEY"),
        ({"media_url": "s3://bucket", "s3_endpoint_url": "minio:9000"}, "http://minio:9000"),
        ({"media_url": "s3://bucket", "s3_endpoint_url": "http://", "s3_region": "x"}, "S3_ENDPOINT_URL"),
    ],
)
def test_settings_that_cannot_be_used(opened, settings, said):
    with pytest.raises(ConfigurationError, match=said):
        opened(**settings)


def test_a_library_that_is_missing(opened, monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ConfigurationError, match=r"diarist\[distributed\]"):
        opened(media_url="s3://bucket")


def test_room_is_asked_of_the_disk_where_recordings_are_worked_on(opened, s3_server, bucket, tmp_path):
    media = opened(**s3_server.settings(bucket), temp_audio_dir=tmp_path / "elsewhere")
    media.check_free_space(1)
    with pytest.raises(StorageFull, match="TEMP_AUDIO_DIR"):
        media.check_free_space(2**62)
    assert (tmp_path / "elsewhere").is_dir()


def test_a_copy_from_s3_leaves_free_what_must_stay_free(media, opened, s3_server, bucket, temp_dir):
    job_id = kept(media)
    full = opened(**s3_server.settings(bucket), min_free_mb=1_048_576)
    with pytest.raises(StorageFull, match="MIN_FREE_MB"), full.local_recording(job_id):
        pytest.fail("there is no room")
    assert list(temp_dir.iterdir()) == []
