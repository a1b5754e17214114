"""Runs probes in processes of their own, so that a library that crashes fails only its check."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from vditrack.errors import VditrackError

TIMEOUT = 120.0
"""Seconds that a probe may take. The first use of a GPU can take long."""

# The child has the module path of its parent, without the folder that it starts in.
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from vditrack.doctor.child import answer_probe; answer_probe(*sys.argv[2:])"
)
_COLOURS = re.compile(r"\x1b\[[\d;]*m")


@dataclass(frozen=True)
class Reply:
    """The result of a probe, or its error."""

    result: dict[str, Any]
    """Empty after an error."""
    error: str | None
    """None after success."""
    absent: str | None
    """The module that is not installed, if that is the error."""
    log: str
    """What the process wrote to stderr."""


def run_probe(probe: str, *arguments: str) -> Reply:
    """Run a function of ``vditrack.doctor.probes`` in a process of its own."""
    command = [sys.executable, "-c", _START, json.dumps(sys.path), probe, *arguments]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Reply({}, f"gives no answer within {TIMEOUT:.0f} s", None, "")
    log = _COLOURS.sub("", done.stderr)
    if done.returncode < 0:
        return Reply({}, f"crashes with {signal.Signals(-done.returncode).name}", None, log)
    if done.returncode > 0:
        last = log.strip().splitlines()[-1:] or [f"ends with exit code {done.returncode}"]
        return Reply({}, last[0], None, log)
    return Reply(**json.loads(done.stdout.splitlines()[-1]), log=log)


def answer_probe(probe: str, *arguments: str) -> None:
    """Run a probe, print its reply as the last line of stdout, and end the process."""
    result: dict[str, Any] = {}
    error = absent = None
    try:
        result = getattr(import_module("vditrack.doctor.probes"), probe)(*arguments)
    # Libraries may raise anything when they are imported or called, SystemExit too.
    except BaseException as raised:
        error, absent = _describe(raised), _absent_module(raised)
    print("\n" + json.dumps({"result": result, "error": error, "absent": absent}), flush=True)
    # Skip the exit handlers of libraries, which may print or crash.
    os._exit(0)


def _describe(error: BaseException) -> str:
    if isinstance(error, VditrackError):
        return str(error)
    # NumPy and others wrap the error of the loader in a long explanation.
    while isinstance(error, ImportError) and error.__cause__ is not None:
        error = error.__cause__
    return " ".join(f"{type(error).__name__}: {error}".split())


def _absent_module(error: BaseException) -> str | None:
    return error.name if isinstance(error, ModuleNotFoundError) else None
