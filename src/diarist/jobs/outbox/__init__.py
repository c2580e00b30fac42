"""Tasks of the outbox: downloads of recordings and deliveries of webhooks, which are retried until they have ended."""
