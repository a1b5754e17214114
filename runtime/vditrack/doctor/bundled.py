"""Checks of the bundled model: its files, and one real track."""

from collections.abc import Iterator

from vditrack.doctor.child import run_probe
from vditrack.doctor.finding import Finding
from vditrack.doctor.hardware import has_nvidia_gpu
from vditrack.errors import install_command

MAX_ERROR = 1.0
"""Largest distance of the track from the ground truth, in pixels."""
_FIX_ABOVE = "fix what is broken above first"


def check_files() -> Iterator[Finding]:
    """Check every file of the bundled model."""
    reply = run_probe("model")
    if reply.error is None:
        found = f"{reply.result['name']}, {reply.result['files']} files unaltered"
        yield Finding("bundled model", "works", found)
    else:
        remedy = _reinstall() if reply.absent is None else _FIX_ABOVE
        yield Finding("bundled model", "broken", reply.error, remedy)


def check_track() -> Iterator[Finding]:
    """Track a point through a clip with known motion."""
    reply = run_probe("track")
    if reply.error is not None:
        found = f"tracking fails: {reply.error}"
        yield Finding("one track", "broken", found, _FIX_ABOVE)
        return
    error, seen = reply.result["pixels"], reply.result["seen"]
    found = (
        f"tracked a point through {seen} frames, off by {error:.2f} pixels at most, in "
        f"{reply.result['seconds']:.2f} s with loading"
    )
    if error > MAX_ERROR:
        yield Finding("one track", "broken", found, _reinstall())
    else:
        yield Finding("one track", "works", found)
    # Without a GPU, there is nothing to explain about its backends.
    reasons = [
        reason
        for reason in reply.result["fallbacks"]
        if has_nvidia_gpu() or reason.startswith("cpu-int8")
    ]
    tried = "".join(f"; not {' '.join(reason.split())}" for reason in reasons)
    yield Finding("backend", "works", f"{reply.result['backend']}{tried}")


def _reinstall() -> str:
    return install_command(options="--force-reinstall --no-deps")
