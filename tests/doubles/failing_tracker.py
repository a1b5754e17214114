"""A tracker whose streams fail, or return wrong updates, in some frames."""

from dataclasses import replace

import numpy as np


class FailingTracker:
    """Wraps a tracker; the second and third update of each stream go through `change`."""

    def __init__(self, tracker, change):
        self._tracker, self._change = tracker, change
        self.backend, self.bundle = tracker.backend, tracker.bundle

    def stream(self):
        return self.live(None)

    def live(self, worker, first_id=0):
        return self._wrap(self._tracker.live(worker, first_id), "push")

    def mask_stream(self, threads=None):
        return self._wrap(self._tracker.mask_stream(threads), "push_described")

    def _wrap(self, stream, name):
        push, pushes = getattr(stream, name), iter(range(100))

        def failing(*frame):
            update = push(*frame)
            return self._change(update) if next(pushes) in (1, 2) else update

        setattr(stream, name, failing)
        return stream


def out_of_memory(update):
    raise RuntimeError("out of memory")


def without(name):
    """A change that replaces an array of the update: points by NaN, a mask by an empty one."""

    def change(update):
        array = getattr(update, name)
        fill = np.nan if array.dtype.kind == "f" else 0
        return replace(update, **{name: np.full_like(array, fill)})

    return change
