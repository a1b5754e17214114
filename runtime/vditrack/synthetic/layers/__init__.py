"""Clips rendered from moving image layers, with exact ground truth."""
