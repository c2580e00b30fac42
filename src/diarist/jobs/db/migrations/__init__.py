"""Schema migrations of the job store.

``state`` reads which version a database has, ``locks`` lets only one process upgrade it at a time, and ``upgrading``
applies the migration scripts in ``versions`` with Alembic. Only ``upgrading`` imports Alembic, and only databases that
are not up to date need it.
"""
