"""NeMo's YAML configuration files: found, parsed and checked key by key, without NeMo."""
