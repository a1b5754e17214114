"""The recent frames of a stream of masks, to which masks that come late are applied."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock

import numpy as np

from vditrack.arrays import Frame, Mask
from vditrack.bundle.configuration import MaskHistory
from vditrack.errors import LateMaskError
from vditrack.features.fusion import FusedMap, FusedWindow
from vditrack.masks.objects import MaskedObjects

_MEGABYTE = 10**6


@dataclass
class EncodedFrame:
    """A frame that the model has encoded, and the objects in it."""

    stamp: float
    """Stamp of the frame, in seconds."""
    size: tuple[int, int]
    """Height and width of the frame in pixels."""
    shrunk: Frame
    """The frame at the model's input size, uint8 [h, w, 3] RGB."""
    fused: FusedMap
    """Features of the frame."""
    window: FusedWindow | None
    """State of the features' windows after the frame; None if a copy cannot describe one more."""
    objects: MaskedObjects
    """The objects in the frame, with the masks that were given for it."""
    step: float = 1.0
    """Time since the encoded frame before, in intervals between encoded frames of the stream."""
    frames: int = 1
    """Frames of the stream since the encoded frame before."""
    masks: list[Mask] = field(default_factory=list)
    """Masks that were given for the frame, uint8 [H, W], in order."""
    new_masks: list[Mask] = field(default_factory=list)
    """Masks that were given too, and that ``objects`` lacks."""
    removed: set[int] = field(default_factory=set)
    """Indices of objects in ``objects`` that were removed later."""

    @property
    def nbytes(self) -> int:
        """Memory that the frame takes, in bytes."""
        velocity = self.fused.velocity
        own = self.fused.descriptors.nbytes + (0 if velocity is None else velocity.nbytes)
        masks = sum(mask.nbytes for mask in [*self.masks, *self.new_masks])
        window = 0 if self.window is None else self.window.nbytes
        return own + self.shrunk.nbytes + window + self.objects.nbytes + masks

    def apply_new_masks(self) -> None:
        """Add the new masks to the objects."""
        self._apply_removals()
        for mask in self.new_masks:
            self.objects.add_masks(mask)
        self.masks += self.new_masks
        self.new_masks = []

    def remove(self, index: int, *, later: bool) -> None:
        """Forget an object.

        Args:
            index: of the object.
            later: whether it was removed after a later frame was pushed. Its removal is then
                postponed until the objects of this frame are needed.

        """
        without = (np.where(mask == index, np.uint8(0), mask) for mask in self.masks)
        self.masks = [mask for mask in without if mask.any()]
        if later:
            self.removed.add(index)
        else:
            self.objects.remove(index)

    def propagate_from(self, before: EncodedFrame) -> None:
        """Propagate the objects of the frame before into this one again."""
        before._apply_removals()
        self.objects = before.objects.copy()
        self.removed.clear()
        fused = self.fused
        self.objects.advance(fused.descriptors, self.size, fused.velocity, self.step, self.frames)
        for mask in self.masks:
            self.objects.add_masks(mask)
        self.apply_new_masks()

    def _apply_removals(self) -> None:
        for index in self.removed:
            self.objects.remove(index)
        self.removed.clear()


@dataclass(frozen=True)
class SkippedFrame:
    """A frame that the model had no time for, or that has no features of its own."""

    stamp: float
    """Stamp of the frame, in seconds."""
    size: tuple[int, int]
    """Height and width of the frame in pixels."""
    shrunk: Frame
    """The frame at the model's input size, uint8 [h, w, 3] RGB."""


class FrameHistory:
    """Encoded and skipped frames of the last seconds, each in the order of their stamps.

    `add_skipped`, `hold` and `find` may be called from another thread than the rest.
    """

    def __init__(self, limits: MaskHistory) -> None:
        """Start before the first frame.

        Args:
            limits: on the time and the memory of what is kept.

        """
        self.encoded: list[EncodedFrame] = []
        """At least the newest frame; also the last one before all other frames that are kept, from
        which objects are propagated into those."""
        self._limits = limits
        self._skipped: list[SkippedFrame] = []
        self._held: list[float] = []
        self._lock = Lock()

    @property
    def nbytes(self) -> int:
        """Memory that all frames take, in bytes."""
        with self._lock:
            skipped = sum(frame.shrunk.nbytes for frame in self._skipped)
        return skipped + sum(frame.nbytes for frame in self.encoded)

    def add_skipped(self, frame: SkippedFrame) -> None:
        """Keep a frame that is not encoded."""
        with self._lock:
            self._skipped.append(frame)
            start = self._find_start(frame.stamp)
            self._skipped = [kept for kept in self._skipped if kept.stamp >= start]

    def hold(self, stamps: Iterable[float]) -> None:
        """Keep the frames from the earliest of these stamps on, for as long as needed.

        The limit of memory still applies.

        Args:
            stamps: of requests that wait, in seconds; they replace those of the call before.

        """
        with self._lock:
            self._held = list(stamps)

    def append(self, frame: EncodedFrame) -> None:
        """Append the newest encoded frame, and drop those that are too old or too many."""
        self.encoded.append(frame)
        left = self._limits.megabytes * _MEGABYTE - self.nbytes
        with self._lock:
            start = self._find_start(frame.stamp)
        while len(self.encoded) > 1:
            # The frames since the second one need the first, to propagate objects from.
            if self.encoded[1].stamp > start and left >= 0:
                break
            left += self.encoded[0].nbytes
            del self.encoded[0]
        # A frame before all encoded ones has none to propagate objects from.
        first = self.encoded[0].stamp
        with self._lock:
            self._skipped = [kept for kept in self._skipped if kept.stamp > first]

    def insert(self, skipped: SkippedFrame, fused: FusedMap, window: FusedWindow) -> EncodedFrame:
        """Put a skipped frame, now that it is encoded, between two encoded frames.

        Args:
            skipped: a kept frame.
            fused: its features.
            window: state of the features' windows after it.

        Returns:
            The frame, with the objects of the frame before propagated into it.

        """
        number = self.number_before(skipped.stamp) + 1
        before, after = self.encoded[number - 1], self.encoded[number]
        share = (skipped.stamp - before.stamp) / (after.stamp - before.stamp)
        if fused.velocity is not None:
            # Velocities are per frame of the stream, and this step is a share of one.
            nearest = before if share < 0.5 else after
            fused = replace(fused, velocity=nearest.fused.velocity)
        step = share * after.step
        seen = skipped.stamp, skipped.size, skipped.shrunk
        frame = EncodedFrame(*seen, fused, window, before.objects, step)
        frame.propagate_from(before)
        after.step -= step
        self.encoded.insert(number, frame)
        with self._lock:
            self._skipped = [kept for kept in self._skipped if kept is not skipped]
        return frame

    def refresh(self) -> None:
        """Propagate the objects again from the first frame with new masks on."""
        frames = self.encoded
        first = next((number for number, frame in enumerate(frames) if frame.new_masks), None)
        if first is None:
            return
        frames[first].apply_new_masks()
        for before, after in zip(frames[first:], frames[first + 1 :], strict=False):
            after.propagate_from(before)

    def number_before(self, stamp: float) -> int:
        """Return the number of the last encoded frame before a stamp, in seconds."""
        return sum(frame.stamp < stamp for frame in self.encoded) - 1

    def find(self, stamp: float) -> EncodedFrame | SkippedFrame:
        """Return the frame with a stamp, or else the nearest one within ``max_offset``.

        Args:
            stamp: in seconds.

        Raises:
            LateMaskError: The stamp is older than all frames that are kept, or no frame near it
                was kept.

        """
        with self._lock:
            skipped: Sequence[SkippedFrame] = list(self._skipped)
        frames: list[EncodedFrame | SkippedFrame] = [*self.encoded, *skipped]
        newest, oldest = max(frame.stamp for frame in frames), min(frame.stamp for frame in frames)
        nearest = min(frames, key=lambda frame: abs(frame.stamp - stamp))
        if abs(nearest.stamp - stamp) <= self._limits.max_offset:
            return nearest
        if stamp < oldest or newest - stamp > self._limits.seconds:
            raise LateMaskError(
                f"its stamp is {newest - stamp:.3g} s older than the newest frame, and frames are "
                f"kept for {min(newest - oldest, self._limits.seconds):.3g} s (at most "
                f"{self._limits.seconds:g} s and {self._limits.megabytes} MB: "
                "`streaming.mask_history` in bundle.json)."
            )
        raise LateMaskError(
            f"no frame has its stamp, {newest - stamp:.3g} s before the newest frame's; the "
            f"nearest is {abs(nearest.stamp - stamp):.3g} s away. Use the stamp of the frame."
        )

    def _find_start(self, newest: float) -> float:
        """Return the stamp from which on frames are kept, in seconds. The lock is held."""
        start = newest - self._limits.seconds
        return min([start, *(stamp - self._limits.max_offset for stamp in self._held)])
