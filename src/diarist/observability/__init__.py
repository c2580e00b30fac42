"""Logs, redaction of secrets, and traces."""
