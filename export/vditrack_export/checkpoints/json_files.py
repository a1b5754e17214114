"""JSON files of a checkpoint."""

import json
from pathlib import Path
from typing import Any

from vditrack.errors import InputError


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: The file is not one.

    """
    try:
        content = json.loads(path.read_bytes())
    except RecursionError as error:
        raise InputError(f"{path} is nested too deeply to be read. Copy it again.") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}. Copy it again.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a JSON object. Copy it again.")
    return content
