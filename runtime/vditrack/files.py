"""Writing results so that nothing half-written is ever left under the name asked for."""

import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from vditrack.errors import InputError


@contextmanager
def staged_folder(destination: Path, replaceable: Collection[str]) -> Iterator[Path]:
    """Yield a scratch folder beside ``destination`` that takes its name when the block succeeds.

    An existing ``destination`` is replaced only then, and only if it holds nothing but files of
    the ``replaceable`` names; when the block raises, it is left as it was and the scratch folder
    is removed.

    Raises:
        InputError: the parent of ``destination`` cannot be written, or there is something at
            ``destination`` that this command did not write.

    """
    _refuse_foreign(destination, replaceable)
    scratch = _scratch_beside(destination)
    try:
        yield scratch
        if destination.exists():
            replaced = _scratch_beside(destination)
            destination.rename(replaced / "old")
            scratch.rename(destination)
            shutil.rmtree(replaced)
        else:
            scratch.rename(destination)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def staged_file(destination: Path) -> Iterator[Path]:
    """Yield a scratch path with the suffix of ``destination`` that replaces it on success."""
    scratch = _scratch_beside(destination)
    try:
        yield scratch / destination.name
        (scratch / destination.name).replace(destination)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _refuse_foreign(destination: Path, replaceable: Collection[str]) -> None:
    if not destination.exists():
        return
    if not destination.is_dir():
        raise InputError(f"{destination} is a file. Choose another folder with -o.")
    foreign = sorted({path.name for path in destination.iterdir()} - set(replaceable))
    if foreign:
        raise InputError(
            f"{destination} holds other files ({foreign[0]}) and will not be replaced. "
            "Choose another folder with -o."
        )


def _scratch_beside(destination: Path) -> Path:
    parent = destination.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=parent))
        scratch.chmod(0o755)
    except OSError as error:
        raise InputError(
            f"cannot write in {parent}: {error.strerror}. Choose another -o."
        ) from error
    return scratch
