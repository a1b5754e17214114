"""Time and memory of label propagation, compared with the dense formulation.

Run: python benchmarks/propagation.py [--json]    # --json writes the result file
"""

import sys
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import torch

import result_files
from vditrack.bundle.configuration import Propagation
from vditrack.masks.label_propagation import LabelPropagation

ROWS, COLUMNS, CHANNELS, LABELS = 60, 107, 256, 4
# TED's settings for DAVIS-2017, or usual ones that it does not print: 856 x 480, cells of 8 pixels.
SETTINGS = Propagation(motion_weight=0.4, temperature=0.2, top_k=10, radius=15, context=28)
FRAMES = SETTINGS.context + 2
"""Number of frames. The context of the last one is the first frame and a full queue."""


def scene() -> tuple[np.ndarray, np.ndarray]:
    """Return features [T, rows, columns, D] of a moving noisy surface, and labels of frame 0."""
    rng = np.random.default_rng(0)
    surface = rng.normal(size=(ROWS, COLUMNS, CHANNELS)).astype(np.float32)
    features = np.stack([np.roll(surface, (t // 3, t), axis=(0, 1)) for t in range(FRAMES)])
    features += rng.normal(0, 0.7, features.shape).astype(np.float32)
    features /= np.linalg.norm(features, axis=3, keepdims=True)
    return features, rng.dirichlet(np.ones(LABELS), (ROWS, COLUMNS)).astype(np.float32)


def dense_affinity(features: np.ndarray, context: np.ndarray, radius: float) -> np.ndarray:
    """Return dot products of a frame with its context, [cells, frames x cells].

    Args:
        features: Features of the frame, [rows, columns, D].
        context: Features of the context, [frames, rows, columns, D].
        radius: Radius in cells beyond which products are -inf.

    """
    rows, columns, channels = features.shape
    affinity = features.reshape(-1, channels) @ context.reshape(-1, channels).T
    y, x = (axis.ravel() for axis in np.mgrid[:rows, :columns])
    beyond = (y[:, None] - y) ** 2 + (x[:, None] - x) ** 2 > radius**2
    for frame in np.split(affinity, len(context), axis=1):
        frame[beyond] = -np.inf
    return affinity


def dense_labels(
    affinity: np.ndarray, context_labels: np.ndarray, settings: Propagation
) -> np.ndarray:
    """Return soft labels [rows, columns, K] of a frame, given those of its context."""
    known = torch.from_numpy(context_labels).flatten(end_dim=2)
    # torch.topk is the fastest way to the top k in NumPy and torch, and needs the least memory.
    best = torch.from_numpy(affinity).topk(min(settings.top_k, len(known)), dim=1)
    weights = (best.values / settings.temperature).softmax(dim=1)
    labels = (weights[..., None] * known[best.indices]).sum(dim=1)
    return labels.numpy().reshape(context_labels.shape[1:])


def dense(features: np.ndarray, context_labels: np.ndarray) -> np.ndarray:
    """Return the labels of the last frame, from all products at once."""
    affinity = dense_affinity(features[-1], features[:-1], SETTINGS.radius)
    return dense_labels(affinity, context_labels, SETTINGS)


def measure(name: str, run: Callable[[], np.ndarray]) -> tuple[np.ndarray, float, float]:
    """Return the result of a function with its time in seconds and NumPy's peak memory in MiB."""
    tracemalloc.start()
    start = time.perf_counter()
    result = run()
    seconds = time.perf_counter() - start
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    print(f"{name:10s} {seconds:8.2f} s {peak:8.0f} MiB")
    return result, seconds, peak


def compare() -> dict[str, float]:
    """Propagate labels into the last frame in both ways; print and return ratios and agreement."""
    features, first = scene()
    propagation = LabelPropagation(SETTINGS)
    propagation.advance(features[0])
    propagation.set_labels(first)
    context_labels = np.stack([first, *map(propagation.advance, features[1:-1])])
    ours, seconds, peak = measure("ours", lambda: propagation.advance(features[-1]))
    plain, dense_seconds, dense_peak = measure("dense", lambda: dense(features, context_labels))
    print(f"faster by    {dense_seconds / seconds:8.1f}")
    print(f"smaller by   {dense_peak / peak:8.1f}")
    difference = np.abs(ours - plain).max(axis=2)
    print(f"within 1e-5: {(difference < 1e-5).mean():.2%} of cells, worst {difference.max():.1e}")
    return {
        "dense seconds": dense_seconds,
        "dense MiB": dense_peak,
        "ours seconds": seconds,
        "ours MiB": peak,
        "faster": dense_seconds / seconds,
        "smaller": dense_peak / peak,
        "within 1e-5": 100 * float((difference < 1e-5).mean()),
    }


if __name__ == "__main__":
    began = result_files.begin()
    measured = compare()
    if "--json" in sys.argv:
        used = "python benchmarks/propagation.py --json"
        print(result_files.write("propagation", used, began, measured))
