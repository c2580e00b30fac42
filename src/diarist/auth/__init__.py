"""API keys: who may use the service, and which jobs belong to whom."""
