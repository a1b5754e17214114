"""Import of libraries that may crash the process: each is imported in a child process first."""

import json
import signal
import subprocess
import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

_TIMEOUT = 120.0
"""Seconds; JetPack's libraries take some from a cold disk."""
_DONE = "vditrack: done"
_IMPORT = """
import importlib, json, os, sys
sys.path[:] = json.loads(sys.argv[1])
try:
    importlib.import_module(sys.argv[2])
except Exception:
    pass
print(sys.argv[3], flush=True)
os._exit(0)
"""
_REGISTER = """
import json, os, sys
sys.path[:] = json.loads(sys.argv[1])
import onnxruntime
try:
    onnxruntime.register_execution_provider_library("checked", sys.argv[2])
    onnxruntime.get_ep_devices()
except Exception:
    pass
print(sys.argv[3], flush=True)
os._exit(0)
"""
"""What a child does. An error that is no crash is left to this process, which reports it itself."""


def import_isolated(module: str) -> ModuleType:
    """Import a library, unless its import crashes a child process.

    The child is started once in a process, and not at all if the library is imported already or is
    not installed.

    Raises:
        ImportError: The library is not installed, does not load, or crashes.

    """
    # One that is None in sys.modules is not to be imported.
    if module not in sys.modules and (spec := find_spec(module)) is not None:
        crash = _find_crash(_IMPORT, module, str(spec.origin))
        if crash is not None:
            raise ImportError(f"{spec.origin}: its import {crash}")
    try:
        return import_module(module)
    except ImportError:
        raise
    # An import of another package can raise anything.
    except Exception as error:
        raise ImportError(f"{type(error).__name__}: {error}") from error


def explain_broken(module: str) -> str | None:
    """Return why a library that is installed does not load; None if it loads or is not there."""
    try:
        import_isolated(module)
    except ModuleNotFoundError as error:
        return None if error.name == module else str(error)
    except ImportError as error:
        return str(error)
    return None


def find_plugin_crash(library: str) -> str | None:
    """Return how ONNX Runtime crashes when it loads a provider's library; None if it does not."""
    return _find_crash(_REGISTER, library, library)


@cache
def _find_crash(code: str, argument: str, _place: str) -> str | None:
    """Run code in a child process; return how it ends if it does not end as it should.

    Args:
        code: The code.
        argument: Its argument.
        _place: Path of the library, so that another one of the same name is tried anew.

    """
    command = [sys.executable, "-c", code, json.dumps(sys.path), argument, _DONE]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"does not end within {_TIMEOUT:.0f} s"
    if _DONE.encode() in done.stdout:
        return None
    if done.returncode < 0:
        return f"crashes with {signal.Signals(-done.returncode).name}"
    return f"ends the process with exit code {done.returncode}"
