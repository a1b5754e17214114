"""Measures whether the model is faster than the camera."""

from collections import deque
from statistics import median

from vditrack.bundle.configuration import LiveTracking


class ModelPace:
    """The last durations of the model, and the last intervals of the camera."""

    def __init__(self, settings: LiveTracking) -> None:
        """Start without measurements."""
        self._settings = settings
        self._seconds: deque[float] = deque(maxlen=settings.history)
        self.forget_frames()

    def forget_frames(self) -> None:
        """Forget the intervals of the camera."""
        self._intervals: deque[float | None] = deque(maxlen=self._settings.history)
        self._busy = 0.0

    def record_model(self, seconds: float) -> None:
        """Record how long a step took that gave a map; any thread may call this.

        A push that waits for such a step waits longest: one that only encodes a latent is shorter.
        """
        self._seconds.append(seconds)

    def record_push(self, seconds: float) -> None:
        """Record how long a push took."""
        self._busy = seconds

    def record_interval(self, interval: float) -> None:
        """Record the seconds between the last frame and the next."""
        # While a push waits for a slow model, frames are missed, and the interval to the next one
        # is as long as the model takes: it does not measure the camera.
        is_camera = self._busy <= self._settings.max_push_share * interval
        self._intervals.append(interval if is_camera else None)

    def keeps_up(self) -> bool:
        """Return whether the model is faster than the camera; False until both are measured."""
        intervals = [interval for interval in self._intervals if interval is not None]
        if not intervals or not self._seconds:
            return False
        return median(self._seconds) <= self._settings.max_model_share * median(intervals)
