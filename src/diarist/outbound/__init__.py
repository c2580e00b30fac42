"""What the service asks of other machines: recordings by URL, and webhooks. No way from here into private networks."""
