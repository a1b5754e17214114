"""A checkpoint on disk, and the models in it."""

from pathlib import Path
from typing import Protocol

from torch import nn

from vditrack.errors import InputError
from vditrack_export.checkpoints.diffusers_folder import open_folder
from vditrack_export.checkpoints.weights import Config, StoredModel


class CheckpointFiles(Protocol):
    """The files of a checkpoint, whatever their form."""

    @property
    def root(self) -> Path:
        """Folder that the files of all models lie in; a tokenizer and a text encoder may too."""

    def open(self, component: str, model_class: type[nn.Module], expected: Config) -> StoredModel:
        """Open a model; only its configuration and the shapes of its weights are read.

        Args:
            component: Name of the model in the pipeline, such as ``transformer`` or ``vae``.
            model_class: Class in diffusers.
            expected: Entries of the configuration that the card determines.

        Raises:
            InputError: The model is missing, damaged, or not the card's.

        """


class FolderCheckpoint:
    """A folder that a diffusers pipeline saved.

    Args:
        root: The folder.

    """

    def __init__(self, root: Path) -> None:
        """Keep the folder; nothing is read."""
        self.root = root
        self._models: dict[str, StoredModel] = {}

    def open(self, component: str, model_class: type[nn.Module], expected: Config) -> StoredModel:
        """Open a model; see `CheckpointFiles.open`."""
        if component not in self._models:
            self._models[component] = open_folder(self.root, component, model_class, expected)
        return self._models[component]


def open_checkpoint(path: Path) -> CheckpointFiles:
    """Return the files of a checkpoint.

    Args:
        path: What ``--weights`` names.

    Raises:
        InputError: There is no checkpoint.

    """
    if not path.is_dir():
        raise InputError(f"no checkpoint folder at {path}. Give it with --weights.")
    return FolderCheckpoint(path)
