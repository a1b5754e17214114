"""Object masks: soft labels of grid cells, propagated from frame to frame."""
