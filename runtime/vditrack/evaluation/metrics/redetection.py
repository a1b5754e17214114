"""AJ_RD: how well points are tracked after they reappear (TAPNext++).

The definition is that of ``compute_redetection_metrics`` in google-deepmind/tapnet
(``tapnet/tapnextpp/metrics/aj_rd.py``, 2026), written anew here:

- A *reappearance* is a frame in which a point is truly visible after one in which it is not. Its
  *duration* is the number of successive invisible frames before it, counted from the first frame of
  the video. A track whose query is not in the first frame so reappears at its query.
- Of each track, those reappearances count whose duration is longer than that of every earlier one.
- The Jaccard index of a reappearance is that of its track from that frame to the end of the video:
  true positives / (truly visible + false positives). A distance *equal* to the threshold is within
  it, unlike in TAP-Vid's AJ.
- For each minimum duration of 1, 4, 16, 64 and 256 frames, and each threshold of 1, 2, 4, 8 and 16
  pixels, it is averaged over the reappearances of at least that duration. AJ_RD is the mean over
  thresholds, then over the minimum durations that occur.
"""

import numpy as np

from vditrack.arrays import Bools, Doubles, Floats, Indices

THRESHOLDS = (1, 2, 4, 8, 16)
"""Thresholds on the distance, in pixels of the 256 x 256 raster."""
SHORTEST = (1, 4, 16, 64, 256)
"""Minimum durations, in frames."""


def average_redetection_jaccard(
    squared_distance: Floats, true_visible: Bools, visible: Bools
) -> float:
    """Return AJ_RD of one video in percent; NaN if no point reappears.

    Args:
        squared_distance: Squared distances from the true positions, float32 [Q, T], in squared
            pixels of the 256 x 256 raster.
        true_visible: True visibility, bool [Q, T].
        visible: Predicted visibility, bool [Q, T].

    """
    track, first, duration = _record_reappearances(true_visible)
    if not len(track):
        return np.nan
    jaccard = _jaccard_from(first, squared_distance[track], true_visible[track], visible[track])
    occurring = [jaccard[duration >= least] for least in SHORTEST]
    return 100 * float(np.mean([np.mean(each) for each in occurring if len(each)]))


def _record_reappearances(visible: Bools) -> tuple[Indices, Indices, Indices]:
    """Return track, frame and duration [E] of each reappearance longer than the earlier ones."""
    hidden_for = np.zeros(visible.shape, np.intp)
    for frame in range(1, visible.shape[1]):
        hidden_for[:, frame] = np.where(visible[:, frame - 1], 0, hidden_for[:, frame - 1] + 1)
    # Where a point reappears, the duration; 0 elsewhere.
    durations = np.where(visible, hidden_for, 0)
    longest = np.maximum.accumulate(durations, axis=1)
    longer = durations.copy()
    longer[:, 1:] = np.where(durations[:, 1:] > longest[:, :-1], durations[:, 1:], 0)
    track, first = np.nonzero(longer)
    return track, first, longer[track, first]


def _jaccard_from(
    first: Indices, squared_distance: Floats, true_visible: Bools, visible: Bools
) -> Doubles:
    """Return the Jaccard index [E, 5] by threshold of rows [E, T], each from a frame to the end."""
    after = np.arange(true_visible.shape[1]) >= first[:, None]
    truth, predicted = true_visible & after, visible & after
    by_threshold = []
    for threshold in THRESHOLDS:
        correct = truth & (squared_distance <= threshold**2)
        hits = (correct & predicted).sum(axis=1)
        by_threshold.append(hits / (truth.sum(axis=1) + (predicted & ~correct).sum(axis=1)))
    return np.stack(by_threshold, axis=1)
