"""Self-test of the models before the node is activated."""

from collections.abc import Callable

import numpy as np

from vditrack import Tracker
from vditrack.arrays import Frame
from vditrack.errors import BackendError, VditrackError


def run_self_test(tracker: Tracker, mode: str) -> None:
    """Run the models that a mode needs on synthetic frames, and check the results.

    The models are warm afterwards, so that the first image is not delayed.

    Args:
        tracker: has the models.
        mode: points, masks or both.

    Raises:
        InputError: the mode needs masks, and the bundle does not propagate masks.
        BackendError: a model fails to run, or its results are wrong.

    """
    if mode != "masks":
        _run_test(tracker, _test_points)
    if mode != "points":
        _run_test(tracker, _test_masks)


def _run_test(tracker: Tracker, test: Callable[[Tracker], None]) -> None:
    try:
        test(tracker)
    except VditrackError:
        raise
    # The exceptions of inference engines have no common base class.
    except Exception as error:
        raise BackendError(
            f"{tracker.backend.name} loads the model but fails to run it: {error}"
        ) from error


def _test_points(tracker: Tracker) -> None:
    frame = _black_frame(tracker)
    # A pattern, because the descriptors of a black frame may all be equal.
    frame[::2, ::2] = 255
    height, width = frame.shape[:2]
    stream, (first, last) = tracker.stream(), _steps(tracker)
    for stamp in range(first):
        stream.push(frame, float(stamp))
    stream.add([[width / 2, height / 2]])
    for stamp in range(first, last):
        update = stream.push(frame, float(stamp))
    if not np.isfinite(update.points).all() or not np.isfinite(update.confidence).all():
        raise _wrong_result(tracker, "its results are not finite")


def _test_masks(tracker: Tracker) -> None:
    frame = _black_frame(tracker)
    height, width = frame.shape[:2]
    # Noise, so that no part of the frame resembles another.
    frame[:] = np.random.default_rng(0).integers(0, 256, frame.shape, np.uint8)
    mask = np.zeros((height, width), np.uint8)
    mask[:, : width // 2] = 1
    stream, (first, last) = tracker.mask_stream(), _steps(tracker)
    for stamp in range(first):
        stream.push(frame, float(stamp))
    stream.add_masks(mask)
    for stamp in range(first, last):
        update = stream.push(frame, float(stamp))
    # Features that are not finite give an empty mask.
    if not update.mask.any():
        raise _wrong_result(tracker, "an object is not found again in the same frame")


def _steps(tracker: Tracker) -> tuple[int, int]:
    """Return after how many frames of a stream all networks have run once, and twice."""
    bundle = tracker.bundle
    sizes = [part.manifest.input for part in (bundle, *bundle.parts.values())]
    first = max(size.frames_of_first_step for size in sizes)
    return first, first + max(size.frames_of_step for size in sizes)


def _black_frame(tracker: Tracker) -> Frame:
    size = tracker.bundle.manifest.input
    return np.zeros((size.height, size.width, 3), np.uint8)


def _wrong_result(tracker: Tracker, reason: str) -> BackendError:
    return BackendError(
        f"{tracker.backend.name} runs the model incorrectly: {reason}. Choose another backend, or "
        "build its engine in FP32."
    )
