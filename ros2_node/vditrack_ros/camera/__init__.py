"""Subscription to a camera's images, and the decision which of them are processed."""
