"""One model in a file of its own, or in a file with other models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from vditrack.errors import InputError
from vditrack_export.checkpoints.dequantised import DequantisedWeights
from vditrack_export.checkpoints.file_checks import check_file
from vditrack_export.checkpoints.gguf_file import GgufFile
from vditrack_export.checkpoints.json_files import read_json
from vditrack_export.checkpoints.loading import check_config, default_config
from vditrack_export.checkpoints.original_names import (
    Fit,
    Shapes,
    describe_misfit,
    fit_names,
    is_convertible,
)
from vditrack_export.checkpoints.stored_tensors import PickledFiles, SafetensorsFiles, StoredTensors
from vditrack_export.checkpoints.weights import Config, StoredModel

CONFIG = "config.json"
INDEX = ".safetensors.index.json"
"""End of the name of a file that lists the parts of a model."""
SUFFIXES = (".safetensors", ".gguf", ".pt", ".pth", ".ckpt", ".bin")
"""Ends of the names of files with weights."""


@dataclass(frozen=True)
class ModelFile:
    """A file, looked at for one model."""

    path: Path
    """The file, or the index of several."""
    model_class: type[nn.Module]
    """Class in diffusers."""
    config: Config
    """Configuration of the model."""
    config_files: tuple[Path, ...]
    """File that it is read from, if there is one."""
    fit: Fit
    """How its tensors fit the model."""
    shapes: Shapes
    """All tensors of the file."""

    def stored(self) -> StoredModel:
        """Return the model.

        Raises:
            InputError: The file has no such model, or not the card's.

        """
        if not self.fit.complete:
            raise InputError(describe_misfit(self.path, self.fit, self.model_class, self.shapes))
        if not self.config_files:
            self._check_defaults()
        weights = self.fit.weights
        return StoredModel(self.path, self.config, weights, self.config_files, weights.kinds())

    def _check_defaults(self) -> None:
        """Check that the model is one whose class has the values of its checkpoint as defaults."""
        kind, remedy = self.model_class.__name__, f"Put the {CONFIG} of diffusers beside it."
        if not is_convertible(self.model_class):
            raise InputError(
                f"{self.path} has no configuration, and a {kind} cannot do without. {remedy}"
            )
        channels = self.config.get("z_dim")
        statistics = default_config(self.model_class).get("latents_mean")
        if channels is not None and statistics is not None and len(statistics) != channels:
            raise InputError(
                f"{self.path} has no configuration, which has the means of its {channels} channels "
                f"of latents. {remedy}"
            )


def examine_file(
    path: Path, model_class: type[nn.Module], expected: Config, config_folder: Path | None
) -> ModelFile:
    """Look for a model in a file; only names, shapes and the scales of weights are read.

    Args:
        path: The file, or the index of several.
        model_class: Class in diffusers.
        expected: Entries of the configuration that the card determines.
        config_folder: Folder that may have the model's configuration, if none lies beside the file.

    Raises:
        InputError: The file is damaged, or a configuration is not the card's.

    """
    stored = DequantisedWeights(open_tensors(path))
    config, files = _find_config(path, model_class, expected, config_folder)
    wanted = _model_shapes(path, model_class, config)
    fit = fit_names(stored, model_class, config, wanted)
    return ModelFile(path, model_class, config, files, fit, stored.shapes())


def open_tensors(path: Path) -> StoredTensors:
    """Open a file with tensors.

    Raises:
        InputError: It is damaged, or of an unknown kind.

    """
    if not path.name.endswith((INDEX, *SUFFIXES)):
        raise InputError(
            f"{path} is not a file of weights that vditrack reads. Their names end in "
            f"{', '.join(SUFFIXES)}, or in {INDEX} for a model in parts."
        )
    # A user may name a link; parts that an index names may not lead elsewhere.
    check_file(path, path.resolve().parent)
    if path.name.endswith(INDEX):
        parts = list_parts(path)
        for part in parts:
            check_file(part, path.parent)
        return SafetensorsFiles(parts)
    if path.suffix == ".safetensors":
        return SafetensorsFiles([path])
    if path.suffix == ".gguf":
        return GgufFile(path)
    return PickledFiles([path])


def list_parts(index: Path) -> list[Path]:
    """Return the files that an index lists.

    Raises:
        InputError: It is damaged, names a file in another folder, or a file is missing.

    """
    places = read_json(index).get("weight_map")
    names = sorted(set(map(str, places.values()))) if isinstance(places, dict) else []
    if not names or any(Path(name).name != name for name in names):
        raise InputError(f"{index} is not an index of weights in its folder. Copy it again.")
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise InputError(f"{index.parent} lacks {', '.join(missing)}. Copy the whole of it.")
    return [index.parent / name for name in names]


def _find_config(
    path: Path, model_class: type[nn.Module], expected: Config, folder: Path | None
) -> tuple[Config, tuple[Path, ...]]:
    """Return the configuration of a model in a file, and the file that it is read from."""
    for place in filter(None, (path.parent, folder)):
        file = place / CONFIG
        # Original repositories have files of this name too.
        if file.is_file() and read_json(file).get("_class_name") == model_class.__name__:
            config = read_json(file)
            check_config(file, config, model_class, expected)
            return config, (file,)
    return {"_class_name": model_class.__name__, **expected}, ()


def _model_shapes(path: Path, model_class: type[nn.Module], config: Config) -> Shapes:
    """Return the shapes of the tensors of a model."""
    try:
        with torch.device("meta"):
            model = model_class.from_config(config)  # type: ignore[attr-defined]
    # Configurations fail in as many ways as they have fields.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} does not load: {reason}") from error
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
