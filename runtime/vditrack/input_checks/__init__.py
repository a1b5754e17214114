"""Checks of what comes from outside: arrays, files and text."""
