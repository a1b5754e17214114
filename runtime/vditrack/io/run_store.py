"""Results on disk that grow block by block, and survive the end of the process that computes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any, Literal
from zipfile import BadZipFile

import msgspec
import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from vditrack.atomic_files import remove_folder, staged_folder
from vditrack.errors import InputError
from vditrack.input_checks.files import MAX_JSON_SIZE, MalformedError, decode_json, read_file

_RUN, _CHECKPOINT = "run.json", "checkpoint.npz"
NOT_BEGUN = "not begun"
"""Where a run is that has not come to its first checkpoint."""
Layout = Mapping[str, tuple["np.dtype[Any]", tuple[int, ...]]]
"""Element types and shapes of arrays, by name."""

_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    RuntimeError,
    SyntaxError,
    BadZipFile,
    TokenError,
)
"""What NumPy raises for damaged files: it reads archives, and headers as Python."""


class _Run(msgspec.Struct, frozen=True):
    """What a store says of its run."""

    note: str
    """What the folder is, for people who find it."""
    made_from: dict[str, str]
    """What the results depend on: a description or a digest of each, by name."""


@dataclass(frozen=True)
class _Place:
    """How far a run got."""

    backward: bool
    frame: int
    """The next frame."""

    def __str__(self) -> str:
        """Describe the place for users."""
        if self.backward:
            return f"done forward, and backward down to frame {self.frame + 1}"
        return f"done up to frame {self.frame}"


class RunStore:
    """The folder of a run that is not complete: arrays that are written to, and a checkpoint."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        """Take a folder, which `create` makes, and the arrays in it."""
        self.folder, self._layout = folder, layout

    def create(self, made_from: Mapping[str, str], note: str) -> None:
        """Make the folder, with arrays that are 0 everywhere.

        Args:
            made_from: what the results depend on: a description or a digest of each, by name.
            note: what the folder is, for people who find it.

        Raises:
            InputError: The folder cannot be written.

        """
        run = _Run(note, dict(made_from))
        try:
            with staged_folder(self.folder, ()) as scratch:
                for name, (kind, shape) in self._layout.items():
                    open_memmap(scratch / f"{name}.npy", "w+", kind, shape).flush()
                    _allocate(scratch / f"{name}.npy")
                (scratch / _RUN).write_bytes(msgspec.json.encode(run))
        except OSError as error:
            raise explain_unwritable(self.folder, error) from error

    def check_arrays(self) -> None:
        """Check that the arrays of an earlier run are complete files of this store's shapes.

        Raises:
            InputError: One is missing or damaged.

        """
        for name, (kind, shape) in self._layout.items():
            path = self._path(name)
            try:
                # A file that is too short is extended in other modes.
                array = open_memmap(path, "r")
            except _UNREADABLE as error:
                raise explain_damage(path, error) from error
            if array.shape != shape or array.dtype != kind:
                raise explain_damage(path, f"it has {array.dtype} {list(array.shape)}")

    def save(self, checkpoint: Mapping[str, NDArray[Any]]) -> None:
        """Save the state after the blocks that were written, in place of the last one.

        Raises:
            InputError: The folder cannot be written.

        """
        scratch = self.folder / f".{_CHECKPOINT}"
        try:
            for array in self.open("r+").values():
                array.flush()
            with scratch.open("wb") as file:
                arrays: dict[str, Any] = dict(checkpoint)
                np.savez(file, **arrays)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(self.folder / _CHECKPOINT)
        except OSError as error:
            raise explain_unwritable(self.folder, error) from error

    def open(self, mode: Literal["r", "r+"] = "r") -> dict[str, np.memmap[Any, Any]]:
        """Return the arrays, by name, which are read from the disk where they are used."""
        # Opened for each block, so that its pages do not stay in the memory of the process.
        return {name: np.load(self._path(name), mmap_mode=mode) for name in self._layout}

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npy"


def _allocate(path: Path) -> None:
    """Take the disk space of a file now: if the disk is full later, a mapped write is fatal."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def find_store(folder: Path) -> bool:
    """Return whether there is a store: not where the folder does not exist or is empty.

    Raises:
        InputError: It is a file, or it has other files.

    """
    if not folder.exists():
        return False
    remedy = "Rename it, or choose another folder with -o."
    if not folder.is_dir():
        raise InputError(f"{folder} is a file, where the results of this run would be. {remedy}")
    if (folder / _RUN).exists():
        return True
    if any(folder.iterdir()):
        raise InputError(f"{folder} is no interrupted run: it has no {_RUN}. {remedy}")
    return False


def describe_place(folder: Path) -> str | None:
    """Return how far the run of a store got, or `NOT_BEGUN`; None if there is no store.

    Raises:
        InputError: The store is damaged, or something else is in its place.

    """
    if not find_store(folder):
        return None
    checkpoint = read_checkpoint(folder)
    return NOT_BEGUN if checkpoint is None else str(_read_place(checkpoint))


def _read_place(checkpoint: Mapping[str, NDArray[Any]]) -> _Place:
    backward, frame = checkpoint["place"].tolist()
    return _Place(bool(backward), frame)


def read_checkpoint(folder: Path) -> dict[str, NDArray[Any]] | None:
    """Return the last checkpoint of a store; None if its run had not come to one.

    Raises:
        InputError: The checkpoint is damaged.

    """
    path = folder / _CHECKPOINT
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except _UNREADABLE as error:
        raise explain_damage(path, error) from error


def explain_damage(path: Path, reason: Exception | str) -> InputError:
    """Return the error for a damaged file of a store."""
    return InputError(
        f"{path} is damaged: {reason}. Delete {path.parent} and start again without --resume."
    )


def explain_unwritable(path: Path, error: OSError) -> InputError:
    """Return the error for a file or folder that cannot be written."""
    return InputError(f"{path} cannot be written: {error.strerror}.")


def check_origin(folder: Path, made_from: Mapping[str, str]) -> None:
    """Check that the results of a store are made from the same as those of another run.

    Args:
        folder: of the store.
        made_from: see `RunStore.create`.

    Raises:
        InputError: Something differs, or the store is damaged.

    """
    try:
        run = decode_json(read_file(folder / _RUN, MAX_JSON_SIZE), _Run)
    except (OSError, MalformedError) as error:
        raise explain_damage(folder / _RUN, error) from error
    differing = [name for name, value in made_from.items() if run.made_from.get(name) != value]
    if differing:
        raise InputError(
            f"{folder} was made with another {' and '.join(differing)}. Repeat the command of "
            "that run to continue it, choose another -o, or delete the folder."
        )


def remove_store(folder: Path) -> None:
    """Remove the folder of a store, whose run is complete."""
    remove_folder(folder)


def digest_array(array: NDArray[Any]) -> str:
    """Return the SHA-256 of the content of an array."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
