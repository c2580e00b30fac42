"""What the system says when a disk is full."""

from __future__ import annotations

import errno


def disk_full(error: OSError) -> bool:
    """Whether there is no room left: on the disk, for this user, or for a file as large as this."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
