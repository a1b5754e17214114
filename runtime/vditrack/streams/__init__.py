"""Live streams of points and masks: they own time and state."""
