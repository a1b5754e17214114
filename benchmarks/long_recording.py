"""Tracks a long video: its memory by the minute of video, and a run that is killed and continued.

    python benchmarks/long_recording.py --minutes 4
    python benchmarks/long_recording.py --minutes 60 --folder DIR --runs whole
    python benchmarks/long_recording.py --minutes 60 --folder DIR --runs resumed

The video is 1080p at 30 Hz: a short textured clip that is encoded once, and whose packets are then
repeated. Each minute of video has the same frames, so memory that grows comes from the length.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import av
import cv2
import numpy as np

from vditrack.io.run_store import read_checkpoint

RATE, SECONDS, SIDE = 30, 10, 8
"""Frames a second, seconds of the clip that is repeated, and rows and columns of points."""
FLAT_FROM = 5
"""Minute of video from which on the memory is compared."""
RUNS = ("whole", "resumed")
"""A run without an interruption; and one that is killed at half-time, and continued."""
VDITRACK = (sys.executable, "-m", "vditrack")


def write_clip(path: Path) -> None:
    """Write a picture of noise in all sizes, over which a camera moves in a circle."""
    random = np.random.default_rng(0)
    picture = np.zeros((1400, 2240, 3), np.float32)
    for level in range(2, 8):
        noise = random.normal(0, 12, (1400 >> level, 2240 >> level, 3)).astype(np.float32)
        picture += cv2.resize(noise, (2240, 1400), interpolation=cv2.INTER_CUBIC)
    picture = np.clip(picture + 128, 0, 255).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        stream.options = {"crf": "30", "preset": "ultrafast", "g": "60"}
        for t in range(RATE * SECONDS):
            turn = 2 * np.pi * t / (RATE * SECONDS)
            x, y = round(160 + 150 * np.cos(turn)), round(160 + 150 * np.sin(turn))
            frame = av.VideoFrame.from_ndarray(picture[y : y + 1080, x : x + 1920], format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def repeat_clip(clip: Path, path: Path, times: int) -> None:
    """Write a video with the packets of a clip, so many times."""
    with av.open(str(clip)) as source, av.open(str(path), "w") as container:
        stream = source.streams.video[0]
        copy = container.add_stream_from_template(stream)
        length = stream.duration
        for number in range(times):
            source.seek(0, stream=stream)
            for packet in source.demux(stream):
                if packet.dts is None:
                    continue
                packet.pts += number * length
                packet.dts += number * length
                packet.stream = copy
                container.mux(packet)


def resident_mib(process: int) -> float:
    """Return the resident memory of a process, in MiB."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def frames_done(output: Path) -> int:
    """Return how many frames a run has tracked, by its last checkpoint."""
    try:
        checkpoint = read_checkpoint(output / "partial")
    except FileNotFoundError:
        return 0
    return 0 if checkpoint is None else int(checkpoint["place"][1])


def track(video: Path, output: Path, options: Sequence[str], stop_at: int | None) -> list[float]:
    """Run ``vditrack track``, and kill it at a frame.

    Returns the largest resident memory in each minute of video, in MiB; the last one is that of
    writing the results.
    """
    command = (*VDITRACK, "track", video, "--grid", SIDE, "-o", output, "--json", *options)
    highest: list[float] = []
    with subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            done = frames_done(output)
            minute = done // (60 * RATE)
            highest += [0.0] * (minute + 1 - len(highest))
            highest[minute] = max(highest[minute], resident_mib(process.pid))
            if stop_at is not None and done >= stop_at:
                process.kill()
            time.sleep(0.5)
    if process.returncode not in (0, -9):
        raise SystemExit(f"vditrack track failed with code {process.returncode}")
    return highest


def describe_flatness(highest: Sequence[float]) -> str | None:
    """Say how much more memory the minutes after minute 5 took than it; None for short videos."""
    # The last one is that of writing the results.
    tracking = highest[:-1]
    if len(tracking) <= FLAT_FROM:
        return None
    first, largest = tracking[FLAT_FROM], max(tracking[FLAT_FROM:])
    return (
        f"minute {FLAT_FROM}: {first:.0f} MiB; from there on at most {largest:.0f} MiB, "
        f"{largest - first:+.0f} MiB"
    )


def run_whole(video: Path, output: Path) -> None:
    """Track the video without an interruption, and print the memory."""
    began = time.perf_counter()
    highest = track(video, output, (), None)
    print(f"tracked in {time.perf_counter() - began:.0f} s")
    for minute, memory in enumerate(highest):
        print(f"minute {minute}: at most {memory:.0f} MiB resident")
    print(describe_flatness(highest) or f"no minute after minute {FLAT_FROM}")


def run_resumed(video: Path, output: Path, frames: int) -> None:
    """Track the video up to a frame, kill the run, and continue it."""
    track(video, output, (), frames)
    print(f"killed after frame {frames_done(output)}")
    track(video, output, ("--resume",), None)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=int, default=4, help="length of the video")
    parser.add_argument(
        "--runs", nargs="+", choices=RUNS, default=RUNS, help="runs to make; default: both"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        help="keep video and results here, so that runs made one by one are compared",
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = asked.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        video = folder / f"{asked.minutes}-minutes.mp4"
        whole, resumed = (folder / f"{asked.minutes}-minutes-{run}" for run in RUNS)
        if not video.exists():
            write_clip(folder / "clip.mp4")
            repeat_clip(folder / "clip.mp4", video, asked.minutes * 60 // SECONDS)
        print(f"{asked.minutes} minutes of 1920 x 1080: {video.stat().st_size / 2**20:.0f} MiB")
        if "whole" in asked.runs:
            run_whole(video, whole)
        if "resumed" in asked.runs:
            run_resumed(video, resumed, asked.minutes * 60 * RATE // 2)
        results = [output / "tracks.npz" for output in (whole, resumed)]
        if not all(path.exists() for path in results):
            return
        same = results[0].read_bytes() == results[1].read_bytes()
        print("the continued run has " + ("the same tracks" if same else "OTHER TRACKS"))
        if not same:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
