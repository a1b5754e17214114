"""Clips of a tabletop rendered by MuJoCo, with exact ground truth."""
