"""Wan 2.1 trained to attend block-causally: Self-Forcing, Causal-Forcing, CausVid."""
