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


_MAX_DEPTH = 16
"""Most dictionaries in each other in a file of ``torch.save``."""


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

    def place(self, name: str) -> Path:
        """Return the file that a tensor lies in."""

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
        InputError: A file is damaged, or two have a tensor of one name.

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
                        _check_new(name, path, self._places)
                        self.tensors[name] = StoredTensor(tuple(part.get_shape()), kind)
                        self._places[name] = path
            except (SafetensorError, OSError) as error:
                raise _damaged(path, error) from error

    def place(self, name: str) -> Path:
        """Return the file that a tensor lies in."""
        return self._places[name]

    def read(self, name: str) -> Tensor:
        """Read one tensor in its own type."""
        path = self._places[name]
        try:
            with safe_open(path, framework="pt") as file:
                tensor: Tensor = file.get_tensor(name)
                return tensor
        except (SafetensorError, OSError) as error:
            raise _damaged(path, error) from error


class PickledFiles:
    """Tensors in one or more files of ``torch.save``; no code in them is run.

    Dictionaries in dictionaries are joined by dots: ``generator.blocks.0.ffn.0.weight``. Of a file
    in the format that torch has had since 1.6, only the tensors that are read are loaded.

    Args:
        files: The files.

    Raises:
        InputError: A file is damaged, has other objects than tensors and numbers, or two have a
            tensor of one name.

    """

    def __init__(self, files: Sequence[Path]) -> None:
        """Read the names, shapes and types of all tensors."""
        self.files = tuple(files)
        self.metadata: dict[str, str] = {}
        self.tensors: dict[str, StoredTensor] = {}
        self._contents: dict[str, Tensor] = {}
        self._places: dict[str, Path] = {}
        for path in self.files:
            for name, tensor in _flatten(_unpickle(path), path):
                _check_new(name, path, self._places)
                kind = str(tensor.dtype).removeprefix("torch.")
                self.tensors[name] = StoredTensor(tuple(tensor.shape), kind)
                self._contents[name], self._places[name] = tensor, path

    def place(self, name: str) -> Path:
        """Return the file that a tensor lies in."""
        return self._places[name]

    def read(self, name: str) -> Tensor:
        """Read one tensor in its own type."""
        return self._contents[name]


def _unpickle(path: Path) -> object:
    """Load a file of ``torch.save`` with the reader of torch that builds only tensors."""
    try:
        return torch.load(
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


def _flatten(
    content: object, path: Path, prefix: str = "", depth: int = 0
) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in a dictionary of dictionaries."""
    if depth > _MAX_DEPTH:
        raise InputError(f"{path} has dictionaries in each other without end. Copy it again.")
    if isinstance(content, Tensor):
        if content.layout != torch.strided or content.device.type != "cpu":
            raise InputError(f"{path}: {prefix[:-1]} has no numbers of its own. Copy it again.")
        yield prefix.removesuffix("."), content
    elif isinstance(content, Mapping):
        for name, part in content.items():
            yield from _flatten(part, path, f"{prefix}{name}.", depth + 1)


def _check_new(name: str, path: Path, places: Mapping[str, Path]) -> None:
    if name in places:
        raise InputError(
            f"{path} and {places[name].name} both have a tensor {name}. Copy the checkpoint again, "
            "without files of another one."
        )


def _damaged(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return InputError(
        f"{path} does not load: {reason[:200]}. It has {path.stat().st_size:,} bytes and may be "
        "cut short. Copy it again."
    )
