"""Add the storage limit of API keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
min_release = "0.2.0"


def upgrade() -> None:
    """Add the column. Keys that exist have no limit of their own."""
    op.add_column("api_keys", sa.Column("storage_limit_mb", sa.Integer))
