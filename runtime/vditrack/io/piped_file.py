"""Files of libraries that hide errors: they write to a pipe, which is copied to the file."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class PipedFile:
    """A pipe whose content a thread copies to a file; its writer sees no error of the file."""

    def __init__(self, path: Path) -> None:
        """Open the pipe, and begin to copy.

        Args:
            path: The file.

        """
        self._path = path
        self._error: OSError | None = None
        source, self._own_end = os.pipe()
        self._thread = threading.Thread(target=self._copy, args=(source,), name="piped file")
        self._thread.start()

    @property
    def name(self) -> str:
        """Path at which the pipe is opened for writing."""
        return f"/dev/fd/{self._own_end}"

    def check(self) -> None:
        """Check that all that was copied so far is in the file.

        Raises:
            OSError: It could not be written.

        """
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Wait until all is copied; those who opened the pipe must have closed it."""
        os.close(self._own_end)
        self._thread.join()

    def _copy(self, source: int) -> None:
        with open(source, "rb", buffering=0) as pipe:
            try:
                with self._path.open("wb") as file:
                    shutil.copyfileobj(pipe, file)
            except OSError as error:
                self._error = error
                # The writer would wait for ever.
                while pipe.read(1 << 20):
                    pass


@contextmanager
def piped_file(path: Path) -> Iterator[PipedFile]:
    """Yield a pipe to a file, which is complete at the end of the block.

    Raises:
        OSError: The file could not be written.

    """
    pipe = PipedFile(path)
    try:
        yield pipe
    finally:
        pipe.close()
    pipe.check()
