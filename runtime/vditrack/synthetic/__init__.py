"""Renders clips with exact ground truth: tracks, visibility and instance masks."""
