"""Accuracy of masks that optical flow carries into the images that the model has no time for.

    python benchmarks/carried_masks.py DATA      # DAVIS, or folders as `vditrack eval` takes them

The model describes every fourth frame. Its masks of a frame are at hand some frames later; then a
robot has the newest of them as they are, or carried into its newest frame by `MaskStream.carry`.
Each is compared with the truth of the newest frame, and the model's masks with that of their own.
"""

import sys
from pathlib import Path

import numpy as np

from vditrack import Tracker
from vditrack.evaluation.datasets.davis import MASKS, is_davis, open_davis, open_folders
from vditrack.evaluation.metrics.masks import MaskScores, mask_scores
from vditrack.streams.mask_stream import MaskUpdate

EVERY = 4
"""Frames from one that the model describes to the next: six in a second of DAVIS."""
LATE = (3, 7)
"""Frames until the masks of a frame are at hand."""


def describe(tracker: Tracker, frames: np.ndarray, first: np.ndarray) -> dict[int, MaskUpdate]:
    """Return the masks of every fourth frame, by its number."""
    stream, updates = tracker.mask_stream(), {}
    stream.push(frames[0], 0.0)
    stream.add_masks(first)
    for number in range(0, len(frames), EVERY):
        updates[number] = stream.push(frames[number], float(number))
    return updates


def score(truth: np.ndarray, found: list[np.ndarray]) -> MaskScores:
    """Compare masks; the measure leaves out a clip's ends, so that they are put there twice."""
    ends = ((1, 1), (0, 0), (0, 0))
    return mask_scores(np.pad(truth, ends, mode="edge"), np.pad(np.stack(found), ends, mode="edge"))


def main() -> None:
    """Print J&F of each clip, and the means by objects."""
    root, tracker = Path(sys.argv[1]), Tracker.load()
    clips = (open_davis(root) if is_davis(root) else open_folders(root, (MASKS,)))[1]
    weights, rows = [], []
    for clip in clips:
        assert clip.masks is not None
        frames, truth, stream = clip.frames, clip.masks, tracker.mask_stream()
        updates = describe(tracker, frames, truth[0])
        own = mask_scores(
            clip.masks[::EVERY], np.stack([update.mask for update in updates.values()])
        )
        scores = [own]
        for late in LATE:
            known = {t: (t - late) // EVERY * EVERY for t in range(late, len(frames))}
            stale = [updates[number].mask for number in known.values()]
            carried = [
                stream.carry(updates[number], frames[number], frames[t], float(t)).mask
                for t, number in known.items()
            ]
            scores += [score(truth[late:], masks) for masks in (stale, carried)]
        weights.append(own.objects)
        rows.append([(one.region + one.boundary) / 2 for one in scores])
        print(f"{clip.name:20}", *(f"{value:5.1f}" for value in rows[-1]), flush=True)
    print("own frame; as they are, carried: 3 frames late, 7 frames late")
    print(f"{'mean':20}", *(f"{value:5.1f}" for value in np.average(rows, axis=0, weights=weights)))


if __name__ == "__main__":
    main()
