"""NeMo's YAML configuration files: lookup, parsing and validation of every key. Nothing here needs NeMo."""
