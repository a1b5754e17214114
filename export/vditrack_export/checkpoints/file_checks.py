"""Checks of a checkpoint's files before they are read: kind, place, and signs of a failed copy."""

from pathlib import Path

from vditrack.errors import InputError
from vditrack.input_checks.files import RefusedFileError, open_regular_file

_LFS_POINTER = b"version https://git-lfs"
_WEB_PAGE = b"<!doctype", b"<html"
_START = 32


def check_file(path: Path, root: Path) -> None:
    """Check that a file lies in its folder and is more than a placeholder.

    A link is followed if its target lies in the folder, or if the folder is a snapshot in the cache
    of the Hugging Face Hub and the target one of its blobs.

    Args:
        path: The file.
        root: Folder that it has to lie in; itself it may be a link.

    Raises:
        InputError: The file is missing, lies elsewhere, is no regular file, is empty, or is what a
            failed copy leaves: a pointer of Git LFS or a web page.

    """
    try:
        target = path.resolve(strict=True)
    except FileNotFoundError as error:
        raise _missing(path) from error
    # A link that leads to itself.
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{path} is a link that leads nowhere. Copy the checkpoint again."
        ) from error
    if not _lies_within(target, root.resolve()):
        raise InputError(
            f"{path} leads to {target}, outside of the checkpoint. Copy the file itself there."
        )
    try:
        with open_regular_file(path) as file:
            start = file.read(_START)
    except RefusedFileError as error:
        raise InputError(f"{path} is refused: {error.strerror}.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    _check_start(path, start)


def _missing(path: Path) -> InputError:
    if path.is_symlink():
        return InputError(
            f"{path} is a link to a file that is missing. Download or copy the checkpoint again."
        )
    return InputError(f"{path} is missing. Copy the whole of the checkpoint.")


def _lies_within(target: Path, root: Path) -> bool:
    if target.is_relative_to(root):
        return True
    # models--ORG--NAME/snapshots/REVISION/..., with links to models--ORG--NAME/blobs/DIGEST.
    for folder in (root, *root.parents):
        if folder.parent.name == "snapshots":
            return target.parent == folder.parent.parent / "blobs"
    return False


def _check_start(path: Path, start: bytes) -> None:
    if not start:
        raise InputError(f"{path} is empty: its download did not end. Copy it again.")
    if start.startswith(_LFS_POINTER):
        raise InputError(
            f"{path} is a pointer of Git LFS, not the file itself. Run `git lfs pull` in the "
            "folder of the checkpoint."
        )
    if start.lstrip().lower().startswith(_WEB_PAGE):
        raise InputError(
            f"{path} is a web page, not a file of the checkpoint: the download failed, perhaps "
            "because it needs a login. Download it with `hf download`."
        )
