"""Verdicts on the tracks of builds and of INT8 graphs, in the user's cache folder.

The verdict on a build is there if a signature is required. No signature covers the one in a build's
identity, because each machine writes its own: whoever can write to the bundle could forge one, and
so switch a build off or skip the comparison.
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
_NOT_STORED = "%s: the verdict on its tracks is not stored: %s"


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
    return msgspec.structs.replace(identity, verified=load_verdict(build_digest(identity)))


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
        elif identity.verified is not None:
            store_verdict(build_digest(identity), identity.verified, folder.name)
    except (OSError, InputError) as error:
        _LOG.warning(_NOT_STORED, folder.name, error)


def store_verdict(digest: str, verified: Verification, subject: str) -> None:
    """Store a verdict in the user's cache folder; if that fails, log a warning instead.

    Args:
        digest: Of all that the verdict depends on.
        verified: The verdict.
        subject: What was compared, for the warning.

    """
    path = _verdict_path(digest)
    if path is None:
        return
    try:
        with staged_file(path) as staged:
            staged.write_bytes(msgspec.json.encode(verified) + b"\n")
    except (OSError, InputError) as error:
        _LOG.warning(_NOT_STORED, subject, error)


def _verdict_path(digest: str) -> Path | None:
    """Return the file of a verdict; None if there is no home folder."""
    caches = cache_folder()
    return None if caches is None else caches / "verdicts" / f"{digest}.json"


def load_verdict(digest: str) -> Verification | None:
    """Return the verdict that this user's cache folder has for a digest; None if it has none."""
    path = _verdict_path(digest)
    try:
        # A file of another user could hold a forged verdict.
        if path is None or (hasattr(os, "getuid") and path.lstat().st_uid != os.getuid()):
            return None
        return decode_json(read_file(path, _MAX_SIZE, follow_links=False), Verification)
    except (OSError, MalformedError):
        return None
