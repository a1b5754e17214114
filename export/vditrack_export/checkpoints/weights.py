"""The interface of a stored model, which every form of checkpoint implements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from vditrack.errors import InputError

Config = dict[str, Any]
"""Content of ``config.json``."""


class ModelWeights(Protocol):
    """Named tensors of one model, read one at a time."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Files that the tensors are read from."""

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Return the shape of each tensor, by the name that it has in diffusers."""

    def read(self, name: str) -> Tensor:
        """Read one tensor as float32: dequantised, and checked to be finite.

        Raises:
            InputError: The file is damaged, or a number is NaN or infinite.

        """


@dataclass(frozen=True)
class StoredModel:
    """A model of a checkpoint, before its weights are read."""

    path: Path
    """Folder or file of the model, for messages."""
    config: Config
    """Configuration of the model's class in diffusers."""
    weights: ModelWeights
    config_files: tuple[Path, ...] = ()
    """Files that the configuration is read from."""
    kinds: tuple[str, ...] = ()
    """Types in which the weights are stored, if they may have fewer than 16 bits."""
    variant: str = ""
    """Variant of the weight files, such as ``fp16``; empty for the plain files."""
    notes: tuple[str, ...] = ()
    """What a user should know of the choice of files."""

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that the model is read from."""
        return (*self.config_files, *self.weights.files)


def check_finite(path: Path, name: str, weight: Tensor) -> None:
    """Check that a weight has no NaN and no infinity.

    Raises:
        InputError: It has; the message names the file and the tensor.

    """
    wrong = weight.numel() - int(torch.isfinite(weight).sum())
    if wrong:
        raise InputError(
            f"{path}: the tensor {name} has {wrong} of {weight.numel()} numbers that are NaN or "
            "infinite. Copy the checkpoint again, or take another one."
        )
