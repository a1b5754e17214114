"""Metrics of points, keypoints and masks."""
