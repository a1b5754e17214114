"""A checkpoint on disk, and the models in it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from torch import nn

from vditrack.errors import InputError
from vditrack_export.checkpoints.diffusers_folder import open_folder
from vditrack_export.checkpoints.mixed_checkpoint import VAE, find_model, open_model
from vditrack_export.checkpoints.model_file import examine_file
from vditrack_export.checkpoints.sources import Weights
from vditrack_export.checkpoints.weights import Config, StoredModel


class CheckpointFiles(Protocol):
    """The files of a checkpoint, whatever their form."""

    @property
    def root(self) -> Path:
        """Folder that the files of all models lie in; a tokenizer and a text encoder may too."""

    @property
    def opened(self) -> Sequence[StoredModel]:
        """Models that were opened."""

    @property
    def tiny_encoder(self) -> Path | None:
        """File or folder of the tiny encoder that stands in for the checkpoint's own."""

    def open(self, component: str, model_class: type[nn.Module], expected: Config) -> StoredModel:
        """Open a model; only its configuration and the shapes of its weights are read.

        Args:
            component: Name of the model in the pipeline, such as ``transformer`` or ``vae``.
            model_class: Class in diffusers.
            expected: Entries of the configuration that the card determines.

        Raises:
            InputError: The model is missing, damaged, or not the card's.

        """


class StoredCheckpoint:
    """Models in a folder of diffusers or of an original repository, or in files of their own.

    Args:
        weights: What the user names.

    """

    def __init__(self, weights: Weights) -> None:
        """Keep the paths; nothing is read."""
        self._weights = weights
        self._models: dict[str, StoredModel] = {}

    @property
    def root(self) -> Path:
        """Folder of the checkpoint; without one, that of the transformer."""
        path = self._weights.folder or self._weights.transformer
        assert path is not None
        return path if path.is_dir() else path.parent

    @property
    def opened(self) -> Sequence[StoredModel]:
        """Models that were opened."""
        return tuple(self._models.values())

    @property
    def tiny_encoder(self) -> Path | None:
        """File or folder of the tiny encoder that the user names."""
        return self._weights.tiny_encoder

    def open(self, component: str, model_class: type[nn.Module], expected: Config) -> StoredModel:
        """Open a model; see `CheckpointFiles.open`."""
        if component not in self._models:
            self._models[component] = self._open(component, model_class, expected)
        return self._models[component]

    def _open(self, component: str, model_class: type[nn.Module], expected: Config) -> StoredModel:
        folder = self._weights.folder
        given = self._weights.vae if component == VAE else self._weights.transformer
        config_folder = None if folder is None else folder / component
        if given is not None:
            return open_model(given, model_class, expected, config_folder)
        if folder is None:
            option = "--vae" if component == VAE else "--transformer"
            raise InputError(f"the {component} is missing. Give it with {option}, or --weights.")
        if folder.is_file():
            return self._open_in_file(folder, component, model_class, expected)
        if not folder.is_dir():
            return open_model(folder, model_class, expected, None)
        if not (folder / component).is_dir():
            found = find_model(folder, component, model_class, expected)
            if found is not None:
                return found
        variant = self._weights.variant
        return open_folder(folder, component, model_class, expected, variant)

    def _open_in_file(
        self, file: Path, component: str, model_class: type[nn.Module], expected: Config
    ) -> StoredModel:
        """Open a model in the file that is given for all models."""
        examined = examine_file(file, model_class, expected, None)
        others = [name for name, model in self._models.items() if model.path == file]
        if others and not examined.fit.recognised:
            remedy = "--vae FILE" if component == VAE else "--transformer FILE"
            raise InputError(
                f"{file} has no {model_class.__name__}, only the {' and '.join(others)}. Give the "
                f"{component} with {remedy} as well, or the folder of the whole checkpoint with "
                "--weights."
            )
        return examined.stored()


def open_checkpoint(weights: Weights) -> CheckpointFiles:
    """Return the files of a checkpoint.

    Args:
        weights: What the user names.

    Raises:
        InputError: There is no checkpoint.

    """
    if weights.folder is not None and not weights.folder.exists():
        raise InputError(
            f"no checkpoint folder at {weights.folder}, nor a file. Give it with --weights."
        )
    return StoredCheckpoint(weights)
