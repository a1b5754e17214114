"""Compares two predictions of the object that a point is on: its query's, and the masks'.

Run: python benchmarks/object_points.py lookalikes:1
"""

import argparse
from itertools import islice

import numpy as np

from vditrack import Tracker
from vditrack.cli.progress import progress_bars
from vditrack.evaluation.datasets.registry import open_dataset
from vditrack.evaluation.metrics.identity_switches import find_contacts
from vditrack.synthetic.annotated_clip import AnnotatedClip

POINTS = 60
"""Approximate number of points on each object."""


def queries_on(mask: np.ndarray, alike: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return queries [N, 3] on a grid over each object in a mask [H, W], and their objects [N]."""
    queries, owners = [], []
    for index in alike:
        step = max(2, round((np.count_nonzero(mask == index) / POINTS) ** 0.5))
        rows, columns = np.nonzero(mask == index)
        on_grid = (rows % step == step // 2) & (columns % step == step // 2)
        x, y = columns[on_grid] + 0.5, rows[on_grid] + 0.5
        queries.append(np.stack([np.zeros(len(x)), x, y], axis=1))
        owners.append(np.full(len(x), index))
    return np.concatenate(queries).astype(np.float32), np.concatenate(owners)


def tally(clip: AnnotatedClip, tracker: Tracker) -> np.ndarray:
    """Count visible points on objects that look the same, after the objects have crossed.

    Returns:
        Five counts: all points; those still on the object of their query; those on the object that
        the masks give; those that the masks place on the object of their query; and the correct
        ones of these.

    """
    queries, owners = queries_on(clip.masks[0], clip.alike)
    tracks = tracker.track(clip.frames, queries)
    predicted = tracks.on_objects(tracker.propagate(clip.frames, clip.masks[0])).object_id
    true = tracks.on_objects(clip.masks).object_id
    after = int(np.flatnonzero(find_contacts(clip.masks, clip.alike).any(axis=0))[-1]) + 1
    predicted, true = predicted[:, after:], true[:, after:]
    alike, own = np.isin(true, clip.alike), owners[:, None]
    visible = tracks.visible[:, after:]
    kept = visible & (predicted == own)
    counted = (alike & visible, visible & (true == own), alike & visible & (predicted == true))
    return np.array([where.sum() for where in (*counted, kept, kept & (true == own))])


def main() -> None:
    """Print the accuracy of both predictions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="lookalikes:SEED")
    parser.add_argument("--clips", type=int, help="number of clips; all by default")
    given = parser.parse_args()
    data, tracker = open_dataset(given.data, "davis"), Tracker.load()
    with progress_bars(quiet=False) as bars:
        count = given.clips or data.length
        clips = bars.track(islice(data.clips, count), total=count, description="clips")
        totals = np.sum([tally(clip, tracker) for clip in clips], axis=0)
    points, stayed, by_masks, kept, correct = totals.tolist()
    print(f"{points} visible points on objects that look the same, after the last crossing")
    print(f"on the object of their query: {100 * stayed / points:.1f}%")
    print(f"on the object that the masks give: {100 * by_masks / points:.1f}%")
    print(
        f"placed by the masks on the object of their query: precision {100 * correct / kept:.1f}%, "
        f"recall {100 * correct / stayed:.1f}%"
    )


if __name__ == "__main__":
    main()
