"""Tracked points: requests from topics, the points kept alive, and publication."""
