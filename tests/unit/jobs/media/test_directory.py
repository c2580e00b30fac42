"""What is particular to recordings in a directory; what every store of them must do is in the contract suite."""

from __future__ import annotations

import errno
import io
import os
import resource
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from diarist.errors import MediaMissing, MediaUnavailable, StorageFull
from diarist.jobs.media.directory import DirectoryMedia
from diarist.jobs.media.factory import open_media
from diarist.jobs.model import new_job_id
from diarist.settings import load_settings


@pytest.fixture
def media(tmp_path) -> DirectoryMedia:
    return DirectoryMedia(tmp_path / "jobs")


def kept(media: DirectoryMedia, said: bytes = b"said") -> str:
    job_id = new_job_id()
    media.store_recording(job_id, io.BytesIO(said), 2**30)
    return job_id


def left(media: DirectoryMedia) -> list[Path]:
    return sorted(media._root.rglob("*"))


@pytest.fixture
def no_room():
    """Files may not grow beyond 1 MB: what a full disk is like, for this process alone."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_the_settings_say_which_folder(tmp_path):
    job_id = new_job_id()
    for media_url, folder in (("", tmp_path / "data" / "jobs"), (str(tmp_path / "shared"), tmp_path / "shared")):
        media = open_media(load_settings(data_dir=tmp_path / "data", media_url=media_url, min_free_mb=0))
        media.store_recording(job_id, io.BytesIO(b"said"), 4)
        assert (folder / job_id / "recording").read_bytes() == b"said"
        media.close()


def test_all_of_a_job_is_for_this_user_alone(media):
    previous = os.umask(0)
    try:
        job_id = kept(media)
        media.store_part(job_id, "a", b"1")
    finally:
        os.umask(previous)
    for folder in (media._root, media.recording(job_id).parent, media.recording(job_id).parent / "parts"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_file_of_another_disk_is_copied_whole(media, tmp_path, monkeypatch):
    upload, replace = tmp_path / "upload", Path.replace

    def refuse(path: Path, target: Path) -> Path:
        if path == upload:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return replace(path, target)

    upload.write_bytes(b"said")
    monkeypatch.setattr(Path, "replace", refuse)
    job_id = new_job_id()
    assert media.store_recording(job_id, upload, 4) == 4
    assert not upload.exists()
    assert left(media) == [media._root / job_id, media.recording(job_id)]
    assert media.recording(job_id).read_bytes() == b"said"


def test_a_write_that_finds_no_room_is_told_as_such_and_leaves_nothing(media, no_room):
    with pytest.raises(StorageFull, match="ran full"):
        media.store_recording(new_job_id(), io.BytesIO(bytes(2**21)), 2**30)
    assert left(media) == []


def test_a_part_that_finds_no_room_leaves_the_one_before(media, no_room):
    job_id = kept(media)
    media.store_part(job_id, "a", b"first")
    before = left(media)
    with pytest.raises(StorageFull, match="ran full"):
        media.store_part(job_id, "a", bytes(2**21))
    assert media.read_part(job_id, "a") == b"first"
    assert left(media) == before


def test_room_is_asked_for_before_it_is_used(tmp_path):
    with pytest.raises(StorageFull, match="DATA_DIR"):
        DirectoryMedia(tmp_path / "jobs", min_free_bytes=2**62).check_free_space(1)
    DirectoryMedia(tmp_path / "jobs").check_free_space(1)


def test_a_folder_that_is_a_file_is_told_with_what_to_do(tmp_path):
    (tmp_path / "jobs").write_bytes(b"")
    media, job_id = DirectoryMedia(tmp_path / "jobs"), new_job_id()
    for call in (
        media.probe,
        lambda: media.check_free_space(1),
        lambda: media.store_recording(job_id, io.BytesIO(b"said"), 4),
        lambda: media.read_part(job_id, "a"),
        lambda: media.remove(job_id),
    ):
        with pytest.raises(MediaUnavailable, match=r"DATA_DIR|has to own it"):
            call()


def test_a_recording_that_is_not_on_this_machine_is_told_with_what_to_do(media):
    with pytest.raises(MediaMissing, match="all machines share"), media.local_recording(new_job_id()):
        pytest.fail("there is none")


def test_what_cannot_be_removed_is_told_and_removed_by_the_next_clean(media, monkeypatch):
    job_id = kept(media)

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(os, "rmdir", refuse)
        with pytest.raises(MediaUnavailable, match=r"cannot be removed \(Permission denied\)"):
            media.remove(job_id)
    assert media.job_ids() == frozenset()
    assert media.remove_incomplete(datetime.now(UTC)) == 1
    assert left(media) == []


def test_half_written_files_beside_whole_ones_are_cleaned_once_they_are_old(media):
    job_id = kept(media)
    media.store_part(job_id, "a", b"1")
    whole = left(media)
    half = media.recording(job_id).parent / ".partial-0123"
    half.write_bytes(b"sa")
    (media._root / ".probe-0123").write_bytes(b"")
    empty = media._root / new_job_id()
    empty.mkdir()
    now = datetime.now(UTC)
    assert media.remove_incomplete(now - timedelta(minutes=1)) == 0
    assert media.remove_incomplete(now + timedelta(minutes=1)) == 3
    assert left(media) == whole


def test_other_things_in_the_folder_are_no_jobs_and_left_alone(media):
    assert media.job_ids() == frozenset()
    media._root.mkdir()
    (media._root / "lost+found").mkdir()
    (media._root / new_job_id()).write_bytes(b"a file with the name of a job")
    before = left(media)
    assert media.remove_incomplete(datetime.now(UTC) + timedelta(days=1)) == 0
    assert left(media) == before


def test_ids_are_fit_for_urls_and_never_the_same():
    ids = {new_job_id() for _ in range(1_000)}
    assert len(ids) == 1_000
    assert all(len(job_id) == 22 for job_id in ids)


def test_a_job_that_is_removed_while_its_folder_is_made_is_missing(media, monkeypatch):
    job_id = kept(media)

    def remove_instead(path: Path, *_: object) -> None:
        """The folder exists when it is to be made, and no longer exists right afterwards."""
        media.remove(job_id)
        raise FileExistsError(errno.EEXIST, "File exists", str(path))

    monkeypatch.setattr(os, "mkdir", remove_instead)
    with pytest.raises(MediaMissing):
        media.store_part(job_id, "a", b"x")
    assert left(media) == []


def test_the_samples_of_a_recording_leave_free_what_must_stay_free(tmp_path):
    job_id = kept(DirectoryMedia(tmp_path / "jobs"))
    samples = tmp_path / "samples"
    samples.write_bytes(b"samples")
    full = DirectoryMedia(tmp_path / "jobs", 2**60)
    with pytest.raises(StorageFull, match="MIN_FREE_MB"):
        full.store_part(job_id, "samples-0.f32", samples)
    assert full.part_names(job_id) == frozenset()
