"""Atomic writing of files and folders: an unfinished result never has its final name.

Scratch folders lie inside the folder that the result is written to, so a result is moved to its
place by renaming, also where that folder is a mount point, the current folder or a link. Only a
bundle's folder that does not exist yet appears as a whole.
"""

import errno
import secrets
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from vditrack.errors import InputError

_SCRATCH = ".vditrack-"
"""Beginning of the names of scratch folders."""
_SYSTEM_NAMES = frozenset({"lost+found", "$RECYCLE.BIN", "System Volume Information"})
"""Names that a file system has in its root folder, which are no files of the user."""
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def staged_folder(destination: Path, replaceable: Collection[str]) -> Iterator[Path]:
    """Yield a scratch folder whose content becomes that of ``destination`` when the block succeeds.

    What an existing ``destination`` holds is replaced only then, and only if all files in it have
    ``replaceable`` names. Names that begin with a dot do not count, and such files stay. If the
    block raises, ``destination`` is left as it was and the scratch folder is removed.

    Raises:
        InputError: ``destination`` cannot be written, it holds files with other names, or the disk
            is full.

    """
    root = _follow_links(destination)
    if _is_folder(root, destination):
        _refuse_foreign(root, replaceable, destination)
        with _scratch_in(root, destination) as scratch, _explaining_full_disk(destination):
            yield scratch
            with _keeping(scratch, destination):
                _replace_content(root, scratch, replaceable)
        return
    with (
        _parents_of(root, destination),
        _scratch_in(root.parent, destination) as scratch,
        _explaining_full_disk(destination),
    ):
        yield scratch
        with _keeping(scratch, destination):
            if root.is_dir():
                # Another process made it meanwhile.
                _replace_content(root, scratch, replaceable)
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
    path = _require_file_name(destination)
    with (
        _parents_of(path, destination) if make_folders else nullcontext(),
        _scratch_in(path.parent, destination) as scratch,
        _explaining_full_disk(destination),
    ):
        yield scratch / path.name
        with _keeping(scratch, destination):
            _replace_file(scratch / path.name, path)


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
        with _scratch_in(self._root, self._root) as scratch, _explaining_full_disk(self._root):
            (scratch / name).mkdir()
            yield scratch / name
            with _keeping(scratch, self._root / name):
                self._remove_earlier_results(name)
                _replace_content(self._root, scratch, {name})

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

    Other files in the folder stay as they are. If the block raises before there is a result, a
    folder that was made for it is removed.

    Args:
        destination: The folder.
        names: Names of all results; those of an earlier run are replaced.
        marker: The result that every run writes. Beside other files, results are replaced only if
            this one is there; otherwise they may be the user's own files of the same names.
        inputs: Files that the run reads, which no result may replace.

    Raises:
        InputError: The folder cannot be written, an input would be replaced, or there is a file
            that may not be replaced.

    """
    root = _follow_links(destination)
    _refuse_inputs(root, names, inputs)
    if _is_folder(root, destination):
        _refuse_unmarked(root, names, marker, destination)
    with _parents_of(root / marker, destination):
        with _scratch_in(root, destination):
            pass
        yield ResultsFolder(root, names)


def check_file_destination(destination: Path) -> None:
    """Check that a file can be written, before the work that it is to hold the result of.

    Raises:
        InputError: It is a folder or a device, or its folder cannot be written.

    """
    # Folders that do not exist are made when the file is written.
    folder = _require_folder(_find_existing(_require_file_name(destination).parent), destination)
    with _scratch_in(folder, destination):
        pass


def check_folder_destination(destination: Path) -> None:
    """Check that files can be made in a folder, before the work that gives their content.

    Raises:
        InputError: It is a file, or it cannot be written.

    """
    existing = _find_existing(_follow_links(destination))
    with _scratch_in(_require_folder(existing, destination), destination):
        pass


def list_foreign(folder: Path, expected: Collection[str]) -> list[str]:
    """Return the names in a folder that are not expected, sorted.

    Names that begin with a dot, and those that a file system makes itself, do not count.

    Raises:
        InputError: The folder cannot be read.

    """
    return _list_foreign(folder, expected, folder)


def remove_folder(folder: Path) -> None:
    """Remove a folder that others may read: its name is gone before the first of its files is.

    Raises:
        OSError: It cannot be removed, or it was removed by another process.

    """
    with _scratch_in(folder.parent, folder) as scratch:
        folder.rename(scratch / folder.name)


def check_disk_space(destination: Path, wanted: float, what: str, remedy: str) -> None:
    """Check that the disk has room for a result.

    Args:
        destination: The file or folder of the result, which need not exist.
        wanted: Size of the result, in bytes.
        what: The result, for the message.
        remedy: What to do, for the message.

    Raises:
        InputError: The disk is too small.

    """
    free = shutil.disk_usage(_find_existing(_follow_links(destination))).free
    if wanted > free:
        raise InputError(
            f"{what} takes about {wanted / 1e9:.3g} GB, and {destination} has {free / 1e9:.3g} GB "
            f"free. {remedy}"
        )


def _follow_links(path: Path) -> Path:
    """Return the absolute path that a path names, also if it does not exist."""
    try:
        return path.absolute().resolve()
    # Links in a circle.
    except (OSError, RuntimeError) as error:
        raise _cannot_write(path, error) from error


def _find_existing(path: Path) -> Path:
    """Return the path, or the lowest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _require_folder(path: Path, shown: Path) -> Path:
    if not path.is_dir():
        raise InputError(f"cannot write in {shown}: {path} is a file. Choose another -o.")
    return path


def _require_file_name(destination: Path) -> Path:
    """Return the absolute path of a file that can be replaced, whether it exists or not."""
    path = _follow_links(destination)
    if path.is_dir():
        raise InputError(f"{destination} is a folder. Give the name of a file.")
    if path.exists() and not path.is_file():
        raise InputError(f"{destination} is not a regular file. Give the name of another file.")
    return path


def _is_folder(path: Path, shown: Path) -> bool:
    try:
        exists = path.exists()
    except OSError as error:
        raise _cannot_write(shown, error) from error
    if exists and not path.is_dir():
        raise InputError(f"{shown} is a file. Choose another folder with -o.")
    return exists


def _refuse_foreign(root: Path, replaceable: Collection[str], shown: Path) -> None:
    foreign = _list_foreign(root, replaceable, shown)
    if foreign:
        raise InputError(
            f"{shown} holds other files ({foreign[0]}) and will not be replaced. "
            "Choose another folder with -o."
        )


def _refuse_unmarked(root: Path, names: Collection[str], marker: str, shown: Path) -> None:
    foreign = _list_foreign(root, names, shown)
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
        real = _follow_links(path)
        if any(real == result or result in real.parents for result in replaced):
            raise InputError(
                f"{path} is an input, and the results would replace it. Choose another folder "
                "with -o."
            )


def _list_foreign(root: Path, expected: Collection[str], shown: Path) -> list[str]:
    try:
        found = {path.name for path in root.iterdir()}
    except OSError as error:
        raise _cannot_write(shown, error) from error
    foreign = found - set(expected) - _SYSTEM_NAMES
    return sorted(name for name in foreign if not name.startswith("."))


def _replace_content(root: Path, scratch: Path, replaceable: Collection[str]) -> None:
    """Move the content of a scratch folder into a folder, in place of what is replaceable there.

    If it fails, what was there before is brought back.
    """
    new = sorted(path.name for path in scratch.iterdir())
    with _scratch_in(root, root) as aside:
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


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _keeping(scratch: Path, shown: Path) -> Iterator[None]:
    """Keep the result under another name if it cannot be moved to its place."""
    try:
        yield
    except OSError as error:
        kept = scratch.with_name(f"vditrack-{secrets.token_hex(4)}")
        with suppress(OSError):
            kept = scratch.rename(kept)
            raise InputError(
                f"{shown} cannot be replaced ({error.strerror or error}). The result is in {kept}."
            ) from error
        raise


@contextmanager
def _explaining_full_disk(shown: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        raise InputError(
            f"{shown} cannot be written: {error.strerror}. Make room, or choose another -o."
        ) from error


@contextmanager
def _parents_of(path: Path, shown: Path) -> Iterator[None]:
    """Make the folders above a path; remove those that are still empty if the block raises."""
    _require_folder(_find_existing(path.parent), shown)
    missing = [folder for folder in path.parents if not folder.exists()]
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _cannot_write(shown, error) from error
        yield
    except BaseException:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()
        raise


@contextmanager
def _scratch_in(folder: Path, shown: Path) -> Iterator[Path]:
    """Yield a new folder in a folder, removed afterwards if it is still there."""
    # Named before it exists: an interrupt between its creation and the block would leave it behind.
    scratch = folder / f"{_SCRATCH}{secrets.token_hex(4)}"
    try:
        try:
            scratch.mkdir(mode=0o755)
        except OSError as error:
            raise _cannot_write(shown, error) from error
        yield scratch
    finally:
        try:
            shutil.rmtree(scratch, ignore_errors=True)
        except BaseException:
            # A second interrupt.
            shutil.rmtree(scratch, ignore_errors=True)
            raise


def _cannot_write(path: Path, error: Exception) -> InputError:
    reason = (error.strerror if isinstance(error, OSError) else None) or error
    return InputError(f"cannot write in {path}: {reason}. Choose another -o.")
