"""Simple trackers and mask propagators that results are compared with."""
