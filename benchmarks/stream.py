"""Frame rate and memory of the live stream: bundled model, 640 x 480, 64 points, refinement on.

Run: python benchmarks/stream.py [--frames 5000]
The baseline is OpenCV's pyramidal Lucas-Kanade with a forward-backward check on the same frames.
"""

import argparse
import resource
import time

import cv2
import numpy as np

import klt
from vditrack import Tracker
from vditrack.synthetic.clips import make_clip

HEIGHT, WIDTH, POINTS, WARM_UP, SETTLED = 480, 640, 64, 20, 500


def resident_mib() -> float:
    """Return resident memory of this process."""
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def main() -> None:
    """Print rate, latency and memory of the stream and the rate of the baseline."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--bundle")
    arguments = parser.parse_args()
    count = arguments.frames
    clip = make_clip(seed=0, height=HEIGHT, width=WIDTH, frames=24)
    # There and back again, so that the picture never jumps.
    frames = np.concatenate([clip.frames, clip.frames[-2:0:-1]])
    xs, ys = np.meshgrid(np.linspace(40, WIDTH - 40, 8), np.linspace(40, HEIGHT - 40, 8))
    points = np.stack([xs.ravel(), ys.ravel()], axis=1).astype(np.float32)[:POINTS]

    stream = Tracker.load(arguments.bundle).stream()
    stream.push(frames[0], 0.0)
    stream.add(points)
    seconds, memory = [], {}
    for t in range(1, count + 1):
        start = time.perf_counter()
        update = stream.push(frames[t % len(frames)], t / 30)
        seconds.append(time.perf_counter() - start)
        if t in (SETTLED, count):
            memory[t] = resident_mib()
    timed = np.array(seconds[WARM_UP:])
    print(f"vditrack: {1 / timed.mean():6.1f} frames a second, {len(update.ids)} points,", end=" ")
    p50, p95, p99 = 1e3 * np.percentile(timed, [50, 95, 99])
    print(f"ms a frame: p50 {p50:.1f}  p95 {p95:.1f}  p99 {p99:.1f}  max {1e3 * timed.max():.1f}")
    print("resident memory:", ", ".join(f"{m:.1f} MiB at frame {t}" for t, m in memory.items()))

    start = time.perf_counter()
    for t in range(1, 201):
        pair = [cv2.cvtColor(frames[i % len(frames)], cv2.COLOR_RGB2GRAY) for i in (t - 1, t)]
        klt.step(pair[0], pair[1], points)
    rate = 200 / (time.perf_counter() - start)
    print(f"KLT:      {rate:6.1f} frames a second")
    print(f"vditrack runs at {1 / timed.mean() / rate:.2f} of KLT's rate")


if __name__ == "__main__":
    main()
