"""Objects that look the same and pass one another: when they touch, and who is who afterwards."""

import numpy as np
from numpy.typing import NDArray

from vditrack.annotated_clip import AnnotatedClip
from vditrack.arrays import Bools, MaskClip
from vditrack.evaluation.metrics.results import Share

Indices = NDArray[np.uint8]


def find_contacts(masks: MaskClip, alike: tuple[int, ...]) -> Bools:
    """Tell when objects that look the same touch one another.

    Two touch while their masks [T, H, W] have neighbouring pixels, or while one that touched the
    other is wholly covered.

    Args:
        masks: index of the object at each pixel.
        alike: indices of the objects that look the same.

    Returns:
        [256, T] by index: whether the object touches another of ``alike``.

    """
    pairs = np.zeros((len(masks), 256, 256), np.bool_)
    for one, other in (masks[:, 1:], masks[:, :-1]), (masks[:, :, 1:], masks[:, :, :-1]):
        border = (one != other) & np.isin(one, alike) & np.isin(other, alike)
        frames = np.nonzero(border)[0]
        pairs[frames, one[border], other[border]] = True
        pairs[frames, other[border], one[border]] = True
    for t in range(1, len(masks)):
        # What is covered as a whole has no border, and goes on touching what covers it.
        covered = ~np.isin(np.arange(256), masks[t])
        pairs[t] |= pairs[t - 1] & (covered | covered[:, None])
    return np.asarray(pairs.any(axis=2).T, np.bool_)


def score_mask_identities(clip: AnnotatedClip, found: MaskClip) -> Share:
    """Whether objects that look the same are still told apart when all their crossings are over.

    The frames after the last one in which any two of them touch (`find_contacts`) are judged
    together, with the objects that are in the first true mask and in at least one of these frames.
    The clip is one event. Identities are kept if every one of these objects is found on more than
    half of its true pixels, and if its found pixels overlap its own true mask more than that of any
    other object of ``alike``. An object that is lost, or reduced to a scrap, is not kept.

    Args:
        clip: has ``masks`` and ``alike``. There is no event without them, where nothing touches or
            is apart again, and where the first masks, unmoved, would be right.
        found: [T, H, W] indices of objects, as they were propagated from the first true mask.

    """
    if clip.masks is None or not clip.alike:
        return Share(0, 0)
    met = np.flatnonzero(find_contacts(clip.masks, clip.alike).any(axis=0))
    after = slice(met[-1] + 1 if len(met) else len(found), None)
    truth = clip.masks[after]
    alike = np.array(clip.alike, np.uint8)
    judged = np.intersect1d(np.intersect1d(clip.masks[:1], truth), alike)
    unmoved = np.broadcast_to(clip.masks[:1], truth.shape)
    if not len(judged) or _told_apart(truth, unmoved, judged, alike):
        return Share(0, 0)
    return Share(int(_told_apart(truth, found[after], judged, alike)), 1)


def _told_apart(truth: MaskClip, found: MaskClip, judged: Indices, alike: Indices) -> bool:
    """Tell whether each of the objects judged [J] is found on itself, in masks [T, H, W]."""
    common = np.zeros((256, 256), np.int64)
    np.add.at(common, (found, truth), 1)
    own = common[judged, judged]
    others = common[np.ix_(judged, alike)]
    others[judged[:, None] == alike] = -1
    most = 2 * own > common[:, judged].sum(axis=0)
    return bool((most & (own > others.max(axis=1))).all())
