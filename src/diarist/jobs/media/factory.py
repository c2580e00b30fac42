"""Open the media store that the settings select: a directory or an S3 bucket."""

from __future__ import annotations

from diarist.jobs.media.base import MediaStore
from diarist.jobs.media.directory import DirectoryMedia
from diarist.jobs.media.s3 import open_s3
from diarist.settings import Settings


def open_media(settings: Settings) -> MediaStore:
    """Open the media store of this installation.

    Raises:
        ConfigurationError: MEDIA_URL or the S3 settings are not valid, or the library for S3 is not installed.
    """
    min_free_bytes = settings.min_free_mb * 2**20
    if not settings.in_s3:
        return DirectoryMedia(settings.media_dir, min_free_bytes)
    return open_s3(settings, min_free_bytes)
