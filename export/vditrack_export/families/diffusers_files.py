"""Models in the format of diffusers' ``save_pretrained``: configuration and weight files."""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from vditrack.errors import InputError

Config = dict[str, Any]
"""Content of ``config.json``."""

_CONFIG = "config.json"
_WEIGHTS = "diffusion_pytorch_model.safetensors"

Shapes = Mapping[str, Sequence[int]]

# Of an attention layer's projections.
_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def model_files(folder: Path) -> list[Path]:
    """Return the configuration and weight files of a model, whether they exist or not."""
    return [folder / _CONFIG, *_shards(folder)]


def read_config(folder: Path, model_class: type[nn.Module], expected: Config) -> Config:
    """Read the configuration of a model and compare it with the card's.

    Args:
        folder: Folder of the model.
        model_class: Class that the configuration has to name.
        expected: Entries of the configuration that the card determines.

    Raises:
        InputError: The class or an entry differs from the card's.

    """
    path = folder / _CONFIG
    config = _read_json(path)
    if config.get("_class_name") != model_class.__name__:
        raise InputError(
            f"{path} describes a {config.get('_class_name')}, not a {model_class.__name__}."
        )
    defaults = {name: value for name, value in _defaults(model_class).items() if name in expected}
    for name, value in expected.items():
        found = config.get(name, defaults.get(name))
        if _as_list(found) != _as_list(value):
            raise InputError(
                f"{path} has {name} {found}, the card {value}. Give the card of this checkpoint."
            )
    return config


def load_model(
    folder: Path,
    model_class: type[nn.Module],
    config: Config,
    skip: Callable[[str], bool] | None = None,
) -> nn.Module:
    """Load a model in FP32, ready for inference.

    Args:
        folder: Folder of the model.
        model_class: Class in diffusers.
        config: Configuration of the model to build.
        skip: Whether a weight of that name is left in the file.

    Raises:
        InputError: The configuration is invalid, or a weight is missing, unknown, of another shape
            or not finite.

    """
    return fill_weights(folder, build_empty(folder, model_class, config), skip)


def fill_weights(
    folder: Path, model: nn.Module, skip: Callable[[str], bool] | None = None
) -> nn.Module:
    """Fill an empty model with weights in FP32, ready for inference.

    Args:
        folder: Folder of the model.
        model: Model of `build_empty`, changed in place.
        skip: Whether a weight of that name is left in the file.

    Raises:
        InputError: A weight is missing, unknown, of another shape or not finite.

    """
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found: dict[str, tuple[int, ...]] = {}
    weights: dict[str, Tensor] = {}
    try:
        for path in _shards(folder):
            with safe_open(path, framework="pt") as shard:
                for saved in shard.keys():  # noqa: SIM118 - it is no mapping
                    if skip is not None and skip(saved):
                        continue
                    name = saved if saved in wanted else _current_name(saved)
                    found[name] = tuple(shard.get_slice(saved).get_shape())
                    if found[name] == wanted.get(name):
                        weights[name] = shard.get_tensor(saved).float()
                        check_finite(path, saved, weights[name])
    except (SafetensorError, OSError) as error:
        raise InputError(f"{folder} does not load: {_one_line(error)}") from error
    # diffusers' own loader fills what is missing with random numbers, and only warns.
    _check_shapes(folder, found, wanted)
    model.load_state_dict(weights, assign=True)
    return model.eval()


def _shards(folder: Path) -> list[Path]:
    """Return the weight files of a model: one, or those that its index names."""
    index = folder / f"{_WEIGHTS}.index.json"
    if not index.is_file():
        return [folder / _WEIGHTS]
    try:
        return [folder / name for name in sorted(set(_read_json(index)["weight_map"].values()))]
    except (KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{index} is not an index of weights. Copy it again.") from error


def _defaults(model_class: type[nn.Module]) -> Config:
    """Return the values that a diffusers class takes for missing entries."""
    return {
        name: parameter.default
        for name, parameter in inspect.signature(model_class.__init__).parameters.items()
        if parameter.default is not parameter.empty
    }


def _as_list(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def build_empty(folder: Path, model_class: type[nn.Module], config: Config) -> nn.Module:
    """Build a model without weights, but with the tables that are computed and not saved.

    Raises:
        InputError: The configuration is invalid.

    """
    try:
        with torch.device("meta"):
            model: nn.Module = model_class.from_config(config)  # type: ignore[attr-defined]
        tables = _computed_tables(model_class, config)
    # Configurations fail in as many ways as they have fields.
    except Exception as error:
        raise InputError(f"{folder} does not load: {_one_line(error)}") from error
    for name, table in tables.items():
        module, _, buffer = name.rpartition(".")
        setattr(model.get_submodule(module), buffer, table)
    return model


def _computed_tables(model_class: type[nn.Module], config: Config) -> dict[str, Tensor]:
    """Compute the tables that are not saved, on a model without blocks."""
    if "num_layers" not in config:
        return {}
    empty: nn.Module = model_class.from_config(config | {"num_layers": 0})  # type: ignore[attr-defined]
    saved = set(empty.state_dict())
    return {name: table for name, table in empty.named_buffers() if name not in saved}


def _current_name(name: str) -> str:
    """Return today's name of a weight that older versions of diffusers saved under another name.

    Autoencoders of Stable Diffusion still have the old names.
    """
    path, _, kind = name.rpartition(".")
    parent, _, part = path.rpartition(".")
    return ".".join(filter(None, (parent, _OLD_NAMES.get(part, part), kind)))


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
    except RecursionError as error:
        raise InputError(f"{path} is nested too deeply to be read. Copy it again.") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}. Copy it again.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a JSON object. Copy it again.")
    return content


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
