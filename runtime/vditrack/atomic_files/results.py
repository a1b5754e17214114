"""Folders that results are written to one by one, beside other files."""

import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vditrack.atomic_files.locks import locked_folder
from vditrack.atomic_files.paths import follow_links, is_folder, list_foreign
from vditrack.atomic_files.scratch import (
    explain_full_disk,
    keep_result,
    parent_folders,
    remove_dead_scratch,
    scratch_folder,
)
from vditrack.atomic_files.staging import replace_content, staged_file
from vditrack.errors import InputError


class ResultsFolder:
    """A folder that results are written to one by one, each as soon as it is ready.

    The first result replaces those of an earlier run; until then they are left as they were.
    """

    def __init__(self, root: Path, names: Collection[str]) -> None:
        """Take an existing folder.

        Args:
            root: The folder.
            names: Names of the results that it may hold.

        """
        self._root, self._names = root, frozenset(names)
        self._written: set[str] = set()

    @contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """Yield a scratch path that becomes the file ``name`` if the block succeeds."""
        with staged_file(self._root / name) as scratch:
            yield scratch
            self._remove_earlier_results(name)

    @contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """Yield a scratch folder that becomes the folder ``name`` if the block succeeds."""
        with scratch_folder(self._root, self._root) as scratch, explain_full_disk(self._root):
            (scratch / name).mkdir()
            yield scratch / name
            with keep_result(scratch, self._root / name):
                self._remove_earlier_results(name)
                replace_content(self._root, scratch, {name})

    def _remove_earlier_results(self, name: str) -> None:
        """Remove the other results of an earlier run, which do not belong to the new one."""
        if not self._written:
            for other in self._names - {name}:
                _remove(self._root / other)
        self._written.add(name)


@contextmanager
def results_folder(
    destination: Path, names: Collection[str], marker: str, inputs: Sequence[Path | None] = ()
) -> Iterator[ResultsFolder]:
    """Yield a folder for results, after a check that they can be written to it.

    It is locked until the block ends, so that two runs do not write to it at a time. Scratch of
    runs that were killed is removed; other files stay as they are. If the block raises before there
    is a result, a folder that was made for it is removed.

    Args:
        destination: The folder.
        names: Names of all results; those of an earlier run are replaced.
        marker: The result that every run writes. Beside other files, results are replaced only if
            this one is there; otherwise they may be the user's own files of the same names.
        inputs: Files that the run reads, which no result may replace.

    Raises:
        InputError: The folder cannot be written, another run writes in it, an input would be
            replaced, or there is a file that may not be replaced.

    """
    root = follow_links(destination)
    _refuse_inputs(root, names, inputs)
    if is_folder(root, destination):
        _refuse_unmarked(root, names, marker, destination)
    with parent_folders(root / marker, destination):
        with scratch_folder(root, destination):
            pass
        with locked_folder(root, destination):
            remove_dead_scratch(root)
            yield ResultsFolder(root, names)


def _refuse_unmarked(root: Path, names: Collection[str], marker: str, shown: Path) -> None:
    foreign = list_foreign(root, names, shown)
    taken = sorted(name for name in names if (root / name).exists())
    if foreign and taken and marker not in taken:
        raise InputError(
            f"{shown} holds {taken[0]}, which would be replaced, and no {marker} of an earlier "
            "run. Choose another folder with -o."
        )


def _refuse_inputs(root: Path, names: Collection[str], inputs: Sequence[Path | None]) -> None:
    replaced = [root / name for name in names]
    for path in inputs:
        if path is None:
            continue
        real = follow_links(path)
        if any(real == result or result in real.parents for result in replaced):
            raise InputError(
                f"{path} is an input, and the results would replace it. Choose another folder "
                "with -o."
            )


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
