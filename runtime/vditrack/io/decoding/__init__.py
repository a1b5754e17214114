"""Decoding of video files: streams, orientation, damage."""
