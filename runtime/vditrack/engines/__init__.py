"""Engines of a bundle: what each was built from and for, and what this machine has."""
