"""The logger of TensorRT and TensorRT-RTX, for builds and for sessions."""

import logging
from functools import cache
from types import ModuleType
from typing import Any

_LOG = logging.getLogger("vditrack")


@cache
def collecting_logger(library: ModuleType) -> Any:  # noqa: ANN401 - it ships no types
    """Return a logger that prints nothing and collects errors in its list ``errors``.

    A library uses the first logger that it gets for the whole process, so builds and sessions share
    one.
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
