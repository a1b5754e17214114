"""Score the bundled model and KLT on annotated clips, by TAP-Vid's `first` protocol.

Run: python benchmarks/davis.py DATA [--size 256|full] [--bundle BUNDLE]
DATA holds a folder a video: frames/*.jpg and tracks.npz (points [N, T, 2] as fractions of the
frame, occluded [N, T]).
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

import klt
import tapvid
from vditrack import Tracker

RASTER = 256


def load(video: Path, size: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames uint8 [T, H, W, 3], true points [N, T, 2] as fractions, visibility [N, T]."""
    paths = sorted((video / "frames").glob("*.jpg"))
    frames = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in paths]
    if size != "full":
        frames = [
            cv2.resize(frame, (RASTER, RASTER), interpolation=cv2.INTER_AREA) for frame in frames
        ]
    with np.load(video / "tracks.npz", allow_pickle=False) as tracks:
        points, visible = tracks["points"], ~tracks["occluded"]
    seen = visible.any(axis=1)
    return np.stack(frames), points[seen], visible[seen]


def main() -> None:
    """Print a row a video and the mean of both methods."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--size", choices=["256", "full"], default="256")
    parser.add_argument("--bundle")
    arguments = parser.parse_args()
    tracker = Tracker.load(arguments.bundle)
    scores: dict[str, list[tapvid.Scores]] = {"klt": [], "vditrack": []}
    for video in sorted(path for path in arguments.data.iterdir() if path.is_dir()):
        frames, truth, visible = load(video, arguments.size)
        size = np.array(frames.shape[2:0:-1], np.float32)
        starts = visible.argmax(axis=1)
        at_start = truth[np.arange(len(truth)), starts] * size
        # Annotations may lie on the border itself, which is outside the last pixel.
        at_start = np.clip(at_start, 0, size - 1e-3)
        queries = np.column_stack([starts, at_start]).astype(np.float32)
        tracks = tracker.track(frames, queries)
        found = {"klt": klt.track(frames, queries), "vditrack": (tracks.points, tracks.visible)}
        for method, (points, seen) in found.items():
            on_raster = points / size * RASTER
            scores[method].append(tapvid.score(starts, truth * RASTER, visible, on_raster, seen))
        print(f"{video.name:22s} klt {scores['klt'][-1]}   vditrack {scores['vditrack'][-1]}")
    print()
    for method, results in scores.items():
        print(f"{method:10s} {tapvid.mean(results)}   ({len(results)} videos, {arguments.size})")
    ratio = (
        tapvid.mean(scores["vditrack"]).average_jaccard / tapvid.mean(scores["klt"]).average_jaccard
    )
    print(f"AJ of vditrack / AJ of KLT: {ratio:.2f}")


if __name__ == "__main__":
    main()
