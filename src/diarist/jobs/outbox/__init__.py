"""Outbox tasks: recordings to download and webhooks to deliver, each retried until it has ended."""
