"""API keys, which authenticate clients and own jobs."""
