from __future__ import annotations

import errno
import io
import os
import resource
import stat

import pytest

from diarist.errors import StorageFull, UploadTooLarge
from diarist.jobs.media import MediaStore, new_job_id


@pytest.fixture
def media(tmp_path) -> MediaStore:
    return MediaStore(tmp_path / "jobs")


def test_a_stream_is_kept_in_a_folder_of_its_own_for_this_user_alone(media, tmp_path):
    previous = os.umask(0)
    try:
        job_id = new_job_id()
        said = os.urandom(3 * 2**20 + 17)
        assert media.keep(job_id, io.BytesIO(said), 2**30) == len(said)
    finally:
        os.umask(previous)
    assert media.recording(job_id).read_bytes() == said
    assert stat.S_IMODE(media.recording(job_id).parent.stat().st_mode) == 0o700
    assert media.job_ids() == {job_id}


def test_a_file_is_moved(media, tmp_path):
    upload = tmp_path / "upload"
    upload.write_bytes(b"said")
    job_id = new_job_id()
    assert media.keep(job_id, upload, 4) == 4
    assert media.recording(job_id).read_bytes() == b"said"
    assert not upload.exists()


@pytest.mark.parametrize("as_file", [False, True])
def test_one_byte_too_many_is_refused_and_nothing_is_left(media, tmp_path, as_file):
    upload = tmp_path / "upload"
    upload.write_bytes(b"12345")
    job_id = new_job_id()
    with pytest.raises(UploadTooLarge, match="MAX_UPLOAD_MB"):
        media.keep(job_id, upload if as_file else io.BytesIO(b"12345"), 4)
    assert media.job_ids() == frozenset()


class BrokenStream(io.BytesIO):
    def __init__(self, error: Exception) -> None:
        super().__init__(b"said")
        self.error = error

    def read(self, size=-1):
        if got := super().read(2):
            return got
        raise self.error


@pytest.mark.parametrize(
    ("error", "seen"),
    [(OSError(errno.ENOSPC, "full"), StorageFull), (ConnectionResetError(), ConnectionResetError)],
)
def test_a_stream_that_breaks_leaves_nothing(media, error, seen):
    with pytest.raises(seen):
        media.keep(new_job_id(), BrokenStream(error), 100)
    assert media.job_ids() == frozenset()


def test_a_write_that_finds_no_room_is_told_as_such_and_leaves_nothing(media):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
    try:
        with pytest.raises(StorageFull, match="ran full"):
            media.keep(new_job_id(), io.BytesIO(bytes(2**21)), 2**30)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert media.job_ids() == frozenset()


def test_room_is_asked_for_before_it_is_used(tmp_path):
    with pytest.raises(StorageFull, match="DATA_DIR"):
        MediaStore(tmp_path / "jobs", min_free_bytes=2**62).check_room(1)
    MediaStore(tmp_path / "jobs").check_room(1)


def test_remove_is_quiet_about_what_is_not_there(media):
    job_id = new_job_id()
    media.remove(job_id)
    media.keep(job_id, io.BytesIO(b"said"), 10)
    media.remove(job_id)
    assert media.job_ids() == frozenset()


@pytest.mark.parametrize("name", ["..", "../../etc", "a/b", "", "x" * 21, "x" * 23, "é" * 22, "x" * 21 + "\n"])
def test_nothing_but_an_id_names_a_folder(media, name):
    for call in (media.recording, media.remove):
        with pytest.raises(ValueError, match="no job id"):
            call(name)


def test_other_things_in_the_folder_are_no_jobs(media, tmp_path):
    assert media.job_ids() == frozenset()
    (tmp_path / "jobs" / "lost+found").mkdir(parents=True)
    assert media.job_ids() == frozenset()


def test_ids_are_fit_for_urls_and_never_the_same():
    ids = {new_job_id() for _ in range(1_000)}
    assert len(ids) == 1_000
    assert all(len(job_id) == 22 for job_id in ids)
