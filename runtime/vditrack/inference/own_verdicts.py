"""Verdicts on the tracks of builds, where a signature is required: in the user's cache folder.

No signature covers the verdict in a build's identity, because each machine writes its own. Whoever
can write to the bundle could forge one, and so switch a build off or skip the comparison.
"""

import logging
import os
from pathlib import Path

import msgspec

from vditrack.atomic_files import staged_file
from vditrack.bundle.digest_cache import cache_folder
from vditrack.bundle.folder import Bundle
from vditrack.errors import InputError
from vditrack.inference.engine_identity import (
    Identity,
    Verification,
    build_digest,
    load_identity,
    write_identity,
)
from vditrack.input_checks.files import MalformedError, decode_json, read_file

_MAX_SIZE = 1 << 16
_LOG = logging.getLogger("vditrack")


def load_believed_identity(folder: Path, bundle: Bundle) -> Identity:
    """Return the identity of a build, with a verdict that can be believed, or none.

    Args:
        folder: Folder of the build.
        bundle: Its bundle. If a signature is required, the verdict is the one that this user's
            cache folder has.

    Raises:
        EngineError: The build is damaged, or not signed as the bundle has to be.

    """
    identity = load_identity(folder, bundle.key)
    if bundle.key is None:
        return identity
    return msgspec.structs.replace(identity, verified=_read_verdict(identity))


def record_verdict(folder: Path, bundle: Bundle, identity: Identity) -> None:
    """Store the verdict of an identity; if that fails, log a warning instead.

    Args:
        folder: Folder of the build, which gets the verdict unless a signature is required.
        bundle: Its bundle.
        identity: Identity of the build, with the verdict.

    """
    try:
        if bundle.key is None:
            write_identity(folder, identity)
        elif (path := _verdict_path(identity)) is not None:
            with staged_file(path) as staged:
                staged.write_bytes(msgspec.json.encode(identity.verified) + b"\n")
    except (OSError, InputError) as error:
        _LOG.warning("%s: the verdict on its tracks is not stored: %s", folder.name, error)


def _verdict_path(identity: Identity) -> Path | None:
    """Return the file of a build's verdict; None if there is no home folder."""
    caches = cache_folder()
    return None if caches is None else caches / "verdicts" / f"{build_digest(identity)}.json"


def _read_verdict(identity: Identity) -> Verification | None:
    path = _verdict_path(identity)
    try:
        # A file of another user could hold a forged verdict.
        if path is None or (hasattr(os, "getuid") and path.lstat().st_uid != os.getuid()):
            return None
        return decode_json(read_file(path, _MAX_SIZE, follow_links=False), Verification)
    except (OSError, MalformedError):
        return None
