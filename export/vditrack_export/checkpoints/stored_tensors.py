"""Tensors of a file as they are stored: safetensors, and files that ``torch.save`` wrote."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vditrack.errors import InputError

_KINDS = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I8": "int8",
    "U8": "uint8",
}
"""Types of torch by their names in safetensors, as far as they occur in weights."""


@dataclass(frozen=True)
class StoredTensor:
    """What a file says of a tensor."""

    shape: tuple[int, ...]
    """Shape of the tensor that it stands for."""
    kind: str
    """Type of its numbers: that of torch, such as ``bfloat16``, or of GGUF, such as ``Q4_K``."""


class StoredTensors(Protocol):
    """Named tensors of one or more files, read one at a time."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Files that the tensors are read from."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """Texts that are stored beside the tensors."""

    @property
    def tensors(self) -> Mapping[str, StoredTensor]:
        """What is stored, by the names in the files."""

    def read(self, name: str) -> Tensor:
        """Read one tensor in its own type; a tensor of GGUF as float32.

        Raises:
            InputError: The file is damaged.

        """


class SafetensorsFiles:
    """Tensors in one or more safetensors files.

    Args:
        files: The files.

    Raises:
        InputError: A file is damaged.

    """

    def __init__(self, files: Sequence[Path]) -> None:
        """Read the names, shapes and types of all tensors."""
        self.files = tuple(files)
        self.metadata: dict[str, str] = {}
        self.tensors: dict[str, StoredTensor] = {}
        self._places: dict[str, Path] = {}
        for path in self.files:
            try:
                with safe_open(path, framework="pt") as file:
                    self.metadata |= file.metadata() or {}
                    for name in file.keys():  # noqa: SIM118 - it is no mapping
                        part = file.get_slice(name)
                        kind = _KINDS.get(part.get_dtype(), str(part.get_dtype()))
                        self.tensors[name] = StoredTensor(tuple(part.get_shape()), kind)
                        self._places[name] = path
            except (SafetensorError, OSError) as error:
                raise _damaged(path, error) from error

    def read(self, name: str) -> Tensor:
        """Read one tensor in its own type."""
        path = self._places[name]
        try:
            with safe_open(path, framework="pt") as file:
                tensor: Tensor = file.get_tensor(name)
                return tensor
        except (SafetensorError, OSError) as error:
            raise _damaged(path, error) from error


class PickledFile:
    """Tensors in a file of ``torch.save``; no code in it is run.

    Dictionaries in dictionaries are joined by dots: ``generator.blocks.0.ffn.0.weight``. Of a file
    in the format that torch has had since 1.6, only the tensors that are read are loaded.

    Args:
        path: The file.

    Raises:
        InputError: The file is damaged, or has other objects than tensors and numbers.

    """

    def __init__(self, path: Path) -> None:
        """Read the names, shapes and types of all tensors."""
        self.files = (path,)
        self.metadata: dict[str, str] = {}
        try:
            content = torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
        except UnpicklingError as error:
            raise InputError(
                f"{path} is not a file of tensors alone: it is damaged, or reading it could run "
                "code. Take a .safetensors file, or convert it on a machine that you trust."
            ) from error
        # A damaged archive raises RuntimeError, EOFError, ValueError, KeyError and more.
        except Exception as error:
            raise _damaged(path, error) from error
        self._content = dict(_flatten(content))
        self.tensors = {
            name: StoredTensor(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
            for name, tensor in self._content.items()
        }

    def read(self, name: str) -> Tensor:
        """Read one tensor in its own type."""
        return self._content[name]


def _flatten(content: object, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Tensor):
        yield prefix.removesuffix("."), content
    elif isinstance(content, Mapping):
        for name, part in content.items():
            yield from _flatten(part, f"{prefix}{name}.")


def _damaged(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return InputError(f"{path} does not load: {reason}. Copy it again.")
