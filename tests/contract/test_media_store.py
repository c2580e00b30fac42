"""What every ``MediaStore`` must do. A new implementation adds a class like the two below, and a line to ``HOUSES``."""

from __future__ import annotations

import io
import os
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import pytest

from diarist.errors import MediaMissing, MediaUnavailable, ServiceError, UploadTooLarge
from diarist.jobs.media.base import MediaStore
from diarist.jobs.media.factory import open_media
from diarist.jobs.model import new_job_id
from diarist.settings import Settings, load_settings

ROOMY = 2**31
PIECES = 20 * 2**20 + 17
"""More than one piece of an upload to S3, and no whole number of them."""


class House(Protocol):
    """Where a store keeps its things, seen from outside of it."""

    def settings(self) -> Settings: ...

    def left(self) -> set[str]:
        """Everything that lies there, half-written things among it."""

    def leave_half_written(self, job_id: str) -> None:
        """What a process leaves that is killed while it stores a recording."""


class Directory:
    def __init__(self, request: pytest.FixtureRequest, folder: Path) -> None:
        self.folder = folder

    def settings(self) -> Settings:
        return load_settings(data_dir=self.folder / "data", media_url=str(self.folder / "media"), min_free_mb=0)

    def left(self) -> set[str]:
        root = self.folder / "media"
        return {str(path.relative_to(root)) for path in root.rglob("*")}

    def leave_half_written(self, job_id: str) -> None:
        folder = self.folder / "media" / job_id
        folder.mkdir(parents=True)
        (folder / ".partial-0123").write_bytes(b"sai")


class Bucket:
    def __init__(self, request: pytest.FixtureRequest, folder: Path) -> None:
        self.folder = folder
        self.server = request.getfixturevalue("s3_server")
        self.bucket = self.server.fresh_bucket()
        self.client = self.server.client

    def settings(self) -> Settings:
        return load_settings(
            data_dir=self.folder / "data", min_free_mb=0, **self.server.settings(self.bucket, "recordings/of diarist")
        )

    def left(self) -> set[str]:
        objects = self.client.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        uploads = self.client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])
        return {entry["Key"] for entry in (*objects, *uploads)}

    def leave_half_written(self, job_id: str) -> None:
        key = f"recordings/of diarist/{job_id}/recording"
        upload = self.client.create_multipart_upload(Bucket=self.bucket, Key=key)
        self.client.upload_part(Bucket=self.bucket, Key=key, UploadId=upload["UploadId"], PartNumber=1, Body=b"said")


HOUSES = {"directory": Directory, "s3": Bucket}


@pytest.fixture(params=["directory", pytest.param("s3", marks=pytest.mark.servers)])
def house(request, tmp_path) -> House:
    return HOUSES[request.param](request, tmp_path)


@pytest.fixture
def media(house) -> Iterator[MediaStore]:
    store = open_media(house.settings())
    yield store
    store.close()


@pytest.fixture
def job_id(media) -> str:
    """Of a job whose recording is kept."""
    job_id = new_job_id()
    media.store_recording(job_id, io.BytesIO(b"said"), ROOMY)
    return job_id


def heard(media: MediaStore, job_id: str) -> bytes:
    with media.local_recording(job_id) as path:
        return path.read_bytes()


class Stream:
    """``size`` bytes that need no memory, in short reads; something that happens half-way; an error at the end."""

    def __init__(
        self, size: int, error: BaseException | None = None, half_way: Callable[[], None] | None = None
    ) -> None:
        self.half = size // 2
        self.left = size
        self.error = error
        self.half_way = half_way

    def read(self, size: int) -> bytes:
        if self.half_way is not None and self.left <= self.half:
            happen, self.half_way = self.half_way, None
            happen()
        got = bytes(min(size, self.left, 100_000))
        self.left -= len(got)
        if not got and self.error is not None:
            raise self.error
        return got


@pytest.mark.parametrize("size", [0, 1, PIECES])
def test_a_stream_is_kept_from_where_it_stands(media, size):
    said, job_id = os.urandom(size), new_job_id()
    stream = io.BytesIO(b"not this" + said)
    stream.seek(8)
    assert media.store_recording(job_id, stream, size) == size
    assert heard(media, job_id) == said
    assert media.job_ids() == {job_id}


@pytest.mark.parametrize("size", [0, 4, PIECES])
def test_a_file_is_moved(media, tmp_path, size):
    said, upload, job_id = os.urandom(size), tmp_path / "upload", new_job_id()
    upload.write_bytes(said)
    assert media.store_recording(job_id, upload, size) == size
    assert heard(media, job_id) == said
    assert not upload.exists()


def test_what_is_kept_is_there_for_other_machines(house, media, job_id):
    other = open_media(house.settings())
    assert heard(other, job_id) == b"said"
    media.store_part(job_id, "words.json", b"{}")
    assert other.read_part(job_id, "words.json") == b"{}"
    other.remove(job_id)
    other.close()
    assert media.job_ids() == frozenset()


def test_a_recording_that_is_kept_again_replaces_the_first(house, media, job_id):
    before = house.left()
    media.store_recording(job_id, io.BytesIO(b"said again"), ROOMY)
    assert heard(media, job_id) == b"said again"
    assert house.left() == before


@pytest.mark.parametrize(("size", "as_file"), [(5, True), (5, False), (PIECES, False)])
def test_one_byte_too_many_is_refused_and_nothing_is_left(house, media, tmp_path, size, as_file):
    upload = tmp_path / "upload"
    upload.write_bytes(bytes(size))
    with upload.open("rb") as stream, pytest.raises(UploadTooLarge, match="MAX_UPLOAD_MB"):
        media.store_recording(new_job_id(), upload if as_file else stream, size - 1)
    assert media.job_ids() == frozenset()
    assert house.left() == set()


@pytest.mark.parametrize("size", [2, PIECES])
@pytest.mark.parametrize("error", [ConnectionResetError("gone"), ValueError("odd"), KeyboardInterrupt()])
def test_a_stream_that_breaks_leaves_nothing_and_its_error_is_passed_on(house, media, error, size):
    with pytest.raises(type(error)) as caught:
        media.store_recording(new_job_id(), Stream(size, error), ROOMY)
    assert caught.value is error
    assert house.left() == set()


def test_a_second_recording_that_breaks_leaves_the_first(house, media, job_id):
    before = house.left()
    with pytest.raises(ConnectionResetError):
        media.store_recording(job_id, Stream(PIECES, ConnectionResetError()), ROOMY)
    assert heard(media, job_id) == b"said"
    assert house.left() == before


def test_memory_does_not_grow_with_the_recording(media, tmp_path):
    size, job_id, upload = 200 * 2**20, new_job_id(), tmp_path / "upload"
    with upload.open("wb") as file:
        file.truncate(size)
    tracemalloc.start()
    try:
        assert media.store_recording(job_id, Stream(size), size) == size
        assert media.store_recording(job_id, upload, size) == size
        with media.local_recording(job_id) as path:
            assert path.stat().st_size == size
            media.store_part(job_id, "samples.f32", path)
        assert media.read_part_range(job_id, "samples.f32", size - 3, size + 3) == bytes(3)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 40 * 2**20


def test_a_recording_that_is_not_there_is_told(media, job_id):
    for unknown in (new_job_id(), job_id):
        media.remove(unknown)
        with pytest.raises(MediaMissing), media.local_recording(unknown):
            pytest.fail("there is none")


def test_a_local_file_is_left_as_it_was(media, tmp_path, job_id):
    with pytest.raises(ZeroDivisionError), media.local_recording(job_id) as path:
        1 / 0  # noqa: B018
    with media.local_recording(job_id) as path:
        assert path.read_bytes() == b"said"
    if media.job_ids() and not path.exists():
        assert list((tmp_path / "data" / "tmp").iterdir()) == []


@pytest.mark.parametrize("size", [0, 1, PIECES])
@pytest.mark.parametrize("as_file", [False, True])
def test_a_part_is_read_whole_or_in_ranges(media, job_id, tmp_path, as_file, size):
    said, source = os.urandom(size), tmp_path / "source"
    source.write_bytes(said)
    media.store_part(job_id, "samples-01.f32", source if as_file else said)
    assert source.read_bytes() == said
    assert media.part_names(job_id) == {"samples-01.f32"}
    assert media.read_part(job_id, "samples-01.f32") == said
    for first, stop in (
        (0, size),
        (0, 1),
        (0, 0),
        (1, 3),
        (size // 2, size),
        (size // 3, size + 9),
        (size + 1, size + 2),
    ):
        assert media.read_part_range(job_id, "samples-01.f32", first, stop) == said[first:stop]
    assert heard(media, job_id) == b"said"


def test_a_part_of_the_same_name_is_replaced(house, media, job_id):
    media.store_part(job_id, "a", b"first")
    before = house.left()
    media.store_part(job_id, "a", b"second")
    assert media.read_part(job_id, "a") == b"second"
    assert house.left() == before


def test_a_part_that_is_not_there_is_told(media, job_id):
    assert media.part_names(job_id) == media.part_names(new_job_id()) == frozenset()
    for unknown in (job_id, new_job_id()):
        with pytest.raises(MediaMissing):
            media.read_part(unknown, "a")
        for stop in (0, 1):
            with pytest.raises(MediaMissing):
                media.read_part_range(unknown, "a", 0, stop)


@pytest.mark.parametrize("source", [b"late", PIECES])
def test_no_part_outlives_its_job(house, media, job_id, tmp_path, source):
    if isinstance(source, int):
        path = tmp_path / "source"
        path.write_bytes(bytes(source))
        source = path
    media.remove(job_id)
    with pytest.raises(MediaMissing):
        media.store_part(job_id, "late", source)
    assert house.left() == set()


def test_readers_never_see_half_a_part(media, job_id):
    size = 3 * 2**20
    media.store_part(job_id, "a", bytes([0]) * size)
    done = threading.Event()

    def read() -> set[int]:
        seen = set()
        while True:
            last = done.is_set()
            got = media.read_part(job_id, "a")
            assert len(got) == size
            assert len(set(got)) == 1
            seen.add(got[0])
            if last:
                return seen

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for value in range(1, 12):
                media.store_part(job_id, "a", bytes([value]) * size)
        finally:
            done.set()
        assert all(11 in reader.result() for reader in readers)


def test_each_thing_is_removed_alone_and_quietly(media, job_id):
    other = new_job_id()
    media.store_recording(other, io.BytesIO(b"of somebody else"), ROOMY)
    media.store_part(other, "a", b"theirs")
    media.store_part(job_id, "a", b"1")
    media.store_part(job_id, "b.json", b"2")
    media.remove_recording(job_id)
    assert media.part_names(job_id) == {"a", "b.json"}
    assert media.job_ids() == {job_id, other}
    media.store_recording(job_id, io.BytesIO(b"said"), ROOMY)
    media.remove_parts(job_id)
    assert media.part_names(job_id) == frozenset()
    assert heard(media, job_id) == b"said"
    media.remove_recording(job_id)
    assert media.job_ids() == {other}
    for remove in (media.remove, media.remove_parts, media.remove_recording):
        remove(job_id)
        remove(new_job_id())
    assert media.read_part(other, "a") == b"theirs"
    assert heard(media, other) == b"of somebody else"


def test_nothing_is_left_of_a_job_that_is_removed(house, media, job_id):
    media.store_part(job_id, "a", b"1")
    media.store_part(job_id, "b.f32", bytes(PIECES))
    assert len(house.left()) >= 3
    media.remove(job_id)
    assert house.left() == set()


def test_many_are_kept_and_removed_at_once(house, media):
    def live(number: int) -> None:
        job_id = new_job_id()
        assert media.store_recording(job_id, io.BytesIO(bytes([number]) * 100_000), ROOMY) == 100_000
        media.store_part(job_id, "a", bytes([number]) * 1_000)
        assert heard(media, job_id) == bytes([number]) * 100_000
        assert media.read_part(job_id, "a") == bytes([number]) * 1_000
        media.remove(job_id)

    with ThreadPoolExecutor(8) as pool:
        for lived in [pool.submit(live, number) for number in range(24)]:
            lived.result()
    assert house.left() == set()


def test_a_job_that_is_removed_while_its_recording_arrives_is_told(house, media):
    job_id = new_job_id()
    # MediaMissing; but moto fails (500) where S3 says that the upload has ended
    with pytest.raises(MediaUnavailable):
        media.store_recording(job_id, Stream(PIECES, half_way=lambda: media.remove(job_id)), ROOMY)
    assert house.left() == set()


def test_a_job_that_is_removed_while_a_part_is_kept_leaves_nothing_whoever_was_first(house, media):
    def keep(job_id: str) -> None:
        with suppress(MediaMissing):
            media.store_part(job_id, "a", bytes(100_000))

    with ThreadPoolExecutor(4) as pool:
        for _ in range(10):
            job_id = new_job_id()
            media.store_recording(job_id, io.BytesIO(b"said"), ROOMY)
            for ended in [pool.submit(keep, job_id), pool.submit(media.remove, job_id), pool.submit(keep, job_id)]:
                ended.result()
            assert house.left() == set()


def test_nothing_but_an_id_names_a_job(house, media):
    calls: list[Callable[[str], object]] = [
        lambda name: media.store_recording(name, io.BytesIO(b"said"), ROOMY),
        lambda name: media.local_recording(name).__enter__(),
        lambda name: media.store_part(name, "a", b""),
        lambda name: media.read_part(name, "a"),
        lambda name: media.read_part_range(name, "a", 0, 1),
        media.part_names,
        media.remove_parts,
        media.remove_recording,
        media.remove,
    ]
    for name in ("..", ".", "../../etc", "a/b", "", "x" * 21, "x" * 23, "é" * 22, "x" * 21 + "\n", "x" * 21 + "/"):
        for call in calls:
            with pytest.raises(ValueError, match="not a job ID"):
                call(name)
    assert house.left() == set()


def test_nothing_of_the_callers_names_a_part(media, job_id):
    for name in ("", ".", "..", "../recording", "a/b", ".hidden", "A", "a.b.c", "a\n", "é", "x" * 65):
        for call in (
            lambda name: media.store_part(job_id, name, b""),
            lambda name: media.read_part(job_id, name),
            lambda name: media.read_part_range(job_id, name, 0, 1),
        ):
            with pytest.raises(ValueError, match="not a valid name of a part"):
                call(name)
    for first, stop in ((-1, 3), (3, 2)):
        with pytest.raises(ValueError, match="not a range"):
            media.read_part_range(job_id, "a", first, stop)
    assert media.part_names(job_id) == frozenset()


def test_only_what_is_old_and_half_written_is_cleaned(house, media, job_id):
    media.store_part(job_id, "a", b"1")
    whole = house.left()
    soon = datetime.now(UTC) + timedelta(hours=1)
    house.leave_half_written(new_job_id())
    assert media.remove_incomplete(datetime(2001, 1, 1, tzinfo=UTC)) == 0  # in 2010 moto begins all uploads
    assert house.left() > whole
    assert media.remove_incomplete(soon) == 1
    assert house.left() == whole
    assert media.remove_incomplete(soon) == 0


def test_a_job_that_was_left_half_written_can_be_removed(house, media):
    job_id = new_job_id()
    house.leave_half_written(job_id)
    with pytest.raises(MediaMissing), media.local_recording(job_id):
        pytest.fail("it is not whole")
    media.remove(job_id)
    assert house.left() == set()


def test_a_probe_leaves_nothing(house, media):
    media.probe()
    assert house.left() == set()


def test_room_is_asked_of_the_disk(house, media):
    media.check_free_space(1)
    with pytest.raises(ServiceError, match="MIN_FREE_MB"):
        media.check_free_space(2**62)
    assert media.job_ids() == frozenset()
