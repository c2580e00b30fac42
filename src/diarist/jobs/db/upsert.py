"""Rows that are made or changed in one statement, which each kind of database spells its own way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite


def upsert(connection: Connection, table: Table, values: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
    """Insert a row, or make ``changes`` to the one that has the same primary key (none: leave it as it is)."""
    kind = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = kind.insert(table).values(**values)
    key = list(table.primary_key.columns)
    if changes:
        connection.execute(statement.on_conflict_do_update(index_elements=key, set_=dict(changes)))
    else:
        connection.execute(statement.on_conflict_do_nothing(index_elements=key))
