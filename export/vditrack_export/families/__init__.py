"""Backbone families: one folder each, over a shared base."""
