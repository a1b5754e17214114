"""Models in the format of diffusers' ``save_pretrained``: configuration and weight files."""

from __future__ import annotations

import re
from pathlib import Path

from torch import nn

from vditrack.errors import InputError
from vditrack_export.checkpoints.dequantised import DequantisedWeights
from vditrack_export.checkpoints.file_checks import check_file
from vditrack_export.checkpoints.json_files import read_json
from vditrack_export.checkpoints.loading import check_config
from vditrack_export.checkpoints.quantisation import check_quantisation
from vditrack_export.checkpoints.stored_tensors import PickledFiles, SafetensorsFiles
from vditrack_export.checkpoints.weight_choice import (
    DIFFUSERS,
    WeightFile,
    choose_weights,
    list_weights,
)
from vditrack_export.checkpoints.weights import Config, StoredModel

CONFIG = "config.json"
_PLAIN = f"{DIFFUSERS[0]}.safetensors"
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.(?:safetensors|bin)")


def open_folder(
    checkpoint: Path,
    component: str,
    model_class: type[nn.Module],
    expected: Config,
    variant: str | None = None,
) -> StoredModel:
    """Open a model in a folder of a diffusers pipeline.

    Args:
        checkpoint: Folder of the pipeline.
        component: Name of the model's folder in it.
        model_class: Class in diffusers.
        expected: Entries of the configuration that the card determines.
        variant: The variant of the weights that is preferred, such as ``fp16``, if any.

    Raises:
        InputError: A file is missing or damaged, the configuration differs from the card's, or
            the weights are quantised.

    """
    folder = checkpoint / component
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    chosen = _choose_file(folder, names, variant)
    missing = [
        name
        for name, there in ((CONFIG, CONFIG in names), (_PLAIN, chosen is not None))
        if not there
    ]
    if missing or chosen is None:
        raise _missing(checkpoint, component, missing)
    config_file = folder / CONFIG
    config = read_json(config_file, checkpoint)
    check_config(config_file, config, model_class, expected)
    check_quantisation(config_file, config)
    files = _list_files(checkpoint, folder, chosen)
    read_files = PickledFiles if chosen.format == "bin" else SafetensorsFiles
    weights = DequantisedWeights(read_files(files))
    return StoredModel(
        folder,
        config,
        weights,
        config_files=(config_file,),
        kinds=weights.kinds(weights.shapes()),
        variant=chosen.variant,
        notes=_describe_choice(component, chosen, names, variant),
    )


def _choose_file(folder: Path, names: set[str], variant: str | None) -> WeightFile | None:
    try:
        return choose_weights(names, DIFFUSERS, variant)
    except InputError as error:
        raise InputError(f"{folder}: {error}") from error


def _missing(checkpoint: Path, component: str, names: list[str]) -> InputError:
    """Return the refusal of a folder that lacks files, with what may have been meant."""
    lacks = ", ".join(f"{component}/{name}" for name in names)
    remedy = "Copy the whole of it."
    nested = sorted(path.parent for path in checkpoint.glob(f"*/{component}") if path.is_dir())
    if len(nested) == 1:
        remedy = f"Give {nested[0]}, which has {component}/."
    return InputError(f"checkpoint {checkpoint} lacks {lacks}. {remedy}")


def _list_files(checkpoint: Path, folder: Path, chosen: WeightFile) -> tuple[Path, ...]:
    """Return the weight files of a model: one, or those that its index names."""
    path = folder / chosen.name
    if not chosen.is_index:
        check_file(path, checkpoint)
        return (path,)
    files = tuple(folder / part for part in _list_parts(path, checkpoint))
    missing = [file for file in files if not file.exists() and not file.is_symlink()]
    if missing:
        names = ", ".join(str(file.relative_to(checkpoint)) for file in missing)
        raise InputError(f"checkpoint {checkpoint} lacks {names}. Copy the whole of it.")
    for file in files:
        check_file(file, checkpoint)
    return files


def _list_parts(index: Path, checkpoint: Path) -> list[str]:
    """Return the names of the files that an index lists, which have to lie beside it."""
    places = read_json(index, checkpoint).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise InputError(f"{index} is not an index of weights. Copy it again.")
    parts: set[str] = set()
    for part in places.values():
        if not isinstance(part, str) or not _PART.fullmatch(part):
            raise InputError(
                f"{index} names {ascii(part)[:100]} as a file, which is no file of weights beside "
                "it. Take the checkpoint from a source that you trust."
            )
        parts.add(part)
    return sorted(parts)


def _describe_choice(
    component: str, chosen: WeightFile, names: set[str], variant: str | None
) -> tuple[str, ...]:
    """Return a note if a variant was chosen, or could be."""
    others = sorted({file.variant for file in list_weights(names, DIFFUSERS)} - {chosen.variant})
    if not (others or chosen.variant or variant):
        return ()
    note = f"{component}: weights are read from {chosen.name}"
    if variant is not None and chosen.variant != variant:
        note += f"; there is no variant {variant}"
    elif variant is None and others:
        options = ", ".join(f"--variant {other}" for other in others if other)
        note += f"; there is also {options}" if options else ""
    return (note,)
