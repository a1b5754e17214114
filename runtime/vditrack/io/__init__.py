"""Reading and writing videos, tracks, masks and recordings."""
