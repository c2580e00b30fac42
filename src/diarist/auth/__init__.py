"""API keys: who may use the service, and whose jobs are whose."""
