"""Time and memory of propagating labels against the plain dense formulation.

Run: python benchmarks/propagation.py
"""

import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import torch

from vditrack.bundle.configuration import Propagation
from vditrack.masks.label_propagation import LabelPropagation

ROWS, COLUMNS, CHANNELS, LABELS = 60, 107, 256, 4
# TED's for DAVIS-2017 and, where it prints none, the usual: 480 x 856 with cells of 8 pixels.
SETTINGS = Propagation(motion_weight=0.4, temperature=0.2, top_k=10, radius=15, context=28)
FRAMES = SETTINGS.context + 2
"""The last one asks all the others: the first and a full queue."""


def scene() -> tuple[np.ndarray, np.ndarray]:
    """Features [T, rows, columns, D] of a noisy surface in motion, and soft labels of frame 0."""
    rng = np.random.default_rng(0)
    surface = rng.normal(size=(ROWS, COLUMNS, CHANNELS)).astype(np.float32)
    features = np.stack([np.roll(surface, (t // 3, t), axis=(0, 1)) for t in range(FRAMES)])
    features += rng.normal(0, 0.7, features.shape).astype(np.float32)
    features /= np.linalg.norm(features, axis=3, keepdims=True)
    return features, rng.dirichlet(np.ones(LABELS), (ROWS, COLUMNS)).astype(np.float32)


def dense_affinity(features: np.ndarray, context: np.ndarray, radius: float) -> np.ndarray:
    """Dot products [cells, frames x cells] of features [rows, columns, D] with those of a context.

    They are -inf beyond the radius; the context is [frames, rows, columns, D].
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
    """Soft labels [rows, columns, K] of the frame from those of the context [frames, ...]."""
    known = torch.from_numpy(context_labels).flatten(end_dim=2)
    # Of NumPy's and torch's ways to the top k this is the fastest by far, and the smallest.
    best = torch.from_numpy(affinity).topk(min(settings.top_k, len(known)), dim=1)
    weights = (best.values / settings.temperature).softmax(dim=1)
    labels = (weights[..., None] * known[best.indices]).sum(dim=1)
    return labels.numpy().reshape(context_labels.shape[1:])


def dense(features: np.ndarray, context_labels: np.ndarray) -> np.ndarray:
    """Labels of the last frame, from all products at once."""
    affinity = dense_affinity(features[-1], features[:-1], SETTINGS.radius)
    return dense_labels(affinity, context_labels, SETTINGS)


def measure(name: str, run: Callable[[], np.ndarray]) -> tuple[np.ndarray, float, float]:
    """Print and return, with the result, seconds and the peak of what NumPy allocated, in MiB."""
    tracemalloc.start()
    start = time.perf_counter()
    result = run()
    seconds = time.perf_counter() - start
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    print(f"{name:10s} {seconds:8.2f} s {peak:8.0f} MiB")
    return result, seconds, peak


def compare() -> None:
    """Carry labels into the last frame in both ways; print the ratios and the agreement."""
    features, first = scene()
    carried = LabelPropagation(SETTINGS)
    carried.advance(features[0])
    carried.set_labels(first)
    context_labels = np.stack([first, *map(carried.advance, features[1:-1])])
    ours, seconds, peak = measure("ours", lambda: carried.advance(features[-1]))
    plain, dense_seconds, dense_peak = measure("dense", lambda: dense(features, context_labels))
    print(f"faster by    {dense_seconds / seconds:8.1f}")
    print(f"smaller by   {dense_peak / peak:8.1f}")
    difference = np.abs(ours - plain).max(axis=2)
    print(f"within 1e-5: {(difference < 1e-5).mean():.2%} of cells, worst {difference.max():.1e}")


if __name__ == "__main__":
    compare()
