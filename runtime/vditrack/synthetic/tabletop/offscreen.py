"""Loads MuJoCo for rendering without a screen."""

import ctypes.util
import importlib
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING

from vditrack.errors import InputError, install_command

if TYPE_CHECKING:
    from mujoco import MjModel, Renderer


def load_mujoco() -> ModuleType:
    """Import MuJoCo, set to render without a screen unless ``MUJOCO_GL`` is set.

    Raises:
        InputError: MuJoCo is not installed, or the library of its rendering backend is missing.

    """
    # MuJoCo reads the variable only on its first import.
    if sys.platform == "linux" and "mujoco" not in sys.modules and "MUJOCO_GL" not in os.environ:
        # Prefer OSMesa, which renders the same pixels with and without a GPU.
        os.environ["MUJOCO_GL"] = "osmesa" if ctypes.util.find_library("OSMesa") else "egl"
    try:
        return importlib.import_module("mujoco")
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        # PyOpenGL reports a missing library as an attribute of None.
        raise InputError(f"{_remedy()}. MuJoCo reports: {_first_line(error)}") from error


def open_renderer(model: "MjModel", height: int, width: int) -> "Renderer":
    """Return a renderer of ``model`` that renders into memory.

    Raises:
        InputError: MuJoCo cannot render, for example because the program imported it earlier
            without ``MUJOCO_GL``.

    """
    mujoco = load_mujoco()
    try:
        return mujoco.Renderer(model, height, width)
    except (ImportError, AttributeError, RuntimeError, mujoco.FatalError) as error:
        raise InputError(f"{_remedy()}. MuJoCo reports: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def _remedy() -> str:
    return (
        "the tabletop benchmark needs MuJoCo and a software renderer: run "
        f"`{install_command('eval')}` and `apt-get install libosmesa6` (or libegl1 and "
        "libgl1-mesa-dri)"
    )
