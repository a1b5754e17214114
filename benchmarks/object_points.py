"""Whether masks know better than the points themselves which object a point is on.

Run: python benchmarks/object_points.py lookalikes:1
"""

import argparse
from itertools import islice

import numpy as np

from vditrack import Tracker
from vditrack.annotated_clip import AnnotatedClip
from vditrack.cli.progress import progress_bars
from vditrack.evaluation.datasets.registry import open_dataset
from vditrack.evaluation.metrics.identity_switches import find_contacts

POINTS = 60
"""About as many on each object."""


def queries_on(mask: np.ndarray, alike: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Queries [N, 3] on a grid over each object in a mask [H, W], and whose each is [N]."""
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
    """Count visible points that are on one of the objects that look the same, after they crossed.

    Returns:
        [5]: all of them; those still on the object of their query; those on the object that masks
        tell; those that masks tell to be on the object of their query, and of these those that are.

    """
    queries, owners = queries_on(clip.masks[0], clip.alike)
    tracks = tracker.track(clip.frames, queries)
    told = tracks.on_objects(tracker.propagate(clip.frames, clip.masks[0])).object_id
    true = tracks.on_objects(clip.masks).object_id
    after = int(np.flatnonzero(find_contacts(clip.masks, clip.alike).any(axis=0))[-1]) + 1
    told, true = told[:, after:], true[:, after:]
    alike, own = np.isin(true, clip.alike), owners[:, None]
    visible = tracks.visible[:, after:]
    kept = visible & (told == own)
    counted = (alike & visible, visible & (true == own), alike & visible & (told == true))
    return np.array([where.sum() for where in (*counted, kept, kept & (true == own))])


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="lookalikes:SEED")
    parser.add_argument("--clips", type=int, help="as many of them; all by default")
    given = parser.parse_args()
    data, tracker = open_dataset(given.data, "davis"), Tracker.load()
    with progress_bars(quiet=False) as bars:
        count = given.clips or data.length
        clips = bars.track(islice(data.clips, count), total=count, description="clips")
        totals = np.sum([tally(clip, tracker) for clip in clips], axis=0)
    points, stayed, told, kept, right = totals.tolist()
    print(f"{points} visible points on objects that look the same, after the last crossing")
    print(f"on the object of their query: {100 * stayed / points:.1f}%")
    print(f"on the object that masks tell: {100 * told / points:.1f}%")
    print(
        f"those that masks tell to be on the object of their query: {100 * right / kept:.1f}% are, "
        f"{100 * right / stayed:.1f}% of all that are"
    )


if __name__ == "__main__":
    main()
