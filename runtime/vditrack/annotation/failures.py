"""Why a recording could not be annotated."""

from __future__ import annotations

from typing import Literal, NamedTuple

from vditrack.errors import InputError

FailureKind = Literal["absent", "refused", "changed", "hang", "memory", "crash", "network", "error"]
"""Kind of a failure.

- ``absent``: there is no such file.
- ``refused``: the file cannot be read: damaged, empty, without video, not a regular file, of a
  format that no decoder knows; or it does not have what the specification asks for.
- ``changed``: the file changed while it was read.
- ``hang``: there was no progress for the longest time that is allowed.
- ``memory``: it took more memory than is allowed, or than there is.
- ``crash``: the process ended: killed from outside, or by a fault in a library.
- ``network``: a storage did not answer.
- ``error``: the operating system or a library reported an error.
"""


class Failure(NamedTuple):
    """A failure of a unit."""

    kind: FailureKind
    reason: str
    """One or more sentences."""


class SourceError(InputError):
    """A recording cannot be annotated, for a reason whose kind is known."""

    def __init__(self, kind: FailureKind, reason: str) -> None:
        """Take the kind and the reason, one or more sentences."""
        super().__init__(reason)
        self.kind: FailureKind = kind


class JobError(Exception):
    """No recording can be annotated: the model cannot be loaded, or no result be written."""
