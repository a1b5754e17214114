"""Time and memory of label propagation, and the rate of masks, compared with plain forms.

Run: python benchmarks/propagation.py [--json]    # --json writes the result file

The label propagation of one frame is compared with the dense formulation. The whole propagation of
masks, with the bundled model, is compared with itself when labels are propagated by
`plain_matching`: tile by tile, context frame by context frame and label by label. Both forms run in
turn on the same frames of a rendered clip, in which four objects are marked.
"""

import sys
import time
import tracemalloc
from collections.abc import Callable

import cv2
import numpy as np
import torch

import plain_matching
import result_files
from vditrack import Tracker
from vditrack.bundle.configuration import Propagation
from vditrack.masks import label_propagation
from vditrack.masks.cell_matching import propagate_labels
from vditrack.masks.label_propagation import LabelPropagation
from vditrack.synthetic.layers.clips import render_clip

ROWS, COLUMNS, CHANNELS, LABELS = 60, 107, 256, 4
# TED's settings for DAVIS-2017, or usual ones that it does not print: 856 x 480, cells of 8 pixels.
SETTINGS = Propagation(motion_weight=0.4, temperature=0.2, top_k=10, radius=15, context=28)
FRAMES = SETTINGS.context + 2
"""Number of frames. The context of the last one is the first frame and a full queue."""
CLIP = 20
"""Number of frames of the rendered clip. The context is full from the twelfth on."""
TURNS = 2
"""Number of times that each form runs on the clip; the fastest counts."""
OBJECTS = (
    (0.23, 0.28, 0.15, 0.19),
    (0.7, 0.3, 0.17, 0.2),
    (0.27, 0.73, 0.16, 0.2),
    (0.74, 0.75, 0.16, 0.18),
)
"""Centres and half axes of four ellipses, as shares of the width and height."""
FORMS = {"plain": plain_matching.propagate_labels, "ours": propagate_labels}


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


def marked_clip(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the frames of a rendered clip, and a mask of four objects for the first."""
    mask, size = np.zeros((height, width), np.uint8), np.array([width, height])
    for index, ellipse in enumerate(OBJECTS, start=1):
        centre, axes = np.rint(np.array(ellipse).reshape(2, 2) * size).astype(int).tolist()
        cv2.ellipse(mask, centre, axes, 0, 0, 360, index, cv2.FILLED)
    return render_clip(3, height, width, CLIP).frames, mask


def propagate_clip(tracker: Tracker, frames: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the masks of a clip, as `vditrack propagate` computes them."""
    return tracker.propagate(frames, mask)


def stream_clip(tracker: Tracker, frames: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the masks of a stream, as the ROS 2 node computes them."""
    stream = tracker.mask_stream()
    stream.push(frames[0], 0.0)
    stream.add_masks(mask)
    return np.stack([stream.push(frame, t / 30).mask for t, frame in enumerate(frames)])


def compare_rates(
    name: str, width: int, height: int, run: Callable[..., np.ndarray]
) -> dict[str, float]:
    """Return rates and processor times of both forms, and the percentage of pixels that differ."""
    tracker, clip = Tracker.load(), marked_clip(width, height)
    times, masks = {form: np.full(2, np.inf) for form in FORMS}, {}
    run(tracker, clip[0][:3], clip[1])  # The graphs are loaded by their first use.
    for form in [*FORMS] * TURNS:
        label_propagation.propagate_labels = FORMS[form]
        start = np.array([time.perf_counter(), time.process_time()])
        masks[form] = run(tracker, *clip)
        taken = np.array([time.perf_counter(), time.process_time()]) - start
        times[form] = np.minimum(times[form], taken / CLIP)
    differing = 100 * float((masks["plain"] != masks["ours"]).mean())
    figures = {f"{name} differing": differing}
    for form, (seconds, processor) in times.items():
        figures[f"{name} {form} frames/s"] = float(1 / seconds)
        figures[f"{name} {form} processor seconds"] = float(processor)
    for kind, ratio in zip(("faster", "less"), times["plain"] / times["ours"], strict=True):
        figures[f"{name} {kind}"] = float(ratio)
    print(f"{name} {width} x {height}, backend {tracker.backend.name}")
    for figure, value in figures.items():
        print(f"{figure:32} {value:8.4f}")
    return figures


if __name__ == "__main__":
    began = result_files.begin()
    measured = compare()
    measured |= compare_rates("propagate", 1280, 720, propagate_clip)
    measured |= compare_rates("stream", 640, 480, stream_clip)
    if "--json" in sys.argv:
        used = "python benchmarks/propagation.py --json"
        print(result_files.write("propagation", used, began, measured))
