"""MuJoCo without a screen: which of its backends draws, and what to say where none does."""

import ctypes.util
import importlib
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING

from vditrack.errors import InputError

if TYPE_CHECKING:
    from mujoco import MjModel, Renderer

_REMEDY = (
    "the tabletop needs MuJoCo and a software renderer: "
    "pip install 'vditrack[eval]' and apt-get install libosmesa6 (or libegl1 and libgl1-mesa-dri)"
)


def load_mujoco() -> ModuleType:
    """Import MuJoCo, set to draw without a screen unless ``MUJOCO_GL`` says how to draw.

    Raises:
        InputError: it is not installed, or its backend's library is missing.

    """
    # MuJoCo reads the variable once, when it is imported for the first time.
    if sys.platform == "linux" and "mujoco" not in sys.modules and "MUJOCO_GL" not in os.environ:
        # The same pixels with and without a GPU, where there is a choice.
        os.environ["MUJOCO_GL"] = "osmesa" if ctypes.util.find_library("OSMesa") else "egl"
    try:
        return importlib.import_module("mujoco")
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        # PyOpenGL reports a missing library as an attribute of None.
        raise InputError(f"{_REMEDY}. It says: {_first_line(error)}") from error


def open_renderer(model: "MjModel", height: int, width: int) -> "Renderer":
    """Return a renderer of ``model`` that draws into memory.

    Raises:
        InputError: MuJoCo is there but can not draw; so it is in a program that has imported it
            before without setting ``MUJOCO_GL``.

    """
    mujoco = load_mujoco()
    try:
        return mujoco.Renderer(model, height, width)
    except (ImportError, AttributeError, RuntimeError, mujoco.FatalError) as error:
        raise InputError(f"{_REMEDY}. It says: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
