"""Questions asked in a process of its own each: a library that crashes spoils only its own line."""

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

PATIENCE = 120.0
"""Seconds that an answer may take. The first use of a GPU can take many."""

# The child finds modules where its parent does, and not also in the folder it is started in.
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from vditrack.doctor.child import answer; answer(*sys.argv[2:])"
)
_COLOURS = re.compile(r"\x1b\[[\d;]*m")


@dataclass(frozen=True)
class Reply:
    """What a probe told, or what went wrong."""

    told: dict[str, Any]
    error: str | None
    absent: str | None
    """The module that is not installed, where that is what went wrong."""
    log: str
    """What was written to stderr meanwhile."""


def ask(probe: str, *arguments: str) -> Reply:
    """Run one of ``vditrack.doctor.probes``, by name, in a process of its own."""
    command = [sys.executable, "-c", _START, json.dumps(sys.path), probe, *arguments]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Reply({}, f"gives no answer within {PATIENCE:.0f} s", None, "")
    log = _COLOURS.sub("", done.stderr)
    if done.returncode < 0:
        return Reply({}, f"crashes with {signal.Signals(-done.returncode).name}", None, log)
    if done.returncode > 0:
        last = log.strip().splitlines()[-1:] or [f"ends with exit code {done.returncode}"]
        return Reply({}, last[0], None, log)
    return Reply(**json.loads(done.stdout.splitlines()[-1]), log=log)


def answer(probe: str, *arguments: str) -> None:
    """Answer on stdout, as its last line, and end the process."""
    told: dict[str, Any] = {}
    error = absent = None
    try:
        told = getattr(import_module("vditrack.doctor.probes"), probe)(*arguments)
    # Whatever a foreign library does when it is imported or called, to exit among it.
    except BaseException as raised:
        error, absent = _in_words(raised), _absent(raised)
    print("\n" + json.dumps({"told": told, "error": error, "absent": absent}), flush=True)
    # What a library does or prints when the interpreter is taken down is no part of the answer.
    os._exit(0)


def _in_words(error: BaseException) -> str:
    if isinstance(error, VditrackError):
        return str(error)
    # NumPy, among others, wraps what the loader said in an essay.
    while isinstance(error, ImportError) and error.__cause__ is not None:
        error = error.__cause__
    return " ".join(f"{type(error).__name__}: {error}".split())


def _absent(error: BaseException) -> str | None:
    return error.name if isinstance(error, ModuleNotFoundError) else None
