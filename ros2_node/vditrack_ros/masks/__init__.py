"""Masks of objects: requests from topics, propagation and publication."""
