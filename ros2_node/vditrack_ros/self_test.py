"""Whether a model does on this machine what it is for, tried before anybody relies on it."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vditrack import Tracker
from vditrack.errors import BackendError, VditrackError


def prove(tracker: Tracker, mode: str) -> None:
    """Run the models that a mode needs, so that they are warm, and check their answers.

    Args:
        tracker: has the models.
        mode: points, masks or both.

    Raises:
        InputError: the mode needs masks, and the bundle does not propagate any.
        BackendError: a model fails to run, or what it gives makes no sense.

    """
    if mode != "masks":
        _attempt(tracker, _prove_points)
    if mode != "points":
        _attempt(tracker, _prove_masks)


def _attempt(tracker: Tracker, prove: Callable[[Tracker], None]) -> None:
    try:
        prove(tracker)
    except VditrackError:
        raise
    # The engines' exceptions share no base class.
    except Exception as error:
        raise BackendError(f"{tracker.backend.name} loads the model, and fails: {error}") from error


def _prove_points(tracker: Tracker) -> None:
    frame = _black(tracker)
    # Something to see: of a black picture all descriptors may be alike.
    frame[::2, ::2] = 255
    height, width = frame.shape[:2]
    stream = tracker.stream()
    stream.push(frame, 0.0)
    stream.add([[width / 2, height / 2]])
    update = stream.push(frame, 1.0)
    if not np.isfinite(update.points).all() or not np.isfinite(update.confidence).all():
        raise _senseless(tracker, "what it gives is not finite")


def _prove_masks(tracker: Tracker) -> None:
    frame = _black(tracker)
    height, width = frame.shape[:2]
    # No part of it looks like another.
    frame[:] = np.random.default_rng(0).integers(0, 256, frame.shape, np.uint8)
    mask = np.zeros((height, width), np.uint8)
    mask[:, : width // 2] = 1
    stream = tracker.mask_stream()
    stream.push(frame, 0.0)
    stream.add_masks(mask)
    # Of features that are not finite no object comes.
    if not stream.push(frame, 1.0).mask.any():
        raise _senseless(tracker, "an object is not found again in the same picture")


def _black(tracker: Tracker) -> NDArray[np.uint8]:
    size = tracker.bundle.manifest.input
    return np.zeros((size.height, size.width, 3), np.uint8)


def _senseless(tracker: Tracker, what: str) -> BackendError:
    return BackendError(
        f"{tracker.backend.name} runs the model wrongly: {what}. Choose another backend, or build "
        "its engine in FP32."
    )
