"""From frames to descriptors: encoder, windows, feature maps."""
