"""Time and memory of label propagation against a plain dense rendering of its definition.

Run: python benchmarks/propagation.py
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from vditrack.bundle import Propagation
from vditrack.propagation import LabelPropagation

ROWS, COLUMNS, CHANNELS, LABELS = 60, 107, 256, 4
# TED's values for DAVIS-2017; with the first frame's there are 28 frames of context.
SETTINGS = Propagation(motion_weight=0.4, temperature=0.2, top_k=10, radius=15, context=27)
FRAMES = SETTINGS.context + 2


def scene() -> tuple[np.ndarray, np.ndarray]:
    """Random descriptors [T, rows, columns, D] of length 1, and shares [rows, columns, K]."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(FRAMES, ROWS, COLUMNS, CHANNELS)).astype(np.float32)
    features /= np.linalg.norm(features, axis=3, keepdims=True)
    return features, rng.dirichlet(np.ones(LABELS), (ROWS, COLUMNS)).astype(np.float32)


def dense(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Labels of the last frame from those of all before it, by one matrix of all products."""
    cells = np.stack(np.mgrid[:ROWS, :COLUMNS], axis=-1).reshape(-1, 2)
    far = ((cells[:, None] - cells) ** 2).sum(axis=2) > SETTINGS.radius**2
    affinity = features[-1].reshape(-1, CHANNELS) @ features[:-1].reshape(-1, CHANNELS).T
    for past in np.split(affinity, len(features) - 1, axis=1):
        past[far] = -np.inf
    best = np.argpartition(affinity, -SETTINGS.top_k, axis=1)[:, -SETTINGS.top_k :]
    weights = np.exp(np.take_along_axis(affinity, best, axis=1) / SETTINGS.temperature)
    weights /= weights.sum(axis=1, keepdims=True)
    carried = np.einsum("nk,nkl->nl", weights, labels.reshape(-1, LABELS)[best])
    return carried.reshape(ROWS, COLUMNS, LABELS)


def resident(field: str) -> float:
    """Resident memory of this process, or its peak, in MiB, as Linux counts it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def measure(which: str, folder: Path) -> None:
    """Carry labels into the last frame in this process; print its time and the memory it added."""
    features = np.load(folder / "features.npy")
    if which == "ours":
        carrying = LabelPropagation(SETTINGS)
        carrying.advance(features[0])
        carrying.mark(np.load(folder / "first.npy"))
        labels = [np.load(folder / "first.npy")]
        labels += [carrying.advance(frame) for frame in features[1:-1]]
        np.save(folder / "labels.npy", labels)
    labels = np.load(folder / "labels.npy")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before, start = resident("VmRSS"), time.perf_counter()
    carried = carrying.advance(features[-1]) if which == "ours" else dense(features, labels)
    seconds, peak = time.perf_counter() - start, resident("VmHWM") - before
    np.save(folder / f"{which}.npy", carried)
    print(json.dumps({"seconds": seconds, "peak_mib": peak}))


def compare(folder: Path) -> None:
    """Run each in a process of its own and print the ratios and the agreement."""
    features, first = scene()
    np.save(folder / "features.npy", features)
    np.save(folder / "first.npy", first)
    results = {}
    for which in ("ours", "dense"):
        command = [sys.executable, __file__, which, str(folder)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True)
        result = results[which] = json.loads(printed.stdout)
        print(f"{which:10s} {result['seconds']:8.2f} s {result['peak_mib']:8.0f} MiB")
    a, b = results["ours"], results["dense"]
    print(f"faster by    {b['seconds'] / a['seconds']:8.1f}")
    print(f"smaller by   {b['peak_mib'] / a['peak_mib']:8.1f}")
    difference = np.abs(np.load(folder / "ours.npy") - np.load(folder / "dense.npy"))
    print(f"largest difference of a share: {difference.max():.1e}")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measure(sys.argv[1], Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            compare(Path(scratch))
