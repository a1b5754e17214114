"""HDF5 in the layout of ATM (Wen et al., "Any-point Trajectory Modeling for Policy Learning")."""

from __future__ import annotations

import re
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from vditrack.annotation.annotate import Progress
from vditrack.annotation.formats.content import TrackContent
from vditrack.atomic_files import staged_file
from vditrack.errors import InputError, install_command

DEFAULT_VIEW = "video"
"""Name of the view of a recording without topics."""


def import_h5py() -> Any:  # noqa: ANN401
    """Import h5py, an optional dependency of the runtime.

    Raises:
        InputError: It is not installed or cannot be imported.

    """
    try:
        return import_module("h5py")
    except ImportError as error:
        raise InputError(
            f"h5py, which writes HDF5, cannot be imported ({error}). "
            f"Run `{install_command('hdf5')}`."
        ) from error


def write_hdf5(path: Path, content: TrackContent, progress: Progress) -> None:
    """Write the group ``root/VIEW`` with ``tracks`` and ``vis``.

    ``tracks`` is float32 [1, T, N, 2], (x, y) as shares of width and height, and ``vis`` bool
    [1, T, N]. Empty points of a specification with ``pad_to`` are NaN and not visible. The
    attribute ``vditrack`` of the file is what the Parquet file says of itself, in JSON.

    Args:
        path: Destination, replaced when the file is complete.
        content: What is written.
        progress: Not called.

    Raises:
        InputError: h5py is not installed, or the file cannot be written.

    """
    h5py = import_h5py()
    record, tracks = content.record, content.tracks
    size = np.array([record.width, record.height], np.float32)
    missing = max(0, (record.specification.pad_to or 0) - len(tracks.visible))
    around = ((0, missing), (0, 0))
    points = np.pad(tracks.points / size, (*around, (0, 0)), constant_values=np.nan)
    visible = np.pad(tracks.visible, around)
    # HDF5 crashes the process later if a file cannot be closed, as on a full disk.
    memory = BytesIO()
    with h5py.File(memory, "w") as file:
        file.attrs["vditrack"] = msgspec.json.encode(record).decode()
        view = file.create_group(f"root/{name_view(record.topic)}")
        view["tracks"] = points.transpose(1, 0, 2)[None]
        view["vis"] = visible.T[None]
    with staged_file(path) as scratch:
        scratch.write_bytes(memory.getbuffer())


def name_view(topic: str | None) -> str:
    """Return the name of the group of a camera, such as ``cam_image_raw`` of /cam/image_raw."""
    return re.sub(r"[^\w.-]+", "_", topic or "").strip("_.") or DEFAULT_VIEW
