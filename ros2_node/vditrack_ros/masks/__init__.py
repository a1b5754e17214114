"""Masks on topics."""
