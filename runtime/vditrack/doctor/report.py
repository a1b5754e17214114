"""The archive for a bug report, with nothing in it that names a person or opens a door."""

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

from vditrack.atomic_files import staged_file
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
"""All that is told of the environment. Whole names: a beginning such as CUDA may have a secret."""

_SECRET = re.compile(r"TOKEN|SECRET|PASS|KEY|CREDENTIAL|AUTH|COOKIE", re.IGNORECASE)
_SHORTEST_SECRET = 6
"""Characters: shorter values, as 0 and true, stand everywhere."""
_HOMES = re.compile(r"/(?:home|Users)/[^/\s:'\"]+")
_LOGIN = re.compile(r"(?<=://)[^/\s@]+@")


def check_report(path: Path) -> None:
    """Refuse, with an InputError, what is not the name of a zip file."""
    if path.is_dir() or path.suffix != ".zip":
        raise InputError(f"--report {path} is not the name of a .zip file.")


def write_report(path: Path, findings: Sequence[Finding]) -> None:
    """Write the findings, the installed packages, some variables and the bundled manifest.

    Raises:
        InputError: the folder of ``path`` cannot be written.

    """
    # Texts are cleaned before they become JSON, which writes quotes and backslashes otherwise.
    clean = cleaner(os.environ)
    cleaned = [
        {name: clean(value) for name, value in asdict(finding).items() if value is not None}
        for finding in findings
    ]
    variables = {name: clean(os.environ[name]) for name in VARIABLES if name in os.environ}
    told = {
        "doctor.json": json.dumps(cleaned, indent=2),
        "packages.txt": clean("\n".join(_packages())),
        "environment.json": json.dumps(variables, indent=2),
        "bundle.json": clean(_manifest()),
    }
    with staged_file(path) as scratch, zipfile.ZipFile(scratch, "w") as archive:
        for name, text in told.items():
            archive.writestr(name, text + "\n")


def cleaner(environment: Mapping[str, str]) -> Callable[[str], str]:
    """Return what takes secrets, logins, home folders, the user and the host out of a text.

    Besides what the variables listed may hold, messages of foreign libraries can quote anything:
    so the value of every variable whose name sounds secret is taken out wherever it stands.
    """
    secrets = {
        value
        for name, value in environment.items()
        if _SECRET.search(name) and len(value) >= _SHORTEST_SECRET
    }
    # The longest first: one may be a part of another.
    exact = [(value, "<secret>") for value in sorted(secrets, key=len, reverse=True)]
    exact += [(str(home), "~") for home in _home_folders()]
    words = _names()

    def clean(text: str) -> str:
        for value, shown in exact:
            text = text.replace(value, shown)
        text = _LOGIN.sub("", _HOMES.sub("~", text))
        for pattern, shown in words:
            text = pattern.sub(shown, text)
        return text

    return clean


def _home_folders() -> list[Path]:
    home = Path.home()
    folders = {home, home.resolve()}
    return [folder for folder in folders if folder != Path(folder.anchor)]


def _names() -> list[tuple[re.Pattern[str], str]]:
    """Patterns of the host's and the user's name.

    The user's counts only as a part of a path or before an @: on a Jetson it is often nvidia.
    """
    host = socket.gethostname()
    words = {name for name in (host, host.partition(".")[0]) if name not in ("", "localhost")}
    patterns = [
        (re.compile(rf"(?<![\w.-]){re.escape(word)}(?![\w-])"), "<host>")
        for word in sorted(words, key=len, reverse=True)
    ]
    try:
        user = re.escape(getuser())
    # A container may run under a number that has no name.
    except (KeyError, OSError):
        return patterns
    return [*patterns, (re.compile(rf"(?<=/){user}(?![\w-])|\b{user}(?=@)"), "<user>")]


def _packages() -> list[str]:
    """Names and versions, as pip lists them; where each came from is not told."""
    installed = metadata.distributions()
    pairs = {(str(found.metadata["Name"]), str(found.version)) for found in installed}
    return [f"{name}=={version}" for name, version in sorted(pairs, key=lambda pair: pair[0])]


def _manifest() -> str:
    try:
        file = resources.files("vditrack.models") / "tiny" / "bundle.json"
        return file.read_text(encoding="utf-8")
    except (OSError, ModuleNotFoundError) as error:
        return f"cannot be read: {error}"
