"""Cosmos-Predict2."""
