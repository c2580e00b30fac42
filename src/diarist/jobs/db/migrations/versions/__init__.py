"""Migration scripts, one for each schema version. Alembic loads them as files."""
