"""Annotates recordings of all kinds, ten of them bad, while workers and the job are killed.

    python benchmarks/bad_recordings.py                  # 200 recordings, both engines
    python benchmarks/bad_recordings.py --recordings 30 --engine ray

For each engine a worker is killed (-9) after a quarter of the recordings, and the whole job after
half of them. Then the same command runs again. The script ends with code 1 unless each good
recording has its result, each bad one its reason, nothing was done twice, and both engines wrote
the same bytes.
"""

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import av
import cv2
import numpy as np
import psutil
import pyarrow.parquet as pq
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

COMMON = ("--grid", "3", "--backend", "cpu", "--stall-timeout", "45", "--memory", "1")
CODECS = {
    "h264.mp4": ("libx264", "yuv420p"),
    "h264.mkv": ("libx264", "yuv420p"),
    "mpeg4.avi": ("mpeg4", "yuv420p"),
    "vp9.webm": ("libvpx-vp9", "yuv420p"),
    "mjpeg.mov": ("mjpeg", "yuvj420p"),
    "ffv1.mkv": ("ffv1", "yuv420p"),
}
KINDS = (*CODECS, "png", "jpg", "db3", "mcap")
STORE = get_typestore(Stores.ROS2_HUMBLE)
IMAGE = "sensor_msgs/msg/Image"
REASONS = {
    "absent.mp4": ("absent", "there is no"),
    "empty.mp4": ("refused", "no video"),
    "truncated.mp4": ("refused", ""),
    "text.mp4": ("refused", "no video"),
    "sound.mkv": ("refused", "no video stream"),
    "fifo.mp4": ("refused", "it is a FIFO"),
    "grows.mp4": ("changed", "changed while it was read"),
    "codec.mp4": ("refused", ""),
    "hangs.db3": ("hang", "no progress"),
    "large": ("memory", "limit of 1 GB"),
}
"""Kind of the failure and a part of its reason, by the name of a bad recording."""


def make_clip(number: int) -> list[np.ndarray]:
    """Return six frames uint8 [96, 128, 3] of blocks that move, other ones for each number."""
    random = np.random.default_rng(number)
    blocks = np.kron(random.integers(0, 255, (12, 16, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    return [np.ascontiguousarray(np.roll(blocks, 2 * t, axis=1)) for t in range(6)]


def write_video(path: Path, frames: list[np.ndarray], codec: str, pixels: str) -> None:
    """Write a video."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(stream.encode(picture.reformat(format=pixels)))
        container.mux(stream.encode(None))


def write_bag(folder: Path, frames: list[np.ndarray], storage: StoragePlugin) -> None:
    """Write a rosbag2 with one image topic."""
    with Writer(folder, version=9, storage_plugin=storage) as bag:
        topic = bag.add_connection("/camera/image", IMAGE, typestore=STORE)
        for t, frame in enumerate(frames):
            stamp = STORE.types["builtin_interfaces/msg/Time"](sec=1 + t, nanosec=0)
            header = STORE.types["std_msgs/msg/Header"](stamp=stamp, frame_id="camera")
            height, width = frame.shape[:2]
            message = STORE.types[IMAGE](
                header, height, width, "rgb8", 0, 3 * width, frame.reshape(-1)
            )
            bag.write(topic, (1 + t) * 10**9, STORE.serialize_cdr(message, IMAGE))


def write_good(root: Path, count: int) -> list[Path]:
    """Write good recordings of all kinds in turn, and return them."""
    paths = []
    for number in range(count):
        kind, frames = KINDS[number % len(KINDS)], make_clip(number)
        path = root / f"{number:03}-{kind}"
        if kind in CODECS:
            write_video(path, frames, *CODECS[kind])
        elif kind in ("png", "jpg"):
            path.mkdir()
            for t, frame in enumerate(frames):
                cv2.imwrite(str(path / f"{t}.{kind}"), frame)
        else:
            storage = StoragePlugin.MCAP if kind == "mcap" else StoragePlugin.SQLITE3
            path = path.with_name(f"{number:03}-bag-{kind}")
            write_bag(path, frames, storage)
        paths.append(path)
    return paths


def write_bad(root: Path) -> list[Path]:
    """Write ten bad recordings, and return them."""
    video = root / "base.mp4"
    write_video(video, make_clip(1000), "libx264", "yuv420p")
    content = video.read_bytes()
    (root / "empty.mp4").touch()
    (root / "truncated.mp4").write_bytes(content[: len(content) // 2])
    (root / "text.mp4").write_text("this is no video")
    with av.open(str(root / "sound.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    os.mkfifo(root / "fifo.mp4")
    shutil.copy(video, root / "grows.mp4")
    # A codec that no decoder has.
    (root / "codec.mp4").write_bytes(content.replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzC"))
    write_bag(root / "bag", make_clip(1001), StoragePlugin.SQLITE3)
    shutil.move(next((root / "bag").glob("*.db3")), root / "hangs.db3")
    with sqlite3.connect(root / "hangs.db3") as database:
        # The content of a message is computed when it is read, which takes days.
        database.executescript(
            "ALTER TABLE messages DROP COLUMN data; ALTER TABLE messages ADD COLUMN data BLOB AS"
            " (instr(zeroblob(60000000), zeroblob(30000000) || x'01'));"
        )
    (root / "large").mkdir()
    for t in range(2):
        cv2.imwrite(str(root / f"large/{t}.png"), np.zeros((30000, 30000), np.uint8))
    return [root / name for name in REASONS]


def grow(path: Path, stopped: threading.Event) -> None:
    """Append to a file until it is stopped."""
    while not stopped.wait(0.005):
        with path.open("ab") as file:
            file.write(b"\0")


def find_workers(job: psutil.Process, engine: str) -> list[psutil.Process]:
    """Return the workers of a job: actors of Ray, or processes that were spawned."""
    mark = "ray::_Actor" if engine == "ray" else "spawn_main"
    found = []
    for process in job.children(recursive=True):
        try:
            if mark in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def count_done(output: Path) -> int:
    """Return the number of results."""
    return len(list(output.glob("tracks/*.parquet")))


def wait_for_results(job: subprocess.Popen[bytes], output: Path, count: int) -> None:
    """Wait until a job has so many results."""
    while count_done(output) < count:
        if job.poll() is not None:
            raise SystemExit(f"the job ended with code {job.returncode} before it was killed")
        time.sleep(0.05)


def run_killed(command: list[str], output: Path, engine: str, count: int) -> None:
    """Run a job, kill a worker after a quarter and the job after half of the recordings."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as job:
        process = psutil.Process(job.pid)
        wait_for_results(job, output, count // 4)
        worker = find_workers(process, engine)[0]
        worker.kill()
        print(f"  {count_done(output)} results: worker {worker.pid} killed", flush=True)
        wait_for_results(job, output, count // 2)
        children = process.children(recursive=True)
        job.kill()
    psutil.wait_procs([one for one in children if "Agent" not in one.name()], 60)
    print(f"  {count_done(output)} results: job killed", flush=True)


def check(output: Path, printed: str, good: int, kept: int) -> list[str]:
    """Return what is wrong with the results of a job."""
    summary = json.loads(printed)
    failed = {
        Path(row["source"]).name: row
        for row in pq.read_table(output / "failed.parquet").to_pylist()
    }
    for name, row in failed.items():
        print(f"  {name}: {row['kind']}, {row['attempts']} attempts: {row['reason']}")
    faults = [
        f"{name}: expected {kind}, {part!r}"
        for name, (kind, part) in REASONS.items()
        if failed.get(name, {"kind": None})["kind"] != kind or part not in failed[name]["reason"]
    ]
    faults += [f"{name} failed" for name in failed.keys() - REASONS.keys()]
    annotated = summary["throughput"]["annotated"]
    if (summary["done"], count_done(output)) != (good, good):
        faults.append(f"{summary['done']} done, {count_done(output)} files; expected {good}")
    if annotated != good - kept:
        faults.append(f"{annotated} annotated by the second run; expected {good - kept}")
    faults += [f"{path} is left" for path in output.rglob(".vditrack-*")]
    return faults


def run_engine(sources: list[Path], output: Path, engine: str) -> list[str]:
    """Run a job on an engine as the docstring of this module says; return what is wrong."""
    good = len(sources) - len(REASONS)
    manifest = output.with_suffix(".txt")
    manifest.write_text("".join(f"{path}\n" for path in sources))
    command = [sys.executable, "-m", "vditrack", "annotate", str(manifest), "-o", str(output)]
    command += [*COMMON, "--workers", "2", "--engine", engine, "--json"]
    began = time.perf_counter()
    run_killed(command, output, engine, good)
    kept = {path: path.stat().st_mtime_ns for path in output.glob("tracks/*.parquet")}
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 3:
        return [f"exit code {done.returncode}: {done.stderr}"]
    faults = check(output, done.stdout, good, len(kept))
    faults += [
        f"{path} was written again" for path in kept if path.stat().st_mtime_ns != kept[path]
    ]
    seconds = time.perf_counter() - began
    print(f"{engine}: {len(kept)} + {good - len(kept)} results, exit code 3, {seconds:.0f} s")
    return faults


def main() -> None:
    """Run both engines and compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, default=200, help="number, ten of them bad")
    parser.add_argument("--engine", choices=("local", "ray"), help="default: both")
    given = parser.parse_args()
    engines = [given.engine] if given.engine else ["local", "ray"]
    stopped = threading.Event()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        good = write_good(root, given.recordings - len(REASONS))
        bad = write_bad(root)
        step = max(len(good) // len(bad), 1)
        sources = list(good)
        for place, path in enumerate(bad):
            sources.insert(place * (step + 1), path)
        threading.Thread(target=grow, args=(root / "grows.mp4", stopped), daemon=True).start()
        faults: list[str] = []
        for engine in engines:
            found = run_engine(sources, root / f"out-{engine}", engine)
            faults += [f"{engine}: {fault}" for fault in found]
        stopped.set()
        for path in (root / "out-local").glob("t*/*"):
            other = root / "out-ray" / path.relative_to(root / "out-local")
            if len(engines) > 1 and other.read_bytes() != path.read_bytes():
                faults.append(f"{other} has other bytes than {path}")
    for fault in faults:
        print(fault)
    raise SystemExit(bool(faults))


if __name__ == "__main__":
    main()
