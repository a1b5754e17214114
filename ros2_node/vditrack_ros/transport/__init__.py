"""Topics: names, quality of service and its overrides, losses. Knows nothing of tracking."""
