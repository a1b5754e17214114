"""The settings of a job, and the file in its results that records them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import msgspec

from vditrack.annotation.specification import Specification
from vditrack.input_checks.files import MAX_JSON_SIZE, MalformedError, decode_json, read_file

JOB_FILE = "job.json"
"""File of the settings, in the folder of a job's results."""
TRACKS, THUMBNAILS, MASKS = "tracks", "thumbnails", "masks"
"""Folders of the results."""
FormatName = Literal["hdf5", "mcap", "rerun"]
"""A format that is written beside Parquet, and the folder of its files in the results."""
FORMATS: tuple[FormatName, ...] = get_args(FormatName)


class Settings(msgspec.Struct, frozen=True):
    """What decides about the results of a job, beside the recordings."""

    bundle_sha256: str
    """Digest of the bundle's manifest, which has the digests of all its files."""
    backend: str
    """Backend that was asked for."""
    specification: Specification


def read_settings(folder: Path) -> Settings:
    """Return the settings of the job whose results are in a folder.

    Raises:
        OSError: The file of the settings cannot be read.
        MalformedError: It is another file of this name.

    """
    return decode_settings(read_file(folder / JOB_FILE, MAX_JSON_SIZE))


def decode_settings(content: bytes) -> Settings:
    """Return the settings that a file of them has.

    Raises:
        MalformedError: It is another file.

    """
    return decode_json(content, Settings)


def has_results(folder: Path) -> bool:
    """Return whether the results of a job are in a folder."""
    try:
        read_settings(folder)
    except (OSError, MalformedError):
        return False
    return True
