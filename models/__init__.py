"""Model cards (``*.toml``) and the bundled model (``tiny/``), installed as package data."""
