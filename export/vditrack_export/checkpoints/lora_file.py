"""Low-rank adapters (LoRA) in files of several programs, by the names of diffusers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers.loaders import lora_pipeline
from diffusers.utils import convert_unet_state_dict_to_peft
from torch import Tensor, nn

from vditrack.errors import InputError
from vditrack_export.checkpoints.json_files import read_json
from vditrack_export.checkpoints.model_file import open_tensors
from vditrack_export.checkpoints.weights import Config, check_finite

_METADATA = "lora_adapter_metadata"
"""Where diffusers keeps the settings of an adapter in a safetensors file."""
_PEFT_CONFIG = "adapter_config.json"
"""File in which peft keeps them, beside the adapter."""
_PEFT_PREFIX = "base_model.model."
_FACTOR = re.compile(r"(?P<layer>.+)\.lora_(?P<side>[AB])\.(?:weight|bias)")
_OTHER_KINDS = {"dora_scale": "DoRA", "lokr_": "LoKr", "hada_": "LoHa", "lora_magnitude": "DoRA"}
_DIFFERENCES = (".diff", ".diff_b")
"""Ends of the names of differences that are added to whole weights."""

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class LoraFile:
    """An adapter for one model."""

    factors: Tensors
    """Factors by their names in the model, such as ``blocks.0.attn1.to_q.lora_A.weight``."""
    alphas: Mapping[str, Any] | None
    """Scales of layers, as diffusers gives them."""
    settings: Mapping[str, Any] | None
    """Settings of peft, if the file has them."""
    notes: tuple[str, ...]
    """What of the file is not used."""

    def within(self, model: nn.Module) -> Tensors:
        """Return the factors of layers that a model has; it may lack later blocks."""
        modules = {name for name, _ in model.named_modules()}
        return {
            name: factor for name, factor in self.factors.items() if _split_name(name)[0] in modules
        }


def read_lora(path: Path, loader: str, model: nn.Module) -> LoraFile:
    """Read an adapter.

    Args:
        path: The file.
        loader: Class of diffusers that converts adapters for the model.
        model: The whole model, with all its blocks; its weights are not used.

    Raises:
        InputError: The file is damaged, or it is not an adapter of this model.

    """
    stored = open_tensors(path)
    tensors = {name: stored.read(name).float() for name in stored.tensors}
    for mark, kind in _OTHER_KINDS.items():
        if any(mark in name for name in tensors):
            raise InputError(f"{path} is a {kind} adapter; only LoRA can be fused.")
    for name, tensor in tensors.items():
        check_finite(path, name, tensor)
    refusals: list[str] = []
    for view, settings in _views(path, tensors, dict(stored.metadata)):
        converted, alphas, refusal = _convert(view, loader)
        lora = _sort(converted, alphas, settings, tensors)
        refusal = refusal or _find_misfit(lora, model)
        if refusal is None:
            return lora
        refusals.append(refusal)
    raise InputError(
        f"{path} is not a LoRA of this {type(model).__name__}: {refusals[0]}. Give an adapter that "
        "was trained for the card's checkpoint."
    )


def _views(
    path: Path, tensors: Tensors, metadata: Mapping[str, str]
) -> Iterator[tuple[Tensors, Config | None]]:
    """Yield the tensors by names that diffusers may know, and the settings of peft."""
    settings = _parse_settings(path, metadata.get(_METADATA))
    # The name of an adapter may be part of the names that peft saves.
    plain = {name.replace(".default.", "."): tensor for name, tensor in tensors.items()}
    if any(name.startswith(_PEFT_PREFIX) for name in plain):
        plain = {name.removeprefix(_PEFT_PREFIX): tensor for name, tensor in plain.items()}
        settings = _read_peft_settings(path.parent / _PEFT_CONFIG)
    yield plain, settings
    for prefix in ("transformer.", "unet.", "diffusion_model."):
        yield {prefix + name: tensor for name, tensor in plain.items()}, settings


def _parse_settings(path: Path, text: str | None) -> Config | None:
    if text is None:
        return None
    try:
        settings = json.loads(text)
        return {
            name.removeprefix("transformer.").removeprefix("unet."): value
            for name, value in settings.items()
        }
    except (ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: {_METADATA} is damaged. Copy the file again.") from error


def _read_peft_settings(path: Path) -> Config:
    if not path.is_file():
        raise InputError(
            f"{path} is missing, which has the scale of an adapter of peft. Copy it beside the "
            "adapter."
        )
    return read_json(path)


def _convert(view: Tensors, loader: str) -> tuple[Tensors, Mapping[str, Any] | None, str | None]:
    """Return an adapter by the names of diffusers, its scales, and why it is none."""
    try:
        converted = getattr(lora_pipeline, loader).lora_state_dict(dict(view))
        tensors, alphas = converted if isinstance(converted, tuple) else (converted, None)
        if not all(".lora_A." in name or ".lora_B." in name for name in tensors):
            tensors = convert_unet_state_dict_to_peft(tensors)
    # The conversions expect the names of their own model.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        return {}, None, f"diffusers does not convert its names ({type(error).__name__}: {reason})"
    return tensors, alphas, None


def _sort(
    converted: Tensors,
    alphas: Mapping[str, Any] | None,
    settings: Config | None,
    tensors: Tensors,
) -> LoraFile:
    """Separate the factors of the model from those of a text encoder."""
    of_text = {name for name in converted if name.startswith("text_encoder")}
    factors = {
        name.removeprefix("transformer.").removeprefix("unet."): tensor.contiguous()
        for name, tensor in converted.items()
        if name not in of_text
    }
    left_out = sum(
        name.endswith(".diff") or (name.endswith(".diff_b") and "norm" in name)
        for name, tensor in tensors.items()
        if tensor.any()
    )
    notes = []
    if of_text:
        notes.append(f"{len(of_text)} of its tensors are for the text encoder and are not used")
    if left_out:
        notes.append(f"{left_out} of its tensors are differences that diffusers does not apply")
    return LoraFile(factors, alphas, settings, tuple(notes))


def _find_misfit(lora: LoraFile, model: nn.Module) -> str | None:
    """Return why an adapter does not fit a model."""
    if not lora.factors:
        return "it has tensors for the text encoder only" if lora.notes else "it has no tensors"
    layers = dict(model.named_modules())
    unknown = [name for name in lora.factors if _split_name(name)[0] not in layers]
    if unknown:
        return f"the model lacks {min(unknown)} ({len(unknown)} of {len(lora.factors)} tensors)"
    for name, factor in lora.factors.items():
        layer, side = _split_name(name)
        weight = layers[layer].weight
        axis = 1 if side == "A" else 0
        other = lora.factors.get(f"{layer}.lora_{'BA'[side == 'B']}.weight")
        if not isinstance(weight, Tensor) or other is None:
            return f"{name} has no layer, or no other factor"
        ranks = factor.shape[0] == other.shape[1] if side == "A" and factor.ndim > 1 else True
        if factor.shape[min(axis, factor.ndim - 1)] != weight.shape[axis] or not ranks:
            return f"{name} has the shape {list(factor.shape)}, its layer {list(weight.shape)}"
    return None


def _split_name(name: str) -> tuple[str, str]:
    """Return the layer and the side of a factor; a name of another kind is its own layer."""
    match = _FACTOR.fullmatch(name)
    return (match["layer"], match["side"]) if match else (name, "")
