"""Time and memory of matching and consistency against a plain rendering of the reference.

Run: python benchmarks/matching.py
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np

from heft_settings import HEFT_MATCHING
from moving_features import translated_maps, wave_field
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
    alive = MatchTracker(GRID, SETTINGS)
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


def compare(folder: str) -> None:
    """Run each in a process of its own and print the ratios and the agreement."""
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
    print(f"faster by    {b['seconds'] / a['seconds']:8.1f}")
    print(f"smaller by   {b['peak_mib'] / a['peak_mib']:8.1f}")
    distance = np.linalg.norm(tracks["ours"]["trail"] - tracks["reference"]["trail"], axis=2)
    print(f"within 0.5 px: {(distance <= 0.5).mean():.2%} of {distance.size} positions,", end=" ")
    print(f"median {np.median(distance):.3f} px, worst {distance.max():.2f} px")
    agreement = (tracks["ours"]["visible"] == tracks["reference"]["visible"]).mean()
    seen = tracks["ours"]["visible"].mean()
    print(f"visibility equal: {agreement:.2%} (share visible {seen:.1%})")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measure(sys.argv[1], sys.argv[2])
    else:
        with tempfile.TemporaryDirectory() as folder:
            compare(folder)
