"""Readers of annotated data sets in their published formats."""
