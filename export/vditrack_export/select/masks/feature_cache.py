"""Features on disk: written once, and read again for every trial."""

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vditrack.coordinates import Grid
from vditrack.errors import InputError
from vditrack.features.feature_map import FeatureMap
from vditrack_export.select.masks.search_space import PartName, Setting

_REAL = np.dtype(np.float32)
_SPARE = 1 << 30
"""Bytes that are left free for others."""


@dataclass(frozen=True)
class Shape:
    """Of the features of a part."""

    grid: Grid
    channels: int

    @property
    def frame_bytes(self) -> int:
        """Size of one frame's features in one setting."""
        return self.grid.rows * self.grid.columns * self.channels * _REAL.itemsize


@dataclass(frozen=True)
class Kept:
    """Features in a folder, a file for each clip and setting."""

    folder: Path
    shapes: Mapping[PartName, Shape]

    def require_room(self, frames: int, settings: Mapping[PartName, int]) -> None:
        """Refuse to begin where the disk is too small.

        Args:
            frames: of all clips together.
            settings: how many there are of each part.

        Raises:
            InputError: it is; the message says what is needed.

        """
        wanted = frames * sum(
            count * self.shapes[part].frame_bytes for part, count in settings.items()
        )
        free = shutil.disk_usage(self.folder).free
        if wanted > free - _SPARE:
            raise InputError(
                f"features of all clips take {wanted / 1e9:.1f} GB for a while, and at "
                f"{self.folder.parent} {free / 1e9:.1f} GB are free. Give fewer --clips, --blocks "
                "or levels of --noise, or another place with TMPDIR."
            )

    def keep(self, clip: int, settings: Sequence[Setting], maps: Iterable[FeatureMap]) -> None:
        """Write the features of all frames of a clip.

        Args:
            clip: its number.
            settings: of one part, that the maps are of.
            maps: one a frame, with the descriptors of the settings side by side.

        """
        with ExitStack() as files:
            opened = [files.enter_context(self._path(clip, one).open("wb")) for one in settings]
            for features in maps:
                apart = np.split(features.descriptors, len(settings), axis=2)
                for file, descriptors in zip(opened, apart, strict=True):
                    file.write(descriptors.astype(_REAL).tobytes())

    def maps(self, clip: int, setting: Setting) -> Iterator[FeatureMap]:
        """Read the features of a clip, one map a frame."""
        shape = self.shapes[setting.part]
        size = (shape.grid.rows, shape.grid.columns, shape.channels)
        with self._path(clip, setting).open("rb") as file:
            while frame := file.read(shape.frame_bytes):
                yield FeatureMap(shape.grid, np.frombuffer(frame, _REAL).reshape(size))

    def _path(self, clip: int, setting: Setting) -> Path:
        noise = f"{setting.denoising.noise:.9g}"
        return self.folder / f"{clip}-{setting.part}-{noise}-{setting.block}"
