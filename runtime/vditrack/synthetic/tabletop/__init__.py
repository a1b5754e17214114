"""Renders clips of a robot's tabletop by MuJoCo, with exact ground truth."""
