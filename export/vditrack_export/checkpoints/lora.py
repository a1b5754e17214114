"""Fusing low-rank adapters (LoRA) into the weights of a loaded model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch

from vditrack.bundle.manifest import Adapter
from vditrack.errors import InputError, install_command
from vditrack_export.checkpoints.lora_file import LoraFile, read_lora
from vditrack_export.checkpoints.sources import Lora
from vditrack_export.checkpoints.weights import Config

_SETTINGS = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "lora_bias")
"""Settings of peft that decide what is added to a weight."""


def fuse_loras(
    model: Any,  # noqa: ANN401
    config: Config,
    loader: str | None,
    loras: Sequence[Lora],
) -> tuple[tuple[Adapter, ...], tuple[str, ...]]:
    """Add adapters to the weights of a model, by diffusers and peft.

    Args:
        model: Loaded model, which may lack later blocks; changed in place.
        config: Configuration of the whole model.
        loader: Class of diffusers that converts adapters for the model; None if there is none.
        loras: The adapters.

    Returns:
        What the manifest says of the adapters, and notes for the user.

    Raises:
        InputError: There is no such class, peft is missing, or a file is not an adapter of this
            model or changes nothing in it.

    """
    if not loras:
        return (), ()
    if loader is None:
        raise InputError(
            f"diffusers loads no LoRA into a {type(model).__name__}. Leave --lora out."
        )
    try:
        import peft  # noqa: F401, PLC0415
    except ModuleNotFoundError as error:
        raise InputError(
            f"--lora needs peft, which is not installed. Run `{install_command('lora')}`."
        ) from error
    with torch.device("meta"):
        whole = type(model).from_config(config)
    adapters, notes = [], []
    for lora in loras:
        file = read_lora(lora.file, loader, whole)
        _fuse(model, file, lora)
        digest = hashlib.sha256(lora.file.read_bytes()).hexdigest()
        adapters.append(Adapter(name=lora.file.name, scale=lora.scale, sha256=digest))
        notes += [f"{lora.file}: {note}" for note in file.notes]
    return tuple(adapters), tuple(notes)


def _fuse(model: Any, file: LoraFile, lora: Lora) -> None:  # noqa: ANN401
    factors = file.within(model)
    if not factors:
        raise InputError(
            f"{lora.file} changes only blocks after the one that is read, so it has no effect. "
            "Leave --lora out."
        )
    prefix = "unet"
    settings = None
    if file.settings is not None and not file.alphas:
        layers = sorted({name.rpartition(".lora_")[0] for name in factors})
        settings = {name: file.settings[name] for name in _SETTINGS if name in file.settings}
        settings = {f"{prefix}.{name}": part for name, part in settings.items()} | {
            f"{prefix}.target_modules": layers
        }
    names = set(model.state_dict())
    try:
        model.load_lora_adapter(
            {f"{prefix}.{name}": factor for name, factor in factors.items()},
            prefix=prefix,
            adapter_name="lora",
            network_alphas=file.alphas,
            metadata=settings,
        )
        model.fuse_lora(lora_scale=lora.scale, adapter_names=["lora"])
        model.unload_lora()
    # Settings that contradict the factors raise errors of many classes in peft.
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{lora.file} cannot be fused: {reason}") from error
    assert set(model.state_dict()) == names
