"""Checkpoints that are not one folder of diffusers: original repositories, and single files."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from vditrack.errors import InputError
from vditrack_export.checkpoints.diffusers_folder import open_folder
from vditrack_export.checkpoints.file_checks import check_file
from vditrack_export.checkpoints.model_file import (
    INDEX,
    SUFFIXES,
    ModelFile,
    examine_file,
    list_parts,
)
from vditrack_export.checkpoints.weights import Config, StoredModel

VAE = "vae"
_OPTIONS = {VAE: "--vae"}
"""Option that gives a model a file of its own; that of all others is ``--transformer``."""


def open_model(
    path: Path, model_class: type[nn.Module], expected: Config, config_folder: Path | None
) -> StoredModel:
    """Open a model in a file, or in a folder as diffusers saves a model.

    Args:
        path: The file or folder.
        model_class: Class in diffusers.
        expected: Entries of the configuration that the card determines.
        config_folder: Folder that may have the model's configuration, if none lies beside the file.

    Raises:
        InputError: There is none, it is damaged, or it is not the card's model.

    """
    if path.is_dir():
        return open_folder(path.absolute().parent, path.absolute().name, model_class, expected)
    if not path.is_file():
        raise InputError(f"there is no file or folder {path}.")
    return examine_file(path, model_class, expected, config_folder).stored()


def find_model(
    folder: Path, component: str, model_class: type[nn.Module], expected: Config
) -> StoredModel | None:
    """Find a model among the files of a folder, such as that of an original repository.

    Args:
        folder: The folder; the folders in it are not searched.
        component: Name of the model in a pipeline of diffusers.
        model_class: Class in diffusers.
        expected: Entries of the configuration that the card determines.

    Returns:
        The model; None if the folder has no files of weights.

    Raises:
        InputError: No file has this model, or several have it.

    """
    option, kind = _OPTIONS.get(component, "--transformer"), model_class.__name__
    candidates, damaged = [], None
    for path in _list_candidates(folder):
        try:
            check_file(path, folder)
            candidates.append(examine_file(path, model_class, expected, None))
        except InputError as error:
            damaged = damaged or error
    complete = [file for file in candidates if file.fit.complete]
    if len(complete) > 1:
        names = ", ".join(file.path.name for file in complete)
        raise InputError(
            f"{folder} has several files with a {kind}: {names}. Choose one with {option}."
        )
    for file in (*complete, *_recognised(candidates)):
        return file.stored()
    if damaged is not None:
        raise damaged
    if not candidates:
        return None
    above = folder.absolute().parent
    remedy = f"Give it with {option}"
    if (above / component).is_dir():
        remedy += f", or give {above}, which has {component}/"
    raise InputError(
        f"checkpoint {folder} lacks the {kind}: there is no folder {component}/, and none of its "
        f"files ({', '.join(file.path.name for file in candidates)}) has it by names that "
        f"diffusers knows. {remedy}."
    )


def _recognised(candidates: list[ModelFile]) -> list[ModelFile]:
    return [file for file in candidates if file.fit.recognised]


def _list_candidates(folder: Path) -> list[Path]:
    """Return the files of weights in a folder; for a model in parts, its index."""
    indices = sorted(folder.glob(f"*{INDEX}"))
    parts = {part for index in indices for part in list_parts(index)}
    files = {path for suffix in SUFFIXES for path in folder.glob(f"*{suffix}")}
    return [*indices, *sorted(files - parts)]
