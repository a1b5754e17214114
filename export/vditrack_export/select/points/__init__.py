"""Selecting the features that track points best."""
