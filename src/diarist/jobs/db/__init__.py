"""The tables, queries, and migrations of the job store in SQLite and PostgreSQL. No other package uses SQL."""
