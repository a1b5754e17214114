"""Files and folders that appear, or replace earlier ones, when their content is complete."""

import errno
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from vditrack.atomic_files.paths import follow_links, is_folder, refuse_foreign, require_file_name
from vditrack.atomic_files.scratch import (
    explain_full_disk,
    keep_result,
    parent_folders,
    remove_dead_scratch,
    scratch_folder,
)


@contextmanager
def staged_folder(destination: Path, replaceable: Collection[str]) -> Iterator[Path]:
    """Yield a scratch folder whose content becomes that of ``destination`` when the block succeeds.

    What an existing ``destination`` holds is replaced only then, and only if all files in it have
    ``replaceable`` names. Names that begin with a dot do not count, and such files stay. If the
    block raises, ``destination`` is left as it was and the scratch folder is removed. Scratch that
    killed runs have left is removed before.

    Raises:
        InputError: ``destination`` cannot be written, it holds files with other names, or the disk
            is full.

    """
    root = follow_links(destination)
    # Before it existed, its scratch was there.
    remove_dead_scratch(root.parent)
    if is_folder(root, destination):
        refuse_foreign(root, replaceable, destination)
        remove_dead_scratch(root)
        with scratch_folder(root, destination) as scratch, explain_full_disk(destination):
            yield scratch
            with keep_result(scratch, destination):
                replace_content(root, scratch, replaceable)
        return
    with (
        parent_folders(root, destination),
        scratch_folder(root.parent, destination) as scratch,
        explain_full_disk(destination),
    ):
        yield scratch
        with keep_result(scratch, destination):
            if root.is_dir():
                # Another process made it meanwhile.
                replace_content(root, scratch, replaceable)
            else:
                scratch.rename(root)


@contextmanager
def staged_file(destination: Path, *, make_folders: bool = True) -> Iterator[Path]:
    """Yield a scratch path of the same file name that replaces ``destination`` on success.

    Args:
        destination: The file.
        make_folders: Whether to make the folders above it, if they do not exist.

    Raises:
        InputError: ``destination`` cannot be written, or the disk is full.

    """
    path = require_file_name(destination)
    with (
        parent_folders(path, destination) if make_folders else nullcontext(),
        scratch_folder(path.parent, destination) as scratch,
        explain_full_disk(destination),
    ):
        yield scratch / path.name
        with keep_result(scratch, destination):
            _replace_file(scratch / path.name, path)


def remove_folder(folder: Path) -> None:
    """Remove a folder that others may read: its name is gone before the first of its files is.

    Raises:
        OSError: It cannot be removed, or it was removed by another process.

    """
    with scratch_folder(folder.parent, folder) as scratch:
        folder.rename(scratch / folder.name)


def replace_content(root: Path, scratch: Path, replaceable: Collection[str]) -> None:
    """Move the content of a scratch folder into a folder, in place of what is replaceable there.

    If it fails, what was there before is brought back.
    """
    new = sorted(path.name for path in scratch.iterdir())
    with scratch_folder(root, root) as aside:
        moved: list[tuple[Path, Path]] = []

        def move(source: Path, target: Path) -> None:
            # Written down before: an interrupt may come between both.
            moved.append((source, target))
            _move(source, target)

        try:
            for name in sorted({*replaceable, *new}):
                if (root / name).exists() or (root / name).is_symlink():
                    move(root / name, aside / name)
            for name in new:
                move(scratch / name, root / name)
        except BaseException:
            for source, target in reversed(moved):
                if target.exists() and not source.exists():
                    _move(target, source)
            raise


def _move(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError as error:
        # Folders of the lower layer of an overlay file system, as in a container, are copied.
        if error.errno != errno.EXDEV:
            raise
        shutil.move(source, target)


def _replace_file(source: Path, target: Path) -> None:
    try:
        source.replace(target)
    except OSError:
        # A file that is a mount point can only be written in place.
        if not target.is_file():
            raise
        shutil.copyfile(source, target)
