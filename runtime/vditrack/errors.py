"""The errors that users meet. Each message says what is wrong and what to do."""

import json
import re
import shlex
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

_CHECKOUT = Path(__file__).resolve().parents[2]
"""The folder that this package runs from, if it is installed as editable or not at all."""


class VditrackError(Exception):
    """Base of all errors that a user can fix; the command line prints it and exits with code 2."""


class BundleError(VditrackError):
    """A bundle is missing, altered, of an unknown version, or contradicts its manifest."""


class BackendError(VditrackError):
    """No inference engine could be loaded, or it failed on the model."""


class EngineError(VditrackError):
    """An engine could not be built, is damaged, or does not fit its bundle or this machine."""


class InputError(VditrackError):
    """Frames, points, files or options that the caller gave are invalid."""


class DamagedImageError(InputError):
    """One image of a stream is damaged or malformed; the others may be intact."""


class LateMaskError(InputError):
    """A mask is refused, because the frame that it was made for is not kept."""


def install_command(*extras: str, options: str = "") -> str:
    """Return the pip command that installs vditrack with extras from where it came from.

    vditrack is on no package index. It is installed from a checkout, a repository, or a wheel, as
    pip has recorded it (PEP 610). Where that is gone or not recorded, the command installs the
    packages of the extras, which are on PyPI.

    Args:
        extras: names under `project.optional-dependencies` in pyproject.toml.
        options: of `pip install`.

    """
    suffix = f"[{','.join(extras)}]" if extras else ""
    if (_CHECKOUT / "pyproject.toml").is_file():
        parts = ["--editable", shlex.quote(f"{_CHECKOUT}{suffix}")]
    elif (source := _recorded_source(suffix)) is not None:
        parts = [shlex.quote(source)]
    else:
        parts = [shlex.quote(package) for package in _list_packages(extras)]
        parts = parts or [shlex.quote(f"PATH_OF_THE_CHECKOUT{suffix}")]
    return " ".join(["pip install", *options.split(), *parts])


def _recorded_source(suffix: str) -> str | None:
    """Return the requirement that installs vditrack again; None if its source is not known."""
    try:
        recorded = metadata.distribution("vditrack").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    if recorded is None:
        return None
    source = json.loads(recorded)
    if (commit := source.get("vcs_info")) is not None:
        # Requirements with a URL must name a host.
        repository = source["url"].replace("file:///", "file://localhost/")
        return f"vditrack{suffix} @ {commit['vcs']}+{repository}@{commit['commit_id']}"
    url = urlsplit(source["url"])
    if url.scheme != "file":
        return f"vditrack{suffix} @ {source['url']}"
    path = Path(url2pathname(url.path))
    return f"{path}{suffix}" if path.exists() else None


def _list_packages(extras: tuple[str, ...]) -> list[str]:
    """Return the packages that the extras add, such as "rosbags>=0.11"."""
    try:
        requirements = metadata.requires("vditrack") or []
    except metadata.PackageNotFoundError:
        return []
    found = (re.fullmatch(r"(.+?); extra == .(.+).", text) for text in requirements)
    return [match[1] for match in found if match and match[2] in extras]
