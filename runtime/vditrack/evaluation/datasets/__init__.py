"""Readers of annotated data sets."""
