"""Building models of diffusers and filling them with stored weights."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from vditrack.errors import InputError
from vditrack_export.checkpoints.weights import Config, StoredModel

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
    if config.get("_class_name") != model_class.__name__:
        raise InputError(
            f"{path} describes a {config.get('_class_name')}, not a {model_class.__name__}."
        )
    defaults = default_config(model_class)
    for name, value in expected.items():
        found = config.get(name, defaults.get(name))
        if _as_list(found) != _as_list(value):
            raise InputError(
                f"{path} has {name} {found}, the card {value}. Give the card of this checkpoint."
            )


def load_model(stored: StoredModel, model_class: type[nn.Module]) -> nn.Module:
    """Load a whole model in FP32, ready for inference.

    Raises:
        InputError: The configuration is invalid, or a weight is missing, unknown, of another shape
            or not finite.

    """
    return fill_weights(stored, build_empty(stored.path, model_class, stored.config))


def fill_weights(
    stored: StoredModel, model: nn.Module, skip: Callable[[str], bool] | None = None
) -> nn.Module:
    """Fill an empty model with weights in FP32, ready for inference.

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
    weights = {name: stored.weights.read(saved) for name, saved in names.items()}
    model.load_state_dict(weights, assign=True)
    return model.eval()


def build_empty(path: Path, model_class: type[nn.Module], config: Config) -> nn.Module:
    """Build a model without weights, but with the tables that are computed and not saved.

    Args:
        path: Folder or file of the model, for messages.
        model_class: Class in diffusers.
        config: Configuration of the model to build.

    Raises:
        InputError: The configuration is invalid.

    """
    try:
        with torch.device("meta"):
            model: nn.Module = model_class.from_config(config)  # type: ignore[attr-defined]
        tables = _computed_tables(model_class, config)
    # Configurations fail in as many ways as they have fields.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} does not load: {reason}") from error
    for name, table in tables.items():
        module, _, buffer = name.rpartition(".")
        setattr(model.get_submodule(module), buffer, table)
    return model


def default_config(model_class: type[nn.Module]) -> Config:
    """Return the values that a diffusers class takes for missing entries."""
    return {
        name: parameter.default
        for name, parameter in inspect.signature(model_class.__init__).parameters.items()
        if parameter.default is not parameter.empty
    }


def _as_list(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _computed_tables(model_class: type[nn.Module], config: Config) -> dict[str, Tensor]:
    """Compute the tables that are not saved, on a model without blocks."""
    if "num_layers" not in config:
        return {}
    empty: nn.Module = model_class.from_config(config | {"num_layers": 0})  # type: ignore[attr-defined]
    saved = set(empty.state_dict())
    return {name: table for name, table in empty.named_buffers() if name not in saved}


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
