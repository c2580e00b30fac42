"""Requests to other machines: downloads of recordings, and webhooks. Private networks cannot be reached from here."""
