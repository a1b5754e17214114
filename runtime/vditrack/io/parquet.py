"""Imports pyarrow, which reads and writes Parquet."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from vditrack.errors import InputError, install_command


def import_pyarrow() -> tuple[Any, Any]:
    """Import pyarrow and pyarrow.parquet, optional dependencies of the runtime.

    Raises:
        InputError: They are not installed or cannot be imported.

    """
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise InputError(
            f"pyarrow, which reads and writes Parquet, cannot be imported ({error}). "
            f"Run `{install_command('annotate')}`."
        ) from error
