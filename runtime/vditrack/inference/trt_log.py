"""What TensorRT and TensorRT-RTX log, while they build and while they run."""

import logging
from functools import cache
from types import ModuleType
from typing import Any

_LOG = logging.getLogger("vditrack")


@cache
def collecting_logger(library: ModuleType) -> Any:  # noqa: ANN401 - it ships no types
    """Return the logger, which prints nothing and keeps what goes wrong in its list ``errors``.

    A library takes the first that it is given for all that it does in a process, so builds and
    sessions share one.
    """

    class CollectingLogger(library.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            library.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: object, message: str) -> None:
            _LOG.debug("%s", message)
            if severity in {library.ILogger.INTERNAL_ERROR, library.ILogger.ERROR}:
                self.errors.append(message)

    return CollectingLogger()
