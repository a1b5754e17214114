"""Reading a checkpoint folder, and refusing one that is not what the card describes."""

import hashlib
import inspect
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from vditrack.errors import InputError
from vditrack_export.card import (
    Autoencoder,
    Card,
    Convolutions,
    LtxAutoencoder,
    Pixels,
    UNet,
    WanAutoencoder,
)
from vditrack_export.families.registry import (
    Config,
    autoencoder_class,
    autoencoder_config,
    family_of,
)
from vditrack_export.families.unet.family import unet_family
from vditrack_export.tiny.model import TinyEncoder

# The names that diffusers' save_pretrained gives.
_CONFIG = "config.json"
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_TINY_TRANSFORMER, _TRANSFORMER, _UNET, _AUTOENCODER = "vdit", "transformer", "unet", "vae"

Shapes = Mapping[str, Sequence[int]]

# Of an attention layer's projections.
_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

# The decoder of LTX-Video has shapes of its own, which cards leave out, and no part in a bundle.
_LEAST_DECODER: Config = {
    "decoder_block_out_channels": [8],
    "decoder_layers_per_block": [1, 1],
    "decoder_spatio_temporal_scaling": [False],
    "decoder_inject_noise": [False, False],
    "upsample_residual": [False],
    "upsample_factor": [1],
}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's models in FP32, ready for inference."""

    encoder: nn.Module
    """A `TinyEncoder`, a whole autoencoder of diffusers, or for pixels what leaves them alone."""
    transformer: nn.Module
    """Of diffusers, without the blocks above the card's: nothing that is read depends on them. Or
    a whole UNet."""
    sha256: str
    """Digest over the names and contents of the files read."""


def load_checkpoint(card: Card, folder: Path) -> Checkpoint:
    """Read the encoder and the transformer, of this the blocks up to the card's alone.

    The folder is one that a diffusers pipeline saved, with ``transformer/`` or ``unet/``, and where
    there is an autoencoder ``vae/``; that of the bundled model holds ``encoder.json``,
    ``encoder.safetensors`` and ``vdit/``.

    Raises:
        InputError: a file is missing, or is not the card's model; the message names it.

    """
    if not folder.is_dir():
        raise InputError(f"no checkpoint folder at {folder}. Give it with --weights.")
    small = isinstance(card.encoder, Convolutions)
    transformer = folder / _transformer_name(card)
    files = [*_encoder_files(card, folder), *_files(transformer)]
    missing = [str(path.relative_to(folder)) for path in files if not path.is_file()]
    if missing:
        raise InputError(f"checkpoint {folder} lacks {', '.join(missing)}. Copy the whole of it.")
    return Checkpoint(
        encoder=_load_tiny_encoder(folder) if small else _load_encoder(card, folder),
        transformer=_load_transformer(card, transformer),
        sha256=_digest(folder, files),
    )


def _transformer_name(card: Card) -> str:
    if isinstance(card.transformer, UNet):
        return _UNET
    return _TINY_TRANSFORMER if isinstance(card.encoder, Convolutions) else _TRANSFORMER


def _encoder_files(card: Card, folder: Path) -> list[Path]:
    if isinstance(card.encoder, Pixels):
        return []
    if isinstance(card.encoder, Convolutions):
        return [folder / "encoder.json", folder / "encoder.safetensors"]
    return _files(folder / _AUTOENCODER)


def random_checkpoint(card: Card, seed: int = 0) -> Checkpoint:
    """Make models of a card's shapes that have learnt nothing: for benchmarks and engine builds."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        first, transformer = _random_encoder(card.encoder), _random_transformer(card)
    digest = hashlib.sha256(f"random weights, seed {seed}".encode()).hexdigest()
    return Checkpoint(first.eval(), transformer.eval(), digest)


def _random_encoder(encoder: Convolutions | Pixels | Autoencoder) -> nn.Module:
    if isinstance(encoder, Pixels):
        return nn.Identity()
    if isinstance(encoder, Convolutions):
        return TinyEncoder(encoder.latent_channels, encoder.widths)
    return autoencoder_class(encoder)(**autoencoder_config(encoder), **_unit(encoder))


def _random_transformer(card: Card) -> nn.Module:
    if isinstance(card.transformer, UNet):
        unet = unet_family(card.transformer)
        return unet.model(**unet.config(card.transformer))
    family = family_of(card)
    shapes = family.config(card.transformer)
    return family.model(**shapes | family.cropped(card.feature.block + 1))


def _unit(encoder: Autoencoder) -> Config:
    """Latents of mean 0 and deviation 1, where the configuration says what they have."""
    if isinstance(encoder, LtxAutoencoder):
        return _LEAST_DECODER
    if not isinstance(encoder, WanAutoencoder):
        return {}
    count = encoder.latent_channels
    return {"latents_mean": [0.0] * count, "latents_std": [1.0] * count}


def _files(folder: Path) -> list[Path]:
    """Configuration and weight files of a model that diffusers saved."""
    return [folder / _CONFIG, *_shards(folder)]


def _shards(folder: Path) -> list[Path]:
    """Weight files of a model that diffusers saved: one, or those that its index names."""
    index = folder / f"{_WEIGHTS}.index.json"
    if not index.is_file():
        return [folder / _WEIGHTS]
    try:
        return [folder / name for name in sorted(set(_read_json(index)["weight_map"].values()))]
    except (KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{index} is not an index of weights. Copy it again.") from error


def _load_tiny_encoder(folder: Path) -> TinyEncoder:
    try:
        return TinyEncoder.load(folder).eval().float()
    # Damaged JSON, damaged safetensors and unfit shapes each raise a class of their own.
    except Exception as error:
        raise InputError(
            f"encoder of checkpoint {folder} does not load: {_one_line(error)}"
        ) from error


def _load_encoder(card: Card, checkpoint: Path) -> nn.Module:
    folder, encoder = checkpoint / _AUTOENCODER, card.encoder
    assert not isinstance(encoder, Convolutions)
    if isinstance(encoder, Pixels):
        return nn.Identity()
    kind = autoencoder_class(encoder)
    config = _read_config(folder, kind, autoencoder_config(encoder))
    return _filled(folder, _made(folder, kind, config), above=None)


def _load_transformer(card: Card, folder: Path) -> nn.Module:
    if isinstance(card.transformer, UNet):
        unet = unet_family(card.transformer)
        config = _read_config(folder, unet.model, unet.config(card.transformer))
        return _filled(folder, _made(folder, unet.model, config), above=None)
    family = family_of(card)
    config = _read_config(folder, family.model, family.config(card.transformer))
    needed = card.feature.block + 1
    model = _made(folder, family.model, config | family.cropped(needed))
    size, cell = card.input, card.cell
    refused = family.refused(config, (size.latents, size.height // cell, size.width // cell))
    if refused:
        raise InputError(f"checkpoint {folder} does not fit the card: {refused}.")
    above = re.compile(rf"{family.blocks}\.(\d+)\.")
    unreached = tuple(f"{name}." for _, name in family.unreached)
    return _filled(folder, model, above=above, needed=needed, unreached=unreached)


def _read_config(folder: Path, kind: type[nn.Module], wanted: Config) -> Config:
    """Read a configuration, of the class and shapes that the card describes.

    Raises:
        InputError: it is of another class, or has other shapes.

    """
    path = folder / _CONFIG
    config = _read_json(path)
    if config.get("_class_name") != kind.__name__:
        raise InputError(f"{path} describes a {config.get('_class_name')}, not a {kind.__name__}.")
    defaults = {name: value for name, value in _defaults(kind).items() if name in wanted}
    for name, value in wanted.items():
        found = config.get(name, defaults.get(name))
        if _plain(found) != _plain(value):
            raise InputError(
                f"{path} has {name} {found}, the card {value}. Give the card of this checkpoint."
            )
    return config


def _defaults(kind: type[nn.Module]) -> Config:
    """What a diffusers class takes for what its configuration leaves out."""
    return {
        name: parameter.default
        for name, parameter in inspect.signature(kind.__init__).parameters.items()
        if parameter.default is not parameter.empty
    }


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _made(folder: Path, kind: type[nn.Module], config: Config) -> nn.Module:
    """Make a model without weights: they are read, and would only be drawn in vain."""
    try:
        with torch.device("meta"):
            model: nn.Module = kind.from_config(config)  # type: ignore[attr-defined]
        # Tables that are computed, not saved: from a model without blocks, where there are any.
        tables = _computed(kind, config)
    # Configurations fail in as many ways as they have fields.
    except Exception as error:
        raise InputError(f"{folder} does not load: {_one_line(error)}") from error
    for name, table in tables.items():
        module, _, buffer = name.rpartition(".")
        setattr(model.get_submodule(module), buffer, table)
    return model


def _computed(kind: type[nn.Module], config: Config) -> dict[str, Tensor]:
    if "num_layers" not in config:
        return {}
    empty: nn.Module = kind.from_config(config | {"num_layers": 0})  # type: ignore[attr-defined]
    saved = set(empty.state_dict())
    return {name: table for name, table in empty.named_buffers() if name not in saved}


def _filled(
    folder: Path,
    model: nn.Module,
    above: "re.Pattern[str] | None",
    needed: int = 0,
    unreached: tuple[str, ...] = (),
) -> nn.Module:
    """Fill a model from its shards; blocks ``above`` those needed are left where they are.

    So are weights whose names begin with one of those ``unreached``.

    Raises:
        InputError: a weight is missing, unknown or of another shape.

    """
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found: dict[str, tuple[int, ...]] = {}
    weights: dict[str, Tensor] = {}
    try:
        for path in _shards(folder):
            with safe_open(path, framework="pt") as shard:
                for saved in shard.keys():  # noqa: SIM118 - it is no mapping
                    match = above.match(saved) if above else None
                    if saved.startswith(unreached) or (match and int(match[1]) >= needed):
                        continue
                    name = saved if saved in wanted else _present(saved)
                    found[name] = tuple(shard.get_slice(saved).get_shape())
                    if found[name] == wanted.get(name):
                        weights[name] = shard.get_tensor(saved).float()
    except (SafetensorError, OSError) as error:
        raise InputError(f"{folder} does not load: {_one_line(error)}") from error
    # diffusers' own loader fills what is missing with random numbers, and only warns.
    _check_shapes(folder, found, wanted)
    model.load_state_dict(weights, assign=True)
    return model.eval()


def _present(name: str) -> str:
    """What a weight is called today that older diffusers saved under another name.

    Autoencoders of Stable Diffusion still have the old ones.
    """
    *path, part, kind = name.rsplit(".", 2)
    return ".".join((*path, _OLD_NAMES.get(part, part), kind))


def _check_shapes(folder: Path, found: Shapes, wanted: Shapes) -> None:
    complaints = {
        "missing": wanted.keys() - found.keys(),
        "not wanted": found.keys() - wanted.keys(),
        "of another shape": {
            name for name in found.keys() & wanted.keys() if found[name] != wanted[name]
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
