"""JSON files of a checkpoint."""

from pathlib import Path
from typing import Any

from vditrack.errors import InputError
from vditrack.input_checks.files import MAX_JSON_SIZE, MalformedError, decode_json, read_file
from vditrack_export.checkpoints.file_checks import check_file


def read_json(path: Path, root: Path | None = None) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: The file.
        root: Folder that it has to lie in; by default its own.

    Raises:
        InputError: It is not a JSON object, or it is refused by `check_file`.

    """
    check_file(path, root or path.parent)
    try:
        return decode_json(read_file(path, MAX_JSON_SIZE), dict[str, Any])
    except MalformedError as error:
        raise InputError(f"{path} is not a JSON object: {error}. Copy it again.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
