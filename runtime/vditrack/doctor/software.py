"""Checks of Python, vditrack and the packages that it always needs."""

import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from vditrack.doctor.child import run_probe
from vditrack.doctor.finding import Finding
from vditrack.errors import install_command


@dataclass(frozen=True)
class Package:
    """A package that vditrack needs: name, module, wheel and oldest version."""

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


def check_python() -> Iterator[Finding]:
    """Report the version of Python."""
    # An older Python could not have imported this module.
    found = f"{platform.python_version()}, {platform.platform()}, {sys.executable}"
    yield Finding("Python", "works", found)


def check_package() -> Iterator[Finding]:
    """Report the version and place of vditrack."""
    place = Path(__file__).parents[1]
    try:
        yield Finding("vditrack", "works", f"{metadata.version('vditrack')}, {place}")
    except metadata.PackageNotFoundError:
        found = f"not installed; it runs from {place}"
        yield Finding("vditrack", "missing", found, install_command("cpu"))


def check_requirements() -> Iterator[Finding]:
    """Import each package that vditrack always needs."""
    for needed in PACKAGES:
        yield _check_requirement(needed)


def check_signatures() -> Iterator[Finding]:
    """Import what signatures need, which is optional."""
    reply = run_probe("version", "cryptography", "cryptography")
    name, remedy = "cryptography (signatures)", install_command("sign")
    if reply.absent == "cryptography":
        yield Finding(name, "missing", "not installed", remedy)
    elif reply.error is not None:
        yield Finding(name, "broken", f"does not load: {reply.error}", remedy)
    else:
        yield Finding(name, "works", str(reply.result["version"]))


def _check_requirement(needed: Package) -> Finding:
    wheel = f"'{needed.wheel}>={needed.oldest}'"
    reply = run_probe("version", needed.module, needed.wheel)
    if reply.absent == needed.module:
        return Finding(needed.title, "broken", "not installed", f"pip install {wheel}")
    if reply.error is not None:
        remedy = f"pip install --force-reinstall {wheel}"
        return Finding(needed.title, "broken", f"does not load: {reply.error}", remedy)
    version = str(reply.result["version"])
    if _parse_version(version) < _parse_version(needed.oldest):
        found = f"{version}; vditrack needs {needed.oldest} or newer"
        return Finding(needed.title, "broken", found, f"pip install {wheel}")
    return Finding(needed.title, "works", version)


def _parse_version(version: str) -> tuple[int, ...]:
    """Return the first two numbers; no oldest version has a third."""
    return tuple(map(int, re.findall(r"\d+", version)[:2]))
