"""Requested points wait for their image, and are placed on it. Needs no ROS."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf

from vditrack.arrays import Floats
from vditrack.errors import InputError
from vditrack.ros_messages.stamps import NANOSECONDS_PER_SECOND
from vditrack_ros.parameters.settings import Settings
from vditrack_ros.points.population import Population, RequestResult

_MAX_WAITING = 10
"""Maximum number of requests that wait for their images."""


class NotReadyError(InputError):
    """The points of a request cannot be read yet."""


@dataclass(frozen=True)
class PointRequest:
    """Points to track from an image on."""

    stamp: int
    """Stamp of the image in nanoseconds; 0 for the newest image."""
    read: Callable[[], Floats]
    """Returns the pixels (x, y) [N, 2] in the image, which is there when this is called; raises
    `InputError` if they cannot be read, and `NotReadyError` if they may be after the next image."""
    respond: Callable[[RequestResult], None]
    """Receives what became of the points."""
    deadline: float = inf
    """Monotonic time in seconds until which the request may wait."""
    fault: str = "Points were refused: no image came for them. Request them again."
    """What the request waits for, for the answer if it comes to nothing."""


class PointPlacement:
    """Places requested points on their images, which may be past or to come."""

    def __init__(self, population: Population) -> None:
        """Start without requests.

        Args:
            population: receives the points.

        """
        self._population = population
        self._waiting: list[PointRequest] = []
        self._newest: int | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def forget_images(self) -> None:
        """Let requests wait for the next image; the population has forgotten all images."""
        self._newest = None

    def submit(self, request: PointRequest, settings: Settings) -> bool:
        """Place the points of a request, or let it wait; return whether it waits.

        If too many requests wait, the oldest is refused.
        """
        newest = self._newest
        if newest is not None and request.stamp <= newest:
            return self._place(request, settings)
        if newest is not None and self._refuse_ahead(request, newest, settings):
            return False
        self._waiting.append(request)
        if len(self._waiting) > _MAX_WAITING:
            _refuse(
                self._waiting.pop(0),
                f"More than {_MAX_WAITING} requests of points wait for their images; the oldest is "
                "discarded.",
            )
        return True

    def place_waiting(self, newest: int, settings: Settings) -> None:
        """Place the points of the requests that waited for an image.

        Args:
            newest: stamp of the newest image in nanoseconds; the population knows it.
            settings: the node's.

        """
        self._newest = newest
        waiting, self._waiting = self._waiting, []
        for request in waiting:
            if request.stamp <= newest:
                self._place(request, settings)
            elif not self._refuse_ahead(request, newest, settings):
                self._waiting.append(request)

    def expire(self, now: float) -> None:
        """Refuse requests that have waited for long enough.

        Args:
            now: monotonic time in seconds.

        """
        for request in [one for one in self._waiting if one.deadline <= now]:
            self._waiting.remove(request)
            _refuse(request, request.fault)

    def refuse_waiting(self, reason: str) -> None:
        """Refuse all requests that wait."""
        waiting, self._waiting = self._waiting, []
        for request in waiting:
            _refuse(request, reason)

    def _place(self, request: PointRequest, settings: Settings) -> bool:
        """Place the points of a request; return whether it waits for the next image."""
        stamp = request.stamp / NANOSECONDS_PER_SECOND if request.stamp else None
        try:
            result = self._population.add_requested(request.read(), settings, stamp)
        except NotReadyError as error:
            self._waiting.append(replace(request, fault=f"Points were refused: {error}"))
            return True
        except InputError as error:
            _refuse(request, f"Points were refused: {error}")
        else:
            request.respond(result)
        return False

    def _refuse_ahead(self, request: PointRequest, newest: int, settings: Settings) -> bool:
        """Refuse a request that no image is expected for; return whether it is one."""
        ahead = (request.stamp - newest) / NANOSECONDS_PER_SECOND
        if ahead <= settings.max_gap:
            return False
        _refuse(
            request,
            f"Points were refused: their stamp is {ahead:.3g} s ahead of the images, more than "
            "max_gap. Give them the stamp of their image, or 0 for the newest image.",
        )
        return True


def _refuse(request: PointRequest, reason: str) -> None:
    request.respond(RequestResult(fault=reason))
