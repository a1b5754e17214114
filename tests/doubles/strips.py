"""Clips of one row of pixels whose masks are written as text, and clips without content."""

import numpy as np

from vditrack.synthetic.annotated_clip import AnnotatedClip


def strip_masks(*rows):
    """Read masks [T, 1, W] from a line a frame: a digit a pixel, a dot for the background."""
    return np.array([[[int(p.replace(".", "0")) for p in row]] for row in rows], np.uint8)


def strip_clip(masks, visible=None, objects=None, alike=(1, 2)):
    """Return a clip with masks [T, H, W] and points of visibility [N, T], all at (0, 0)."""
    length = len(masks)
    visible = np.zeros((0, length), bool) if visible is None else visible
    frames, points = (
        np.zeros((*masks.shape, 3), np.uint8),
        np.zeros((*visible.shape, 2), np.float32),
    )
    objects = None if objects is None else np.uint8(objects)
    return AnnotatedClip("made", frames, points, visible, masks, objects, alike)


def contacts(clip):
    """Return for each frame the pairs of objects that touch, by pixels and one after another.

    Two touch while they have neighbouring pixels, or while one that touched the other is covered.
    """
    touching, found = set(), []
    for mask in clip.masks.tolist():
        there = {(x, y): p for y, row in enumerate(mask) for x, p in enumerate(row)}
        now = {
            frozenset((p, there[place]))
            for (x, y), p in there.items()
            for place in ((x + 1, y), (x, y + 1))
            if place in there and p != there[place] and {p, there[place]} <= set(clip.alike)
        }
        touching = now | {pair for pair in touching if not pair <= set(there.values())}
        found.append(touching)
    return found
