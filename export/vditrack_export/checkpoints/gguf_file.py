"""Tensors of a GGUF file, which ``gguf`` dequantises."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vditrack.errors import InputError, install_command
from vditrack_export.checkpoints.stored_tensors import StoredTensor

_ORIGINAL_SHAPE = "comfy.gguf.orig_shape."
"""Prefix of the field that has the shape of a tensor that was reshaped to be quantised."""


class GgufFile:
    """Tensors of a GGUF file.

    Args:
        path: The file.

    Raises:
        InputError: ``gguf`` is not installed, or the file is damaged.

    """

    def __init__(self, path: Path) -> None:
        """Read the names, shapes and types of all tensors; the tensors are mapped into memory."""
        try:
            from gguf import GGUFReader  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise InputError(
                f"{path} is a GGUF file, which needs {error.name}. Run `{install_command('gguf')}`."
            ) from error
        self.files = (path,)
        try:
            reader = GGUFReader(path)
            self.metadata = _read_texts(reader)
            self._stored = {tensor.name: tensor for tensor in reader.tensors}
            self.tensors: Mapping[str, StoredTensor] = {
                name: StoredTensor(_original_shape(reader, tensor), tensor.tensor_type.name)
                for name, tensor in self._stored.items()
            }
        # The reader takes what it finds as offsets and sizes: errors of indexing, reshaping,
        # decoding and more.
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"{path} does not load: {reason}. Copy it again.") from error

    def place(self, name: str) -> Path:
        """Return the file."""
        return self.files[0]

    def read(self, name: str) -> Tensor:
        """Read one tensor as float32."""
        from gguf.quants import dequantize  # noqa: PLC0415

        stored = self._stored[name]
        try:
            numbers = dequantize(stored.data, stored.tensor_type)
        except NotImplementedError as error:
            raise InputError(
                f"{self.files[0]}: the tensor {name} is quantised as {stored.tensor_type.name}, "
                "which the package gguf cannot dequantise. Take a file of another kind, such as "
                "Q8_0."
            ) from error
        # Copied, because the file's own numbers cannot be written to.
        copied = np.array(numbers, dtype=np.float32).reshape(self.tensors[name].shape)
        return torch.from_numpy(copied)


def _read_texts(reader: Any) -> dict[str, str]:  # noqa: ANN401
    """Return the fields that are texts."""
    contents = ((name, field.contents()) for name, field in reader.fields.items())
    return {name: content for name, content in contents if isinstance(content, str)}


def _original_shape(reader: Any, tensor: Any) -> tuple[int, ...]:  # noqa: ANN401
    """Return the shape that a tensor has in the model; GGUF stores the fastest axis first."""
    stored = tuple(int(size) for size in reversed(tensor.shape))
    field = reader.get_field(_ORIGINAL_SHAPE + tensor.name)
    if field is None:
        return stored
    shape = tuple(int(size) for size in field.contents())
    if np.prod(shape) != np.prod(stored):
        raise ValueError(f"tensor {tensor.name} of {stored} cannot have the shape {shape}")
    return shape
