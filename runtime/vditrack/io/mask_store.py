"""Masks on disk that grow block by block, as PNG files of object indices."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Mask, MaskClip
from vditrack.io.mask_png import read_mask, write_mask
from vditrack.io.run_store import RunStore, explain_damage, explain_unwritable

_MASKS, _AREAS = "masks", "areas"
_END = b"IEND\xaeB`\x82"
"""The last bytes of a PNG."""


class MaskStore(RunStore):
    """The folder of masks that are not complete, and of the areas of their objects."""

    def __init__(self, folder: Path, indices: Sequence[int], frames: int) -> None:
        """Take a folder.

        Args:
            folder: the folder; `create` makes it.
            indices: the indices of the K objects whose areas are counted.
            frames: T.

        """
        shape = (frames, len(indices))
        super().__init__(folder, {_AREAS: (np.dtype(np.int32), shape)})
        self._indices, self._frames = list(indices), frames

    def create(self, made_from: Mapping[str, str], note: str) -> None:
        """Make the folder; see `RunStore.create`."""
        super().create(made_from, note)
        (self.folder / _MASKS).mkdir()

    def check_masks(self, frames: int) -> None:
        """Check that the masks of the first frames are complete files.

        Raises:
            InputError: One is missing, or cut off.

        """
        for frame in range(frames):
            path = self._path_of(frame)
            try:
                with path.open("rb") as file:
                    file.seek(-len(_END), os.SEEK_END)
                    complete = file.read() == _END
            except OSError:
                complete = False
            if not complete:
                raise explain_damage(path, "it is missing, or cut off")

    def write(self, first_frame: int, masks: MaskClip) -> None:
        """Write the masks uint8 [B, H, W] of the frames from number ``first_frame`` on.

        Raises:
            InputError: The folder cannot be written.

        """
        try:
            areas = self.open("r+")[_AREAS]
            for frame, mask in enumerate(masks, first_frame):
                write_mask(self._path_of(frame), mask)
                areas[frame] = np.bincount(mask.ravel(), minlength=256)[self._indices]
        except OSError as error:
            raise explain_unwritable(self.folder, error) from error

    def save(self, checkpoint: Mapping[str, NDArray[Any]]) -> None:
        """Save a checkpoint; see `RunStore.save`."""
        if hasattr(os, "sync"):
            # After a loss of power no file that the checkpoint counts on is empty.
            os.sync()
        super().save(checkpoint)

    @property
    def areas(self) -> NDArray[np.int32]:
        """Areas of the objects in each frame, [T, K] pixels, on the disk."""
        return self.open()[_AREAS]

    def read(self) -> Iterator[Mask]:
        """Yield the masks of all frames, uint8 [H, W]."""
        return (read_mask(self._path_of(frame)) for frame in range(self._frames))

    def copy_masks(self, folder: Path) -> None:
        """Put the masks into a folder, which has none yet.

        Raises:
            OSError: They cannot be written there.

        """
        for frame in range(self._frames):
            path = self._path_of(frame)
            try:
                # The same file under two names, where the file system can do that.
                os.link(path, folder / path.name)
            except OSError:
                shutil.copyfile(path, folder / path.name)

    def _path_of(self, frame: int) -> Path:
        return self.folder / _MASKS / name_mask(frame, self._frames)


def name_mask(frame: int, frames: int) -> str:
    """Return the file name of the mask of a frame, given the number of frames of the clip."""
    # As many digits for all frames, so that the order of the names is that of the frames.
    digits = max(5, len(str(frames - 1)))
    return f"{frame:0{digits}}.png"
