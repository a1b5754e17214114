"""Stored tensors as float32: with the scales of FP8 weights, and refusals of other layouts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from vditrack.errors import InputError
from vditrack_export.checkpoints.stored_tensors import StoredTensors
from vditrack_export.checkpoints.weights import check_finite

_SCALES = (".scale_weight", ".weight_scale")
"""Names of the factor of a layer's FP8 weight, in older and in newer files for ComfyUI."""
_IGNORED = (".scale_input", ".input_scale", ".comfy_quant", "scaled_fp8")
"""Factors of activations, which FP32 does not need, and marks of the layout."""
_FP8 = ("float8_e4m3fn", "float8_e5m2")
_FLOATS = ("float64", "float32", "float16", "bfloat16", *_FP8)
_UNQUANTISED = {"float64", "float32", "float16", "bfloat16", "F64", "F32", "F16", "BF16"}
_INTEGERS = ("int8", "uint8")
_HARMLESS = {"format", "full_precision_matrix_mult"}
"""Entries of a layer's layout that do not change what its weight is."""


class DequantisedWeights:
    """Tensors of files as float32.

    Args:
        stored: The tensors as they are stored.

    Raises:
        InputError: Weights are quantised in a way that is not known.

    """

    def __init__(self, stored: StoredTensors) -> None:
        """Find the scales of weights; no weight is read."""
        if not stored.tensors:
            raise InputError(f"{stored.files[0]} has no tensors. Copy it again.")
        self._stored = stored
        self.files = stored.files
        self._scales = {
            name.removesuffix(suffix) + ".weight": name
            for name in stored.tensors
            for suffix in _SCALES
            if name.endswith(suffix)
        }
        self._check_layouts()

    @property
    def path(self) -> Path:
        """The file, or the first of several."""
        return self.files[0]

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Return the shape of each tensor, by its name in the files."""
        return {
            name: tensor.shape
            for name, tensor in self._stored.tensors.items()
            if not name.endswith((*_SCALES, *_IGNORED))
        }

    def kind(self, name: str) -> str:
        """Return the type in which a tensor is stored; see `StoredTensor.kind`."""
        scaled = ", scaled" if name in self._scales else ""
        return self._stored.tensors[name].kind + scaled

    def kinds(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the types with fewer than 16 bits in which tensors are stored, sorted."""
        return tuple(sorted(set(map(self.kind, names)) - _UNQUANTISED))

    def read(self, name: str) -> Tensor:
        """Read one tensor as float32, checked to be finite."""
        tensor = self._stored.read(name)
        if not tensor.is_floating_point():
            raise InputError(
                f"{self._stored.place(name)}: the tensor {name} has numbers of type "
                f"{self._stored.tensors[name].kind}, which are not weights. Take another file."
            )
        # FP8 knows almost no operations, so even the copy is one of another type.
        weight = tensor.to(torch.float32)
        if name in self._scales:
            weight = weight * self._read_scale(name, weight)
        check_finite(self._stored.place(name), name, weight)
        return weight

    def _read_scale(self, name: str, weight: Tensor) -> Tensor:
        """Return the factor of a weight: one number, or one for each row."""
        scale = self._stored.read(self._scales[name]).to(torch.float32)
        if scale.numel() == 1:
            return scale.reshape(())
        return scale.reshape(-1, *[1] * (weight.ndim - 1))

    def _check_layouts(self) -> None:
        tensors = self._stored.tensors
        for name in tensors:
            if name.endswith(".comfy_quant"):
                self._check_layout(name.removesuffix(".comfy_quant"), self._read_text(name))
        text = self._stored.metadata.get("_quantization_metadata")
        if text is not None:
            layers = _parse(text).get("layers", {})
            for layer, layout in layers.items() if isinstance(layers, dict) else ():
                self._check_layout(layer, json.dumps(layout))
        for name, tensor in tensors.items():
            if tensor.kind in _INTEGERS and name.endswith(".weight") and len(tensor.shape) > 1:
                self._refuse(f"{name} is quantised to {tensor.kind}")
        for name, scale in self._scales.items():
            weight, factor = tensors.get(name), tensors[scale]
            if weight is None or weight.kind not in _FLOATS:
                self._refuse(f"{scale} has no weight that it scales")
            elif factor.kind not in _FLOATS or not _scales_rows(factor.shape, weight.shape):
                self._refuse(f"{scale} is of {factor.kind} {list(factor.shape)}, in blocks")

    def _check_layout(self, layer: str, text: str) -> None:
        layout = _parse(text)
        if layout.get("format") not in _FP8 or layout.keys() - _HARMLESS:
            self._refuse(f"{layer} is quantised as {json.dumps(layout)[:200]}")

    def _read_text(self, name: str) -> str:
        return bytes(self._stored.read(name).to(torch.uint8).tolist()).decode(errors="replace")

    def _refuse(self, what: str) -> None:
        raise InputError(
            f"{self.path}: {what}, a layout that vditrack does not read. Take a file in fp16, bf16 "
            "or fp32, in fp8 with one scale a layer or a row, or in GGUF."
        )


def _parse(text: str) -> dict[str, object]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return {"format": text[:40]}
    return content if isinstance(content, dict) else {"format": content}


def _scales_rows(scale: tuple[int, ...], weight: tuple[int, ...]) -> bool:
    """Return whether a scale has one number, or one for each row of a weight."""
    return math.prod(scale) == 1 or scale in (weight[:1], weight[:1] + (1,) * (len(weight) - 1))
