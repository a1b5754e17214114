"""Track a grid of points through a video; save their positions and an overlay video.

python examples/track_video.py VIDEO OUTPUT_FOLDER
"""

import sys
from pathlib import Path

import numpy as np

from vditrack import Tracker
from vditrack.io.overlay import draw_tracks
from vditrack.io.video import read_video, write_video

COLUMNS, ROWS = 8, 6


def main(video_file: Path, folder: Path) -> None:
    """Track the grid and write ``positions.npz`` and ``overlay.mp4`` into the folder."""
    video = read_video(video_file)
    height, width = video.frames.shape[1:3]
    x, y = np.meshgrid(
        (np.arange(COLUMNS) + 0.5) * width / COLUMNS, (np.arange(ROWS) + 0.5) * height / ROWS
    )
    # A query is a frame number and a position in pixels: (t, x, y).
    queries = np.stack([np.zeros(x.size), x.ravel(), y.ravel()], axis=1)

    tracker = Tracker.load()
    tracks = tracker.track(video.frames, queries, times=video.times)

    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "positions.npz", points=tracks.points, visible=tracks.visible)
    write_video(folder / "overlay.mp4", draw_tracks(video.frames, tracks), video.times)
    print(f"{len(queries)} points, visible in {tracks.visible.mean():.0%} of the frames")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
