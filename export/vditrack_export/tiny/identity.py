"""What a run depends on, so that it is not continued as another one."""

import json
from collections.abc import Mapping
from pathlib import Path

from vditrack.atomic_files import staged_file
from vditrack.errors import InputError

_FILE = "run.json"


def keep_identity(folder: Path, identity: Mapping[str, str]) -> None:
    """Write what a new run depends on, or compare it with what an earlier run wrote.

    Args:
        folder: the folder of the run; it is made.
        identity: what the results depend on, by the names that the user knows.

    Raises:
        InputError: The folder has a run that depends on something else, or cannot be written.

    """
    path = folder / _FILE
    if not path.exists():
        with staged_file(path) as scratch:
            scratch.write_text(json.dumps(dict(identity), indent=2) + "\n")
        return
    try:
        earlier = json.loads(path.read_text())
        changed = [name for name, value in identity.items() if earlier[name] != value]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is damaged. Remove {folder} to begin again, or choose another folder."
        ) from error
    if changed:
        raise InputError(
            f"{folder} holds a run with other {' and '.join(changed)}. Give those of that run to "
            "continue it, or choose another folder."
        )
