"""The models: what there is, where it comes from, whether it is the right one."""

from __future__ import annotations

from diarist.models.catalogue import Model, catalogue, required
from diarist.models.sources import BytesProgress
from diarist.models.store import ModelStore

__all__ = ["BytesProgress", "Model", "ModelStore", "catalogue", "required"]
