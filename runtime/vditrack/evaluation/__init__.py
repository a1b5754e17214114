"""Evaluation of point tracking and mask propagation by the official protocols."""
