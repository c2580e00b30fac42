"""The only package with SQL: the job store's tables, queries and migrations, for SQLite and PostgreSQL."""
