"""Reads manifests: files that list recordings, their topics and ranges."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import msgspec

from vditrack.errors import InputError
from vditrack.input_checks.arrays import check_time_range
from vditrack.input_checks.files import MalformedError, decode_json

MANIFEST_SUFFIXES = frozenset({".txt", ".csv", ".jsonl"})


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A recording in a manifest."""

    path: str
    topic: str | None = None
    """Image topic of a bag or camera of a LeRobot data set; None for each of them."""
    start: float = 0.0
    """Seconds after the first frame."""
    end: float | None = None
    """Seconds after the first frame; None for the end."""
    episode: int | None = None
    """Episode of a data set; None for each of them."""


def read_manifest(name: str, content: bytes) -> Iterator[Entry]:
    """Yield the recordings that a manifest lists.

    Args:
        name: Path or address of the manifest. `.txt` has a path a line, exactly as it is; lines
            that begin with ``#`` are notes. `.csv` has a header, `.jsonl` an object a line, with
            the fields of `Entry`.
        content: What is in the file.

    Raises:
        InputError: The manifest cannot be read, lists nothing, or a line is not valid or has
            other columns.

    """
    suffix = Path(name).suffix.lower()
    try:
        # Paths need not be UTF-8.
        errors = "surrogateescape" if suffix == ".txt" else "strict"
        text = content.decode("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        raise InputError(f"the manifest {name} cannot be read: {error}.") from error
    read = {".csv": _read_csv, ".jsonl": _read_jsonl}.get(suffix, _read_paths)
    count = 0
    for number, entry in read(name, text):
        try:
            check_time_range(entry.start, entry.end)
        except InputError as error:
            raise InputError(f"{name}, line {number}: {error}") from error
        if "\0" in entry.path or not entry.path:
            raise InputError(f"{name}, line {number}: {entry.path!r} is not a path.")
        count += 1
        yield entry
    if not count:
        raise InputError(f"the manifest {name} lists no recording.")


def _read_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, with their numbers."""
    # Names and JSON may have other characters that `str.splitlines` takes for ends of lines.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.removesuffix("\r")


def _read_paths(_name: str, text: str) -> Iterator[tuple[int, Entry]]:
    for number, line in _read_lines(text):
        if not line.startswith("#"):
            yield number, Entry(line)


def _read_jsonl(name: str, text: str) -> Iterator[tuple[int, Entry]]:
    for number, line in _read_lines(text):
        try:
            yield number, decode_json(line.encode(), Entry)
        except MalformedError as error:
            raise InputError(f"{name}, line {number}: {error}.") from error


def _read_csv(name: str, text: str) -> Iterator[tuple[int, Entry]]:
    rows = csv.reader(StringIO(text, newline=""), skipinitialspace=True)
    try:
        names = [column.strip() for column in next(rows, [])]
        _check_header(name, names)
        for row in rows:
            if any(cell.strip() for cell in row):
                yield rows.line_num, _convert_row(names, row)
    except (csv.Error, msgspec.ValidationError) as error:
        raise InputError(f"{name}, line {rows.line_num}: {error}.") from error


def _check_header(name: str, names: list[str]) -> None:
    known = Entry.__struct_fields__
    other = [column for column in names if column not in known or names.count(column) > 1]
    if "path" not in names:
        fault = "the header has no column path"
    elif other:
        fault = f"the header has the column {other[0]!r}, which is repeated or not known"
    else:
        return
    raise InputError(f"{name}, line 1: {fault}. Give path and, if needed, topic, start and end.")


def _convert_row(names: list[str], row: list[str]) -> Entry:
    if any(cell.strip() for cell in row[len(names) :]):
        raise msgspec.ValidationError(f"it has {len(row)} values for {len(names)} columns")
    # An empty value is the default.
    filled = {name: cell.rstrip(" ") for name, cell in zip(names, row, strict=False)}
    return msgspec.convert(
        {name: cell for name, cell in filled.items() if cell}, Entry, strict=False
    )
