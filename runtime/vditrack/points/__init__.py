"""Point tracking: optical flow, patches, descriptors and visibility."""
