"""Clips rendered with exact truth: tracks, visibility and instance masks known by construction."""
