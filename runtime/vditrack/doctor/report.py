"""Writes the archive for a bug report, without secrets or personal names."""

import json
import os
import re
import socket
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from getpass import getuser
from importlib import metadata, resources
from pathlib import Path

from vditrack.atomic_files import check_file_destination, named_option, staged_file
from vditrack.doctor.finding import Finding
from vditrack.errors import InputError

VARIABLES = (
    "CUDA_DEVICE_ORDER",
    "CUDA_HOME",
    "CUDA_LAUNCH_BLOCKING",
    "CUDA_MODULE_LOADING",
    "CUDA_PATH",
    "CUDA_VISIBLE_DEVICES",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "NVIDIA_DRIVER_CAPABILITIES",
    "NVIDIA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "OPENCV_LOG_LEVEL",
    "ORT_DISABLE_ALL_TELEMETRY",
    "PYTHONHOME",
    "PYTHONPATH",
    "RMW_IMPLEMENTATION",
    "ROS_DISTRO",
    "ROS_VERSION",
    "VIRTUAL_ENV",
)
"""Environment variables in the report; whole names, since a prefix may match a secret."""

_SECRET = re.compile(r"TOKEN|SECRET|PASS|KEY|CREDENTIAL|AUTH|COOKIE", re.IGNORECASE)
_SHORTEST_SECRET = 6
"""Characters; shorter values such as 0 and true occur everywhere."""
_HOMES = re.compile(r"/(?:home|Users)/[^/\s:'\"]+")
_LOGIN = re.compile(r"(?<=://)[^/\s@]+@")


def check_report(path: Path) -> None:
    """Check that a path is the name of a zip file that can be written.

    Raises:
        InputError: It is not.

    """
    if path.is_dir() or path.suffix != ".zip":
        raise InputError(f"--report {path} is not the name of a .zip file.")
    with named_option("--report"):
        check_file_destination(path)


def write_report(path: Path, findings: Sequence[Finding]) -> None:
    """Write the findings, the installed packages, some variables and the bundled manifest.

    Raises:
        InputError: The folder of ``path`` cannot be written.

    """
    # Clean texts before encoding them as JSON, which escapes quotes and backslashes.
    clean = make_cleaner(os.environ)
    cleaned = [
        {name: clean(value) for name, value in asdict(finding).items() if value is not None}
        for finding in findings
    ]
    variables = {name: clean(os.environ[name]) for name in VARIABLES if name in os.environ}
    files = {
        "doctor.json": json.dumps(cleaned, indent=2),
        "packages.txt": clean("\n".join(_list_packages())),
        "environment.json": json.dumps(variables, indent=2),
        "bundle.json": clean(_read_manifest()),
    }
    with staged_file(path) as scratch, zipfile.ZipFile(scratch, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text + "\n")


def make_cleaner(environment: Mapping[str, str]) -> Callable[[str], str]:
    """Return a function that removes secrets, logins, home folders, user and host from a text.

    Messages of libraries may quote anything. So the value of every variable whose name sounds like
    a secret is removed wherever it occurs.
    """
    secrets = {
        value
        for name, value in environment.items()
        if _SECRET.search(name) and len(value) >= _SHORTEST_SECRET
    }
    # Longest first: one may be part of another.
    exact = [(value, "<secret>") for value in sorted(secrets, key=len, reverse=True)]
    exact += [(str(home), "~") for home in _list_home_folders()]
    names = _make_name_patterns()

    def clean(text: str) -> str:
        for value, shown in exact:
            text = text.replace(value, shown)
        text = _LOGIN.sub("", _HOMES.sub("~", text))
        for pattern, shown in names:
            text = pattern.sub(shown, text)
        return text

    return clean


def _list_home_folders() -> list[Path]:
    home = Path.home()
    folders = {home, home.resolve()}
    return [folder for folder in folders if folder != Path(folder.anchor)]


def _make_name_patterns() -> list[tuple[re.Pattern[str], str]]:
    """Return patterns of the host name and the user name, each with its replacement.

    The user name counts only in a path or before an @: on a Jetson it is often nvidia.
    """
    host = socket.gethostname()
    words = {name for name in (host, host.partition(".")[0]) if name not in ("", "localhost")}
    patterns = [
        (re.compile(rf"(?<![\w.-]){re.escape(word)}(?![\w-])"), "<host>")
        for word in sorted(words, key=len, reverse=True)
    ]
    try:
        user = re.escape(getuser())
    # A container may run under a user number without a name.
    except (KeyError, OSError):
        return patterns
    return [*patterns, (re.compile(rf"(?<=/){user}(?![\w-])|\b{user}(?=@)"), "<user>")]


def _list_packages() -> list[str]:
    """Return NAME==VERSION of each installed package, without its origin."""
    installed = metadata.distributions()
    pairs = {(str(found.metadata["Name"]), str(found.version)) for found in installed}
    return [f"{name}=={version}" for name, version in sorted(pairs, key=lambda pair: pair[0])]


def _read_manifest() -> str:
    try:
        file = resources.files("vditrack.models") / "tiny" / "bundle.json"
        return file.read_text(encoding="utf-8")
    except (OSError, ModuleNotFoundError) as error:
        return f"cannot be read: {error}"
