"""Baseline trackers that results are compared with."""
