"""Identity switches between objects that look the same and cross each other."""

import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Bools, ImageSequence, MaskClip
from vditrack.evaluation.metrics.results import Share
from vditrack.synthetic.annotated_clip import AnnotatedClip

ObjectIndices = NDArray[np.uint8]


def find_contacts(masks: MaskClip, alike: tuple[int, ...]) -> Bools:
    """Return when objects that look the same touch each other.

    Two objects touch while their masks have neighbouring pixels, or while one that touched the
    other is wholly covered.

    Args:
        masks: Object index at each pixel, uint8 [T, H, W].
        alike: Indices of the objects that look the same.

    Returns:
        Whether the object of each index touches another of ``alike``, bool [256, T].

    """
    pairs = np.zeros((len(masks), 256, 256), np.bool_)
    for one, other in (masks[:, 1:], masks[:, :-1]), (masks[:, :, 1:], masks[:, :, :-1]):
        border = (one != other) & np.isin(one, alike) & np.isin(other, alike)
        frames = np.nonzero(border)[0]
        pairs[frames, one[border], other[border]] = True
        pairs[frames, other[border], one[border]] = True
    for t in range(1, len(masks)):
        # A wholly covered object has no border, but still touches what covers it.
        covered = ~np.isin(np.arange(256), masks[t])
        pairs[t] |= pairs[t - 1] & (covered | covered[:, None])
    return np.asarray(pairs.any(axis=2).T, np.bool_)


def score_mask_identities(clip: AnnotatedClip, found: ImageSequence) -> Share:
    """Return whether objects that look the same keep their identities through all crossings.

    The frames after the last one in which any two of them touch (`find_contacts`) are judged
    together, with the objects that are in the first true mask and in at least one of these frames.
    The clip is one event. Identities are kept if every one of these objects is found on more than
    half of its true pixels, and if its found pixels overlap its own true mask more than that of any
    other object of ``alike``. An object that is lost, or reduced to a scrap, is not kept.

    Args:
        clip: A clip with ``masks`` and ``alike``. It has no event without them, if no objects touch
            or if they are not apart at the end, and if the first masks, unmoved, would be right.
        found: Object indices propagated from the first true mask, uint8 [T, H, W].

    """
    if clip.masks is None or not clip.alike:
        return Share(0, 0)
    masks = np.asarray(clip.masks)
    met = np.flatnonzero(find_contacts(masks, clip.alike).any(axis=0))
    after = slice(met[-1] + 1 if len(met) else len(found), None)
    truth = masks[after]
    alike = np.array(clip.alike, np.uint8)
    judged = np.intersect1d(np.intersect1d(masks[:1], truth), alike)
    unmoved = np.broadcast_to(masks[:1], truth.shape)
    if not len(judged) or _all_kept(truth, unmoved, judged, alike):
        return Share(0, 0)
    return Share(int(_all_kept(truth, np.asarray(found[after]), judged, alike)), 1)


def _all_kept(
    truth: MaskClip, found: MaskClip, judged: ObjectIndices, alike: ObjectIndices
) -> bool:
    """Return whether each of the judged objects [J] keeps its identity in masks [T, H, W]."""
    common = np.zeros((256, 256), np.int64)
    np.add.at(common, (found, truth), 1)
    own = common[judged, judged]
    others = common[np.ix_(judged, alike)]
    others[judged[:, None] == alike] = -1
    most = 2 * own > common[:, judged].sum(axis=0)
    return bool((most & (own > others.max(axis=1))).all())
