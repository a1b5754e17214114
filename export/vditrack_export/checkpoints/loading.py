"""Building models of diffusers and filling them with stored weights."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from vditrack.errors import InputError
from vditrack_export.checkpoints.weights import Config, StoredModel

_LARGEST_NUMBER = 10**6
"""Largest number in a configuration; the largest of a card is below 30,000."""
_LONGEST_LIST = 4096
_LARGEST_TABLES = 6 * 10**7
"""Most numbers in tables that are computed; the positions of CogVideoX-2B are 3.4e7."""
_MODULES_PER_WEIGHT, _MODULES_BESIDE = 10, 1_000
"""A model has about two modules for each weight; a part of it is built for a whole file."""
_LONGEST_TEXT = 200

_Shapes = Mapping[str, Sequence[int]]

# Of an attention layer's projections.
_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def check_config(
    path: Path, config: Config, model_class: type[nn.Module], expected: Config
) -> None:
    """Compare the configuration of a model with the card's.

    Args:
        path: File of the configuration.
        config: Its content.
        model_class: Class that the configuration has to name.
        expected: Entries of the configuration that the card determines.

    Raises:
        InputError: The class or an entry differs from the card's.

    """
    found_class = config.get("_class_name")
    if found_class != model_class.__name__:
        remedy = (
            "A ControlNet is an addition to a backbone: give the backbone's own checkpoint."
            if "ControlNet" in str(found_class)
            else "Give the checkpoint that the card names, or the card of this checkpoint."
        )
        raise InputError(
            f"{path} describes a {_shorten(found_class)}, not a {model_class.__name__}. {remedy}"
        )
    _check_numbers(path, config)
    defaults = default_config(model_class)
    for name, value in expected.items():
        found = config.get(name, defaults.get(name))
        if _as_list(found) != _as_list(value):
            raise InputError(
                f"{path} has {name} {_shorten(found)}, the card {value}. Give the card of this "
                "checkpoint."
            )


def load_model(stored: StoredModel, model_class: type[nn.Module]) -> nn.Module:
    """Load a whole model in FP32, ready for inference.

    Raises:
        InputError: The configuration is invalid, or a weight is missing, unknown, of another shape
            or not finite.

    """
    return fill_weights(stored, build_empty(stored, model_class, stored.config))


def fill_weights(
    stored: StoredModel, model: nn.Module, skip: Callable[[str], bool] | None = None
) -> nn.Module:
    """Fill an empty model with weights in FP32, and compute the tables that are not saved.

    Args:
        stored: The stored model.
        model: Model of `build_empty`, changed in place.
        skip: Whether a weight of that name is left in the file.

    Raises:
        InputError: A weight is missing, unknown, of another shape or not finite.

    """
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    shapes = stored.weights.shapes()
    kept = [saved for saved in shapes if skip is None or not skip(saved)]
    names = {saved if saved in wanted else current_name(saved): saved for saved in kept}
    # diffusers' own loader fills what is missing with random numbers, and only warns.
    _check_shapes(stored.path, {name: shapes[saved] for name, saved in names.items()}, wanted)
    # After the shapes: a configuration that they contradict may ask for any amount of memory.
    _compute_tables(stored.path, model)
    weights = {name: stored.weights.read(saved) for name, saved in names.items()}
    model.load_state_dict(weights, assign=True)
    return model.eval()


def build_empty(stored: StoredModel, model_class: type[nn.Module], config: Config) -> nn.Module:
    """Build a model without weights and tables, on the device ``meta``.

    Args:
        stored: The stored model, whose number of weights limits that of modules.
        model_class: Class in diffusers.
        config: Configuration of the model to build.

    Raises:
        InputError: The configuration is invalid, or describes a model that is much larger than the
            stored one.

    """
    limit = _MODULES_BESIDE + _MODULES_PER_WEIGHT * len(stored.weights.shapes())
    try:
        with torch.device("meta"), _limit_modules(stored.path, limit):
            model: nn.Module = model_class.from_config(config)  # type: ignore[attr-defined]
    except InputError:
        raise
    # Configurations fail in as many ways as they have fields.
    except Exception as error:
        reason = _shorten(" ".join(str(error).split()))
        raise InputError(f"{stored.path} does not load: {reason}") from error
    return model


def default_config(model_class: type[nn.Module]) -> Config:
    """Return the values that a diffusers class takes for missing entries."""
    return {
        name: parameter.default
        for name, parameter in inspect.signature(model_class.__init__).parameters.items()
        if parameter.default is not parameter.empty
    }


def _check_numbers(path: Path, config: Config) -> None:
    """Check that a configuration has no number or list that no model has."""
    values: list[tuple[str, object]] = list(config.items())
    while values:
        name, value = values.pop()
        if isinstance(value, Mapping | list):
            if len(value) > _LONGEST_LIST:
                raise InputError(
                    f"{path}: {name} has {len(value)} entries, which no model has. Copy it again."
                )
            parts = value.values() if isinstance(value, Mapping) else value
            values += [(name, part) for part in parts]
        elif isinstance(value, int | float) and abs(value) > _LARGEST_NUMBER:
            raise InputError(
                f"{path}: {name} is {_shorten(value)}, which no model has. Copy it again."
            )


@contextmanager
def _limit_modules(path: Path, limit: int) -> Iterator[None]:
    """Let the construction of a model fail if it has more modules than a limit."""
    count = 0

    def count_module(_module: nn.Module, _name: str, _submodule: nn.Module | None) -> None:
        nonlocal count
        count += 1
        if count > limit:
            raise InputError(
                f"{path}: the configuration describes more than {limit} modules, many more than "
                "there are weights. Copy both from one checkpoint."
            )

    hook = register_module_module_registration_hook(count_module)
    try:
        yield
    finally:
        hook.remove()


def _shorten(value: object) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."


def _as_list(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _compute_tables(path: Path, model: Any) -> None:  # noqa: ANN401
    """Compute the tables of an empty model that are not saved, on a model without blocks."""
    config = dict(model.config)
    if "num_layers" not in config:
        return
    saved = set(model.state_dict())
    size = sum(table.numel() for name, table in model.named_buffers() if name not in saved)
    if size > _LARGEST_TABLES:
        raise InputError(
            f"{path}: the configuration describes tables of {size} numbers, which no model has. "
            "Copy it again."
        )
    empty = type(model).from_config(config | {"num_layers": 0})
    saved = set(empty.state_dict())
    for name, table in empty.named_buffers():
        if name not in saved:
            module, _, buffer = name.rpartition(".")
            setattr(model.get_submodule(module), buffer, table)


def current_name(name: str) -> str:
    """Return today's name of a weight that older versions of diffusers saved under another name.

    Autoencoders of Stable Diffusion still have the old names.
    """
    path, _, kind = name.rpartition(".")
    parent, _, part = path.rpartition(".")
    return ".".join(filter(None, (parent, _OLD_NAMES.get(part, part), kind)))


def _check_shapes(path: Path, found: _Shapes, wanted: _Shapes) -> None:
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
            f"weights in {path} are not those of its config.json: {', '.join(parts)} "
            f"({count} in all). Copy both from one checkpoint."
        )
