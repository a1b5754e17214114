"""Mask propagation by labels of grid cells."""
