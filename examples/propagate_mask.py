"""Propagate the mask of an object through a video, and find the points that are on it.

python examples/propagate_mask.py VIDEO LEFT TOP WIDTH HEIGHT OUTPUT.mp4
"""

import sys
from pathlib import Path

import numpy as np

from vditrack import Tracker
from vditrack.io.overlay import draw_masks
from vditrack.io.video import read_video, write_video

OBJECT = 1


def main(video_file: Path, box: list[int], output: Path) -> None:
    """Mark the box on the first frame, propagate it, and write a video with the mask."""
    video = read_video(video_file)
    left, top, width, height = box
    first_mask = np.zeros(video.frames.shape[1:3], np.uint8)  # 0 is the background
    first_mask[top : top + height, left : left + width] = OBJECT

    tracker = Tracker.load()
    masks = tracker.propagate(video.frames, first_mask)  # uint8 [T, H, W]

    centre = [[0, left + width / 2, top + height / 2]]
    tracks = tracker.track(video.frames, centre).on_objects(masks)

    write_video(output, draw_masks(video.frames, masks), video.times)
    for t, mask in enumerate(masks):
        on_object = tracks.object_id is not None and tracks.object_id[0, t] == OBJECT
        state = "on" if on_object else "off"
        print(f"frame {t}: {np.sum(mask == OBJECT)} pixels, centre point {state} the object")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(number) for number in sys.argv[2:6]], Path(sys.argv[6]))
