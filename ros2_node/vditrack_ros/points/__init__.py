"""Points on topics."""
