"""The encoder of the bundled model; its transformer is a small Wan."""
