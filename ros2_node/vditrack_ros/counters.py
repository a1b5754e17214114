"""Counters of what the node received, tracked and dropped, over a sliding window."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

WINDOW = 10.0
"""Seconds that are looked back on."""


_MOST = 4096
"""Events remembered of each kind: more than a camera sends in the window."""


REASONS = ("old", "malformed", "failed", "overtaken", "lost")
"""Why an image gives nothing: its age; its encoding or data; an error in tracking; a newer one
came before it was taken; the middleware lost it."""


MARK_REASONS = ("encoding", "malformed", "indices", "empty", "size", "ahead", "crowded")
"""Why a mask marks nothing: its encoding; its data; more objects than there may be; no object; not
the size of its image; no image of its time came; newer ones came while it waited for its image."""


@dataclass(frozen=True)
class Timing:
    """Of one image, in seconds."""

    latency: float
    """From its stamp to the publishing of what it gives."""
    decode: float
    track: float
    publish: float
    """With conversion to messages."""

    @property
    def overhead(self) -> float:
        """What the node adds to tracking."""
        return self.decode + self.publish


class Window:
    """Events of the last `WINDOW` seconds, each with a number."""

    def __init__(self) -> None:
        self._events: deque[tuple[float, float]] = deque(maxlen=_MOST)

    def add(self, now: float, value: float = 1.0) -> None:
        """Note an event; times are of a clock that never goes back."""
        self._events.append((now, value))

    def values(self, now: float) -> list[float]:
        """Numbers of the events in the window that ends now."""
        while self._events and self._events[0][0] < now - WINDOW:
            self._events.popleft()
        return [value for _, value in self._events]


@dataclass
class Counts:
    """What happened to a camera's images. All times are of a clock that never goes back."""

    since: float
    images: Window = field(default_factory=Window)
    timings: deque[tuple[float, Timing]] = field(default_factory=lambda: deque(maxlen=_MOST))
    dropped: dict[str, Window] = field(default_factory=lambda: {why: Window() for why in REASONS})
    totals: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    first_image: float | None = None
    last_image: float | None = None
    last_error: str = ""

    def image(self, now: float) -> None:
        """Note that an image came."""
        self.images.add(now)
        self.first_image = now if self.first_image is None else self.first_image
        self.last_image = now

    def drop(self, now: float, reason: str, count: int = 1) -> None:
        """Note images that give nothing, for one of `REASONS`."""
        self.dropped[reason].add(now, count)
        self.totals[reason] += count

    def tracked(self, now: float, timing: Timing) -> None:
        """Note that what an image gives was published."""
        self.timings.append((now, timing))

    def rate_in(self, now: float) -> float:
        """Images a second in the window that ends now."""
        return len(self.images.values(now)) / self.span(now)

    def span(self, now: float) -> float:
        """Seconds of the window that ends now: after the first image it is shorter."""
        first = now if self.first_image is None else self.first_image
        return min(WINDOW, max(now - first, 1e-3))

    def recent(self, now: float) -> list[Timing]:
        """Timings in the window that ends now."""
        while self.timings and self.timings[0][0] < now - WINDOW:
            self.timings.popleft()
        return [timing for _, timing in self.timings]


@dataclass
class MaskCounts:
    """What happened on the way to masks of objects."""

    passed_over: int = 0
    """Images that had no turn, since the model was at work and a newer one came."""
    marked: int = 0
    """Masks that objects were marked with."""
    refused: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MARK_REASONS, 0))
    """Masks that mark nothing."""
    refusals: Window = field(default_factory=Window)
    last_error: str = ""

    def refuse(self, now: float, reason: str, error: str) -> None:
        """Note a mask that marks nothing, for one of `MARK_REASONS`."""
        self.refused[reason] += 1
        self.refusals.add(now)
        self.last_error = error
