"""The bundled model: its files, and one real track."""

from collections.abc import Iterator

from vditrack.doctor.child import ask
from vditrack.doctor.finding import Finding
from vditrack.doctor.hardware import nvidia_gpu

FARTHEST = 1.0
"""Pixels that a point may be from where it is known to be."""
_REINSTALL = "pip install --force-reinstall --no-deps vditrack"
_ABOVE = "mend what is broken above first"


def integrity() -> Iterator[Finding]:
    """Check every file of the bundled model."""
    reply = ask("model")
    if reply.error is None:
        found = f"{reply.told['name']}, {reply.told['files']} files unaltered"
        yield Finding("bundled model", "works", found)
    else:
        remedy = _REINSTALL if reply.absent is None else _ABOVE
        yield Finding("bundled model", "broken", reply.error, remedy)


def track() -> Iterator[Finding]:
    """Follow a point through a picture that moves by a known way."""
    reply = ask("track")
    if reply.error is not None:
        found = f"tracking fails: {reply.error}"
        yield Finding("one track", "broken", found, _ABOVE)
        return
    pixels, seen = reply.told["pixels"], reply.told["seen"]
    found = (
        f"followed a point through {seen} frames to {pixels:.2f} pixels of the truth, in "
        f"{reply.told['seconds']:.2f} s with loading"
    )
    if pixels > FARTHEST:
        yield Finding("one track", "broken", found, _REINSTALL)
    else:
        yield Finding("one track", "works", found)
    # Without a GPU that nothing faster was taken is no news.
    reasons = reply.told["fallbacks"] if nvidia_gpu() else ()
    tried = "".join(f"; not {' '.join(reason.split())}" for reason in reasons)
    yield Finding("backend", "works", f"{reply.told['backend']}{tried}")
