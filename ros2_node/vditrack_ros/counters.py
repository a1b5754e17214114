"""Counters of what the node received, tracked and dropped, over a sliding window.

All times are in seconds of a monotonic clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Value = TypeVar("Value")

WINDOW = 10.0
"""Length of the sliding window in seconds."""
_MAX_EVENTS = 4096
"""Events stored of each kind; more than a camera sends within the window."""

DROP_REASONS = (
    *("old", "late", "repeated", "unstamped", "stray"),
    *("malformed", "failed", "overtaken", "lost"),
)
"""Why an image has no result: it is older than `max_age`; its stamp is before that of its
predecessor; its stamp is that of its predecessor; its stamp is zero, and those of others are not;
its stamp jumps, forward or back; it cannot be decoded; tracking raised an error; it arrived, and
newer images replaced it in the queue; the middleware lost it on the way. Each image is counted
once."""

MASK_REFUSAL_REASONS = (
    *("encoding", "malformed", "indices", "empty", "size"),
    *("ahead", "late", "crowded", "boxes"),
)
"""Why a mask request is refused: unsupported encoding; inconsistent data; an index above 255; no
object; not the size of its image; its stamp is too far ahead of the images; its image is no longer
kept or never came; newer requests displaced it while it waited; a box that is none, or outside its
image."""


@dataclass(frozen=True)
class Timing:
    """Durations of processing one image, in seconds."""

    latency: float
    """From the image's stamp until its result is published."""
    decode: float
    """Decoding the image message."""
    track: float
    """Tracking."""
    publish: float
    """Building and publishing messages."""

    @property
    def overhead(self) -> float:
        """Time that the node adds to tracking."""
        return self.decode + self.publish


class EventWindow(Generic[Value]):
    """The events of the last `WINDOW` seconds, each with a value."""

    def __init__(self) -> None:
        """Start without events."""
        self._events: deque[tuple[float, Value]] = deque(maxlen=_MAX_EVENTS)

    def add(self, now: float, value: Value) -> None:
        """Add an event."""
        self._events.append((now, value))

    def values(self, now: float) -> list[Value]:
        """Return the values of the events in the window that ends now."""
        while self._events and self._events[0][0] < now - WINDOW:
            self._events.popleft()
        return [value for _, value in self._events]


@dataclass
class ImageCounters:
    """Counts the images of a camera by what became of them."""

    started: float
    """When counting began."""
    images: EventWindow[float] = field(default_factory=EventWindow)
    """Images received."""
    timings: EventWindow[Timing] = field(default_factory=EventWindow)
    """Durations of images with a published result."""
    dropped: dict[str, EventWindow[float]] = field(
        default_factory=lambda: {reason: EventWindow() for reason in DROP_REASONS}
    )
    """Images dropped within the window, by reason."""
    totals: dict[str, int] = field(default_factory=lambda: dict.fromkeys(DROP_REASONS, 0))
    """Images dropped since the start, by reason."""
    left_out: int = 0
    """Images that `max_rate` left out since the start."""
    first_image: float | None = None
    last_image: float | None = None
    last_error: str = ""

    def start(self, now: float) -> None:
        """Begin to wait for images; those before say nothing of the rate and of silence."""
        self.started, self.first_image, self.last_image = now, None, None
        self.images, self.timings = EventWindow(), EventWindow()

    def count_image(self, now: float) -> None:
        """Count a received image."""
        self.images.add(now, 1.0)
        self.first_image = now if self.first_image is None else self.first_image
        self.last_image = now

    def count_drops(self, now: float, reason: str, count: int = 1) -> None:
        """Count images without a result, for one of `DROP_REASONS`."""
        self.dropped[reason].add(now, count)
        self.totals[reason] += count

    def count_failure(self, now: float, error: Exception) -> None:
        """Count an image for which tracking raised an error."""
        self.count_drops(now, "failed")
        self.last_error = f"{type(error).__name__}: {error}"

    def count_result(self, now: float, timing: Timing) -> None:
        """Count an image whose result was published."""
        self.timings.add(now, timing)

    def lost(self, now: float) -> float:
        """Return the number of images that the middleware lost in the window that ends now."""
        return sum(self.dropped["lost"].values(now))

    def sent(self, now: float) -> float:
        """Return the number of images that the camera sent in the window that ends now."""
        # Overtaken and lost images were not received.
        overtaken = sum(self.dropped["overtaken"].values(now))
        return len(self.images.values(now)) + overtaken + self.lost(now)

    def input_rate(self, now: float) -> float:
        """Return the received images per second in the window that ends now."""
        return len(self.images.values(now)) / self.window_length(now)

    def output_rate(self, now: float) -> float:
        """Return the published results per second in the window that ends now."""
        return len(self.timings.values(now)) / self.window_length(now)

    def window_length(self, now: float) -> float:
        """Return the seconds since the first image, at most `WINDOW`."""
        first = now if self.first_image is None else self.first_image
        return min(WINDOW, max(now - first, 1e-3))


@dataclass
class MaskCounters:
    """Counts mask requests, and images that were skipped because the model was busy."""

    skipped_images: int = 0
    """Images that a newer one replaced while the model was busy."""
    carried_images: int = 0
    """Images into which optical flow carried masks."""
    accepted: int = 0
    """Mask requests that were applied."""
    superseded: int = 0
    """Mask requests that were left out, because one for a later image had all their objects."""
    refused: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MASK_REFUSAL_REASONS, 0))
    """Mask requests that were refused since the start, by reason."""
    refusals: EventWindow[float] = field(default_factory=EventWindow)
    """Mask requests that were refused within the window."""
    last_error: str = ""

    def count_refusal(self, now: float, reason: str, error: str) -> None:
        """Count a refused request, for one of `MASK_REFUSAL_REASONS`."""
        self.refused[reason] += 1
        self.refusals.add(now, 1.0)
        self.last_error = error
