"""Python, vditrack and what it always needs."""

import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from vditrack.doctor.child import ask
from vditrack.doctor.finding import Finding


@dataclass(frozen=True)
class Package:
    """One that vditrack needs: its name, module, wheel, and oldest version."""

    title: str
    module: str
    wheel: str
    oldest: str


PACKAGES = (
    Package("NumPy", "numpy", "numpy", "1.26"),
    Package("OpenCV", "cv2", "opencv-python-headless", "4.10"),
    Package("PyAV", "av", "av", "14.1"),
    Package("msgspec", "msgspec", "msgspec", "0.20"),
    Package("typer", "typer", "typer", "0.19"),
    Package("rich", "rich", "rich", "13.9"),
    Package("threadpoolctl", "threadpoolctl", "threadpoolctl", "3.5"),
)


def python() -> Iterator[Finding]:
    """Find Python."""
    # One that is too old would not have come so far.
    found = f"{platform.python_version()}, {platform.platform()}, {sys.executable}"
    yield Finding("Python", "works", found)


def package() -> Iterator[Finding]:
    """Find vditrack itself."""
    place = Path(__file__).parents[1]
    try:
        yield Finding("vditrack", "works", f"{metadata.version('vditrack')}, {place}")
    except metadata.PackageNotFoundError:
        found = f"not installed: it runs from {place}"
        yield Finding("vditrack", "missing", found, "pip install 'vditrack[cpu]'")


def requirements() -> Iterator[Finding]:
    """Import each package that vditrack always needs."""
    for needed in PACKAGES:
        yield _requirement(needed)


def _requirement(needed: Package) -> Finding:
    wheel = f"'{needed.wheel}>={needed.oldest}'"
    reply = ask("version", needed.module, needed.wheel)
    if reply.absent == needed.module:
        return Finding(needed.title, "broken", "not installed", f"pip install {wheel}")
    if reply.error is not None:
        remedy = f"pip install --force-reinstall {wheel}"
        return Finding(needed.title, "broken", f"does not load: {reply.error}", remedy)
    version = str(reply.told["version"])
    if _numbers(version) < _numbers(needed.oldest):
        found = f"{version}; vditrack needs {needed.oldest} or newer"
        return Finding(needed.title, "broken", found, f"pip install {wheel}")
    return Finding(needed.title, "works", version)


def _numbers(version: str) -> tuple[int, ...]:
    """Its first two: no oldest version names a third."""
    return tuple(map(int, re.findall(r"\d+", version)[:2]))
