"""Time and memory of matching and consistency against a plain rendering of the reference.

Run: python benchmarks/matching.py [--json]    # --json writes the result file
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np

import result_files
from heft_settings import HEFT_MATCHING
from moving_features import translated_maps, wave_field
from vditrack.bundle.configuration import LiveTracking
from vditrack.coordinates import Grid
from vditrack.features.feature_map import FeatureMap
from vditrack.points.match_tracker import MatchTracker

FRAMES, GRID, CHANNELS, POINTS = 25, Grid(30, 52, 16), 108, 64
# The horizon spans the clip.
SETTINGS = msgspec.structs.replace(HEFT_MATCHING, horizon=FRAMES - 1)


def scene() -> tuple[np.ndarray, np.ndarray]:
    """Descriptors [T, rows, columns, C] of a moving field with noise, and points [N, 2]."""
    rng = np.random.default_rng(0)
    field = wave_field(CHANNELS, seed=1, shortest=64)
    offsets = np.cumsum(rng.normal(0, 6, (FRAMES, 2)), axis=0)
    maps = translated_maps(field, offsets, GRID.rows, GRID.columns, GRID.stride)
    noise = rng.normal(0, 0.5, maps.shape).astype(np.float32)
    size = np.array([GRID.width, GRID.height])
    points = (rng.random((POINTS, 2)) * 0.8 + 0.1) * size
    return maps + noise, points.astype(np.float32)


def ours(maps: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions [N, T, 2] and visibility [N, T]."""
    alive = MatchTracker(GRID, SETTINGS, LiveTracking())
    picture = np.zeros((GRID.height, GRID.width, 3), np.uint8)
    trail, visible = [], []
    for index, descriptors in enumerate(maps):
        alive.advance(FeatureMap(GRID, descriptors), picture)
        if index == 0:
            alive.add(np.arange(len(points)), points)
        trail.append(alive.points)
        visible.append(alive.visible)
    return np.stack(trail, axis=1), np.stack(visible, axis=1)


def reference(maps: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the same by the plain formulation."""
    from reference_formulation import ReferenceFormulation  # noqa: PLC0415

    return ReferenceFormulation(maps, GRID.stride, SETTINGS).track(points)


def resident(field: str) -> float:
    """Resident memory of this process, or its peak, in MiB, as Linux counts it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def measure(which: str, folder: str) -> None:
    """Run one of the two in this process and print its time and what memory it added."""
    if which == "reference":
        import reference_formulation  # noqa: F401, PLC0415
    # Loaded, not made: what making the scene once took would hide the memory of tracking it.
    maps, points = np.load(f"{folder}/maps.npy"), np.load(f"{folder}/points.npy")
    run = {"ours": ours, "reference": reference}[which]
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = resident("VmRSS")
    start = time.perf_counter()
    trail, visible = run(maps, points)
    seconds = time.perf_counter() - start
    peak = resident("VmHWM") - before
    np.savez(f"{folder}/{which}.npz", trail=trail, visible=visible)
    print(json.dumps({"seconds": seconds, "peak_mib": peak}))


def compare(folder: str) -> dict[str, float]:
    """Run each in a process of its own; print and return the ratios and the agreement."""
    maps, points = scene()
    np.save(f"{folder}/maps.npy", maps)
    np.save(f"{folder}/points.npy", points)
    results, tracks = {}, {}
    for which in ("ours", "reference"):
        printed = subprocess.run(
            [sys.executable, __file__, which, folder], check=True, capture_output=True, text=True
        )
        results[which] = json.loads(printed.stdout)
        tracks[which] = dict(np.load(f"{folder}/{which}.npz"))
        print(
            f"{which:10s} {results[which]['seconds']:8.2f} s {results[which]['peak_mib']:8.0f} MiB"
        )
    a, b = results["ours"], results["reference"]
    distance = np.linalg.norm(tracks["ours"]["trail"] - tracks["reference"]["trail"], axis=2)
    same = tracks["ours"]["visible"] == tracks["reference"]["visible"]
    figures = {
        "plain seconds": b["seconds"],
        "plain MiB": b["peak_mib"],
        "ours seconds": a["seconds"],
        "ours MiB": a["peak_mib"],
        "faster": b["seconds"] / a["seconds"],
        "smaller": b["peak_mib"] / a["peak_mib"],
        "within 0.5 px": 100 * float((distance <= 0.5).mean()),
        "median px": float(np.median(distance)),
        "worst px": float(distance.max()),
        "visibility equal": 100 * float(same.mean()),
    }
    print(f"faster by    {figures['faster']:8.1f}")
    print(f"smaller by   {figures['smaller']:8.1f}")
    print(f"within 0.5 px: {figures['within 0.5 px']:.2f}% of {distance.size} positions,", end=" ")
    print(f"median {figures['median px']:.3f} px, worst {figures['worst px']:.2f} px")
    print(f"visibility equal: {figures['visibility equal']:.2f}%")
    return figures


def main() -> None:
    """Compare, and write the result file with --json."""
    load = result_files.begin()
    with tempfile.TemporaryDirectory() as folder:
        figures = compare(folder)
    if "--json" in sys.argv:
        command = "python benchmarks/matching.py --json"
        print(result_files.write("matching", command, load, figures))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measure(sys.argv[1], sys.argv[2])
    else:
        main()
