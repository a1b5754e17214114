"""Distils a large model into one of a robot's size, on the user's own footage."""
