"""Renders clips of moving image layers with exact ground truth."""
