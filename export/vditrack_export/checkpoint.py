"""Reading a checkpoint folder, and refusing one that is not what the card describes."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file
from torch import Tensor, nn

from vditrack.errors import InputError
from vditrack_export.tiny.model import STRIDE, TinyEncoder

_TRANSFORMER = "vdit"
# The names that diffusers' save_pretrained gives.
_CONFIG = "config.json"
_WEIGHTS = "diffusion_pytorch_model.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's models in FP32, ready for inference."""

    encoder: nn.Module
    """Images, float32 [F, 3, H, W] in [-1, 1], to latents, float32 [F, C, H / s, W / s]."""
    encoder_stride: int
    """Side of a latent cell, s, in pixels."""
    transformer: WanTransformer3DModel
    prompt: Tensor
    """What the text encoder gives for an empty prompt: float32 [tokens, text_dim]."""
    sha256: str
    """Digest over the names and contents of the files read."""


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read ``encoder.json``, ``encoder.safetensors`` and ``vdit/``, a diffusers Wan transformer.

    Raises:
        InputError: a file is missing, or is not that model; the message names it.

    """
    if not folder.is_dir():
        raise InputError(f"no checkpoint folder at {folder}. Give it with --weights.")
    shards = _shards(folder / _TRANSFORMER)
    files = [
        folder / "encoder.json",
        folder / "encoder.safetensors",
        folder / _TRANSFORMER / _CONFIG,
        *shards,
    ]
    missing = [str(path.relative_to(folder)) for path in files if not path.is_file()]
    if missing:
        raise InputError(f"checkpoint {folder} lacks {', '.join(missing)}. Copy the whole of it.")
    encoder = _load_encoder(folder)
    transformer = _load_transformer(folder / _TRANSFORMER, shards)
    # The small models were trained with one all-zero token in place of a text encoder.
    prompt = torch.zeros(1, transformer.config.text_dim)
    return Checkpoint(
        encoder=encoder,
        encoder_stride=STRIDE,
        transformer=transformer,
        prompt=prompt,
        sha256=_digest(folder, files),
    )


def _shards(folder: Path) -> list[Path]:
    """Weight files of a model that diffusers saved: one, or those that its index names."""
    index = folder / f"{_WEIGHTS}.index.json"
    if not index.is_file():
        return [folder / _WEIGHTS]
    try:
        return [folder / name for name in sorted(set(_read_json(index)["weight_map"].values()))]
    except (KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{index} is not an index of weights. Copy it again.") from error


def _load_encoder(folder: Path) -> TinyEncoder:
    try:
        return TinyEncoder.load(folder).eval().float()
    # Damaged JSON, damaged safetensors and unfit shapes each raise a class of their own.
    except Exception as error:
        raise InputError(
            f"encoder of checkpoint {folder} does not load: {_one_line(error)}"
        ) from error


def _load_transformer(folder: Path, shards: Sequence[Path]) -> WanTransformer3DModel:
    config = _read_json(folder / _CONFIG)
    kind = config.get("_class_name")
    if kind != WanTransformer3DModel.__name__:
        raise InputError(f"{folder / _CONFIG} describes a {kind}, not a WanTransformer3DModel.")
    try:
        model = WanTransformer3DModel.from_config(config)
        weights = {name: tensor for path in shards for name, tensor in load_file(path).items()}
    # As for the encoder: the classes are many, the meaning is one.
    except Exception as error:
        raise InputError(f"transformer {folder} does not load: {_one_line(error)}") from error
    # diffusers' own loader fills what is missing with random numbers, and only warns.
    _check_shapes(folder, weights, model.state_dict())
    model.load_state_dict(weights)
    return model.eval()


def _check_shapes(folder: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    complaints = {
        "missing": wanted.keys() - found.keys(),
        "not wanted": found.keys() - wanted.keys(),
        "of another shape": {
            name for name in found.keys() & wanted.keys() if found[name].shape != wanted[name].shape
        },
    }
    parts = [f"{min(names)} is {what}" for what, names in complaints.items() if names]
    if parts:
        count = len(set.union(*map(set, complaints.values())))
        raise InputError(
            f"weights in {folder} are not those of its {_CONFIG}: {', '.join(parts)} "
            f"({count} in all). Copy both from one checkpoint."
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}. Copy it again.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a JSON object. Copy it again.")
    return content


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _digest(folder: Path, files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(files):
        name = path.relative_to(folder).as_posix()
        digest.update(f"{name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
