"""Engine files as TensorRT reads them: piece by piece, each compared with the recorded digest."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from vditrack.bundle.manifest import FileRecord
from vditrack.errors import EngineError

_PIECE = 16 << 20
"""Bytes of a file that are in memory at a time."""


class EngineFile:
    """An open engine file. What it returns is what the digest was computed of.

    The whole file is hashed before anything is returned, and each piece again when it is returned:
    the state of the hash after the pieces before it tells whether the piece is the same.
    """

    def __init__(self, path: Path, file: BinaryIO, record: FileRecord | None) -> None:
        """Compare a file with its record.

        Args:
            path: Path of the engine, for messages.
            file: The open file.
            record: Size and digest that the file has to have; None if they are not known.

        Raises:
            OSError: The file cannot be read.
            EngineError: The file was altered since its build was checked.

        """
        self._path, self._file = path, file
        self.size = os.fstat(file.fileno()).st_size
        self._piece: tuple[int, bytes] = (-1, b"")
        self._hashes = [hashlib.sha256()]
        if record is not None:
            for number in range(-(-self.size // _PIECE)):
                self._hashes.append(self._hash(number, self._read(number)))
            if self._hashes[-1].hexdigest() != record.sha256:
                raise self._altered()

    def read_at(self, position: int, size: int) -> bytes:
        """Return at most ``size`` bytes from a position: up to the end of a piece, none at the end.

        Raises:
            OSError: The file cannot be read.
            EngineError: The file was altered since it was opened.

        """
        number, start = divmod(position, _PIECE)
        if number != self._piece[0]:
            content = self._read(number)
            after = self._hashes[number + 1 : number + 2]
            if any(self._hash(number, content).digest() != state.digest() for state in after):
                raise self._altered()
            self._piece = number, content
        return self._piece[1][start : start + size]

    def _read(self, number: int) -> bytes:
        self._file.seek(number * _PIECE)
        # Not beyond the size that was hashed.
        return self._file.read(min(_PIECE, max(self.size - number * _PIECE, 0)))

    def _hash(self, number: int, content: bytes) -> hashlib._Hash:
        state = self._hashes[number].copy()
        state.update(content)
        return state

    def _altered(self) -> EngineError:
        return EngineError(f"{self._path} was altered after its build was checked. Copy it again.")


def make_reader(library: ModuleType, file: EngineFile) -> Any:  # noqa: ANN401 - it ships no types
    """Return a reader of an engine for ``deserialize_cuda_engine``.

    Its list ``failures`` holds the errors of reads: TensorRT only learns that nothing was read.
    TensorRT below 10.7, as in JetPack 6, has an older interface, which does not ask again for what
    a read leaves out.
    """
    has_seek = hasattr(library, "IStreamReaderV2")
    interface: Any = library.IStreamReaderV2 if has_seek else library.IStreamReader

    class Reader(interface):  # type: ignore[misc]
        def __init__(self) -> None:
            interface.__init__(self)
            self.failures: list[OSError | EngineError] = []
            self._position = 0

        def read(self, size: int, _stream: int = 0) -> bytes:
            pieces: list[bytes] = []
            try:
                while size and (piece := file.read_at(self._position, size)):
                    pieces.append(piece)
                    self._position += len(piece)
                    size = 0 if has_seek else size - len(piece)
            except (OSError, EngineError) as error:
                self.failures.append(error)
            return b"".join(pieces)

        def seek(self, offset: int, where: Any) -> bool:  # noqa: ANN401
            start = {"SET": 0, "CUR": self._position, "END": file.size}[where.name]
            self._position = start + offset
            return 0 <= self._position <= file.size

    return Reader()
