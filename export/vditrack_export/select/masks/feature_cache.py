"""Features stored on disk: computed once, and read again for every trial."""

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vditrack.coordinates import Grid
from vditrack.errors import InputError
from vditrack.features.feature_map import FeatureMap
from vditrack_export.select.masks.search_space import PartName, Setting

_REAL = np.dtype(np.float32)
_SPARE = 1 << 30
"""Bytes of the disk that are left free."""


class MapShape(NamedTuple):
    """The shape of a part's feature maps."""

    grid: Grid
    channels: int

    @property
    def frame_bytes(self) -> int:
        """The size of one frame's features in one setting, in bytes."""
        return self.grid.rows * self.grid.columns * self.channels * _REAL.itemsize


@dataclass(frozen=True)
class FeatureCache:
    """Features in a folder, one file for each clip and setting."""

    folder: Path
    shapes: Mapping[PartName, MapShape]

    def require_room(self, frames: int, settings: Mapping[PartName, int]) -> None:
        """Check that the disk has room for all features.

        Args:
            frames: the number of frames of all clips together.
            settings: the number of settings of each part.

        Raises:
            InputError: the disk is too small.

        """
        wanted = frames * sum(
            count * self.shapes[part].frame_bytes for part, count in settings.items()
        )
        free = shutil.disk_usage(self.folder).free
        if wanted > free - _SPARE:
            raise InputError(
                f"the features of all clips take {wanted / 1e9:.1f} GB until the end of the run, "
                f"and {self.folder.parent} has {free / 1e9:.1f} GB free. Give fewer --clips, "
                "--blocks or levels of --noise, or another folder with TMPDIR."
            )

    def write_maps(
        self, clip: int, settings: Sequence[Setting], maps: Iterable[FeatureMap]
    ) -> None:
        """Write the features of all frames of a clip.

        Args:
            clip: the number of the clip.
            settings: settings of one part.
            maps: one map per frame, with the descriptors of the settings side by side.

        """
        with ExitStack() as stack:
            files = [stack.enter_context(self._path(clip, one).open("wb")) for one in settings]
            for features in maps:
                split = np.split(features.descriptors, len(settings), axis=2)
                for file, descriptors in zip(files, split, strict=True):
                    file.write(descriptors.astype(_REAL).tobytes())

    def read_maps(self, clip: int, setting: Setting) -> Iterator[FeatureMap]:
        """Yield the feature maps of a clip in one setting, frame by frame."""
        shape = self.shapes[setting.part]
        size = (shape.grid.rows, shape.grid.columns, shape.channels)
        with self._path(clip, setting).open("rb") as file:
            while frame := file.read(shape.frame_bytes):
                yield FeatureMap(shape.grid, np.frombuffer(frame, _REAL).reshape(size))

    def _path(self, clip: int, setting: Setting) -> Path:
        noise = f"{setting.denoising.noise:.9g}"
        return self.folder / f"{clip}-{setting.part}-{noise}-{setting.block}"
