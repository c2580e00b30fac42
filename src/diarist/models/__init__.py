"""Model files: the catalog of known models, download from several sources, integrity checks, and local storage."""

from __future__ import annotations

from diarist.models.catalog import Model, load_catalog
from diarist.models.selection import required, select_recognizer
from diarist.models.sources import BytesProgress
from diarist.models.store import ModelStore

__all__ = ["BytesProgress", "Model", "ModelStore", "load_catalog", "required", "select_recognizer"]
