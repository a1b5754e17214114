"""Selecting the features that propagate masks best."""
