"""Logging, redaction of secrets in logs, and tracing."""
