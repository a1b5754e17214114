"""Clips with the teacher's descriptors on disk, in shards that appear when they are complete."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Bools, Floats, FrameClip
from vditrack.atomic_files import staged_folder
from vditrack.bundle.file_checks import file_record
from vditrack.errors import InputError

SHARD = 16
"""Clips of a shard; the last one of a store may have fewer."""
FRAMES = 4
"""Frames of a clip."""
_ARRAYS = ("frames", "teacher", "points", "visible")
_DIGESTS = "digests.json"
_CONTENT = frozenset({_DIGESTS, *(f"{name}.npy" for name in _ARRAYS)})


@dataclass(frozen=True)
class StoredClip:
    """A clip of four frames."""

    frames: FrameClip
    """RGB, uint8 [4, H, W, 3]."""
    teacher: NDArray[np.float16]
    """The teacher's unit descriptors, float16 [4, rows, columns, D]; D is 0 without a teacher."""
    points: Floats
    """Positions of points whose motion is known, float32 [N, 4, 2] (x, y) in pixels."""
    visible: Bools
    """Whether they are visible, bool [N, 4]."""


class ClipStore:
    """A folder of shards of clips."""

    def __init__(self, folder: Path, count: int) -> None:
        """Take a folder, which need not exist, and the number of its clips."""
        self.folder, self._count = folder, count
        self._open: dict[int, dict[str, NDArray[Any]]] = {}

    def __len__(self) -> int:
        """Return the number of clips, those that are missing included."""
        return self._count

    @property
    def shards(self) -> int:
        """The number of shards."""
        return -(-self._count // SHARD)

    def clips_of(self, shard: int) -> range:
        """Return the numbers of the clips of a shard."""
        return range(shard * SHARD, min((shard + 1) * SHARD, self._count))

    def missing(self) -> list[int]:
        """Return the shards that are not there yet, in order."""
        return [shard for shard in range(self.shards) if not self._path(shard).is_dir()]

    def write(self, shard: int, clips: Sequence[StoredClip]) -> None:
        """Write a shard, which is there as a whole or not at all.

        Raises:
            InputError: The folder cannot be written, or the disk is full.

        """
        with staged_folder(self._path(shard), replaceable=_CONTENT) as folder:
            for name in _ARRAYS:
                np.save(folder / f"{name}.npy", np.stack([getattr(clip, name) for clip in clips]))
            digests = _digests(folder)
            (folder / _DIGESTS).write_text(json.dumps(digests) + "\n")

    def verify(self) -> str:
        """Compare all files with their digests, and return one digest of all.

        Raises:
            InputError: A file is damaged or missing.

        """
        whole = hashlib.sha256()
        for shard in range(self.shards):
            path = self._path(shard)
            try:
                stated = json.loads((path / _DIGESTS).read_text())
                found = _digests(path)
            except (OSError, ValueError) as error:
                raise _explain_damage(path) from error
            if stated != found:
                raise _explain_damage(path)
            whole.update(json.dumps(found).encode())
        return whole.hexdigest()

    def read(self, number: int) -> StoredClip:
        """Return a clip; its arrays are mapped from the disk and read when they are used."""
        shard, place = divmod(number, SHARD)
        if shard not in self._open:
            path = self._path(shard)
            self._open[shard] = {
                name: np.load(path / f"{name}.npy", mmap_mode="r") for name in _ARRAYS
            }
        arrays = self._open[shard]
        return StoredClip(**{name: arrays[name][place] for name in _ARRAYS})

    def _path(self, shard: int) -> Path:
        return self.folder / f"{shard:05}"


def clip_bytes(height: int, width: int, stride: int, channels: int) -> int:
    """Return the size of a stored clip without its points."""
    return FRAMES * (3 * height * width + 2 * (height // stride) * (width // stride) * channels)


def _digests(folder: Path) -> dict[str, str]:
    return {name: file_record(folder / f"{name}.npy").sha256 for name in _ARRAYS}


def _explain_damage(path: Path) -> InputError:
    return InputError(f"{path} is damaged. Remove this folder, and run the command again.")
