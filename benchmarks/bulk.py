"""Tracks many recordings: `annotate` on one and two workers against a loop of `track`.

    python benchmarks/bulk.py            # on two idle cores
    python benchmarks/bulk.py --quick    # few recordings: shows that it runs

The recordings are videos of a picture of noise in all sizes, over which a camera moves. The loop
runs ``vditrack track`` on one after the other, as a shell would; it also writes an overlay video of
each. All methods run in turns, and the fastest turn of each counts. The time of `annotate` is that
of its whole command, with the start of Python and of Ray. The rates of the workers, which begin
when the first recording is handed out, are given beside it, for long jobs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np

import result_files

VDITRACK = (sys.executable, "-m", "vditrack")
RATE, SIDE, SIZE = 30, 8, (480, 640)
"""Frames a second, rows and columns of points, and height and width."""
METHODS = {
    "local, 1 worker": ("--engine", "local", "--workers", "1"),
    "local, 2 workers": ("--engine", "local", "--workers", "2"),
    "ray, 1 worker": ("--engine", "ray", "--workers", "1"),
    "ray, 2 workers": ("--engine", "ray", "--workers", "2"),
}
LOOP = "loop of track"


class Turn(NamedTuple):
    """Times of one run of a method, in seconds."""

    whole: float
    """Of the command, or of all commands of the loop."""
    workers: float
    """Since the first recording was handed out; of the loop the same as the whole."""


def write_recordings(folder: Path, count: int, frames: int) -> None:
    """Write videos that differ."""
    random = np.random.default_rng(0)
    height, width = SIZE
    picture = np.zeros((height + 320, width + 320, 3), np.float32)
    for level in range(2, 7):
        size = (picture.shape[0] >> level, picture.shape[1] >> level, 3)
        noise = random.normal(0, 12, size).astype(np.float32)
        picture += cv2.resize(noise, picture.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    pixels = np.clip(picture + 128, 0, 255).astype(np.uint8)
    for number in range(count):
        with av.open(str(folder / f"{number:03}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=RATE)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.options = {"crf": "23", "preset": "ultrafast"}
            for t in range(frames):
                turn = 2 * np.pi * (t / 150 + number / count)
                x, y = round(160 + 150 * np.cos(turn)), round(160 + 150 * np.sin(turn))
                view = np.ascontiguousarray(pixels[y : y + height, x : x + width])
                container.mux(stream.encode(av.VideoFrame.from_ndarray(view, format="rgb24")))
            container.mux(stream.encode(None))


def run(*arguments: object) -> str:
    """Run ``vditrack ARGUMENTS`` and return what it prints."""
    command = [*VDITRACK, *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def run_loop(recordings: list[Path], output: Path) -> Turn:
    """Run `track` on each recording."""
    began = time.perf_counter()
    for path in recordings:
        run("track", path, "-o", output / path.stem, "--grid", SIDE, "--json")
    seconds = time.perf_counter() - began
    return Turn(seconds, seconds)


def run_annotate(folder: Path, output: Path, options: tuple[str, ...]) -> Turn:
    """Run `annotate` on all recordings."""
    began = time.perf_counter()
    printed = run("annotate", folder, "-o", output, "--grid", SIDE, "--json", *options)
    seconds = time.perf_counter() - began
    return Turn(seconds, json.loads(printed)["throughput"]["seconds"])


def measure(count: int, frames: int, turns: int) -> dict[str, Turn]:
    """Return the fastest turn of each method; of the loop on a quarter of the recordings."""
    best: dict[str, Turn] = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        recordings = root / "recordings"
        recordings.mkdir()
        write_recordings(recordings, count, frames)
        few = sorted(recordings.iterdir())[: max(count // 4, 1)]
        for turn in range(turns):
            loop = run_loop(few, root / f"loop{turn}")
            scale = count / len(few)
            found = {LOOP: Turn(loop.whole * scale, loop.workers * scale)}
            for method, options in METHODS.items():
                output = root / f"{method}{turn}"
                found[method] = run_annotate(recordings, output, options)
            for method, taken in found.items():
                known = best.get(method, taken)
                best[method] = Turn(*map(min, known, taken))
                print(
                    f"turn {turn + 1}, {method}: {taken.whole:.1f} s, workers {taken.workers:.1f} s"
                )
    return best


def summarize(best: Mapping[str, Turn], count: int, frames: int) -> dict[str, float]:
    """Return the figures: rates of each method, and ratios."""
    figures: dict[str, float] = {}
    for method, turn in best.items():
        figures[f"{method}, recordings an hour"] = 3600 * count / turn.whole
        figures[f"{method}, frames a second"] = count * frames / turn.whole
        figures[f"{method}, frames a second of the workers"] = count * frames / turn.workers
    for engine in ("local", "ray"):
        one, two = best[f"{engine}, 1 worker"], best[f"{engine}, 2 workers"]
        figures[f"{engine}, loop to 1 worker"] = best[LOOP].whole / one.whole
        figures[f"{engine}, loop to 2 workers"] = best[LOOP].whole / two.whole
        figures[f"{engine}, 1 to 2 workers"] = one.workers / two.workers
    return {name: round(value, 3) for name, value in figures.items()}


def main() -> None:
    """Measure, print, and write a result file with --json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, default=16, help="number of recordings")
    parser.add_argument("--frames", type=int, default=40, help="frames of each")
    parser.add_argument("--turns", type=int, default=2, help="runs of each method")
    parser.add_argument("--quick", action="store_true", help="4 recordings of 16 frames, one turn")
    parser.add_argument("--json", action="store_true", help="write the result file")
    given = parser.parse_args()
    count, frames, turns = (
        (4, 16, 1) if given.quick else (given.recordings, given.frames, given.turns)
    )
    load = result_files.begin()
    figures = summarize(measure(count, frames, turns), count, frames)
    for name, value in figures.items():
        print(f"{name}: {value:.2f}")
    if given.json:
        options = f"--recordings {count} --frames {frames} --turns {turns}"
        command = f"python benchmarks/bulk.py {options} --json"
        print(result_files.write("bulk", command, load, figures))


if __name__ == "__main__":
    main()
