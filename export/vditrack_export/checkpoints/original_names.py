"""Weights of a model by the names of diffusers, from files that name them otherwise.

The names of diffusers themselves are taken as they are, behind any known prefix; the names of
original repositories are converted by the functions that diffusers has for its classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
from diffusers.loaders.single_file_utils import infer_diffusers_model_type
from torch import Tensor, nn

from vditrack_export.checkpoints.deferred import DeferredTensor, defer
from vditrack_export.checkpoints.dequantised import DequantisedWeights
from vditrack_export.checkpoints.loading import current_name
from vditrack_export.checkpoints.weights import Config

Shapes = Mapping[str, tuple[int, ...]]

_Convert = Callable[..., dict[str, Tensor]]

_WRAPPERS = ("state_dict.", "generator_ema.", "generator.", "model_ema.", "module.")
"""Prefixes that training programs put before all names. The first that a file has is taken: of
averaged weights and others, the averaged ones, which are those for inference."""
_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "model.", "vae.", "first_stage_model.")
"""Prefixes before the names of one model."""
_INFIXES = ("_fsdp_wrapped_module.", "_orig_mod.", "_checkpoint_wrapped_module.")
"""Parts of names that torch's wrappers of modules leave."""


class RenamedWeights:
    """Weights of one model by the names of diffusers.

    Args:
        stored: The weights by the names in the files.
        tensors: What each is computed from.

    """

    def __init__(self, stored: DequantisedWeights, tensors: Mapping[str, DeferredTensor]) -> None:
        """Keep both; no weight is read."""
        self.files = stored.files
        self._stored = stored
        self._tensors = tensors

    def shapes(self) -> Shapes:
        """Return the shape of each tensor, by the name that it has in diffusers."""
        return {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}

    def read(self, name: str) -> Tensor:
        """Read one tensor as float32, checked to be finite."""
        # A split gives views, which would keep the whole tensor in memory.
        return self._tensors[name].compute(self._stored.read).clone()

    def kinds(self) -> tuple[str, ...]:
        """Return the types with fewer than 16 bits in which tensors are stored, sorted."""
        origins = {origin for tensor in self._tensors.values() for origin in tensor.origins}
        return self._stored.kinds(origins)


@dataclass(frozen=True)
class Fit:
    """How the tensors of a file fit a model."""

    weights: RenamedWeights
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    misshapen: tuple[str, ...]
    wanted: int
    """Number of tensors of the model."""

    @property
    def complete(self) -> bool:
        """Whether the file has the model's tensors, and no others."""
        return not (self.missing or self.unknown or self.misshapen)

    @property
    def errors(self) -> tuple[int, int]:
        """Numbers of tensors that are missing, and that do not belong to the model."""
        return len(self.missing), len(self.unknown) + len(self.misshapen)

    @property
    def recognised(self) -> bool:
        """Whether the file has at least half of the model's tensors, of whatever shape."""
        return 2 * len(self.missing) < self.wanted


def is_convertible(model_class: type[nn.Module]) -> bool:
    """Return whether diffusers converts original checkpoints of a class."""
    return _converter(model_class) is not None


def fit_names(
    stored: DequantisedWeights, model_class: type[nn.Module], config: Config, wanted: Shapes
) -> Fit:
    """Name the tensors of a file as diffusers does; of several ways, the one that fits best.

    Args:
        stored: The tensors.
        model_class: Class in diffusers.
        config: Configuration of the model.
        wanted: The model's tensors.

    """
    best: Fit | None = None
    for view in _views(stored.shapes()):
        for names in (view, _convert(view, model_class, config)):
            fit = _compare(stored, names, wanted)
            if fit.complete:
                return fit
            if best is None or fit.errors < best.errors:
                best = fit
    assert best is not None
    return best


def describe_misfit(path: Path, fit: Fit, model_class: type[nn.Module], stored: Shapes) -> str:
    """Return why a file does not fit a model, and what to do."""
    kind = model_class.__name__
    if fit.recognised:
        complaints = {
            "is missing": fit.missing,
            "is not one of its tensors": fit.unknown,
            "has another shape": fit.misshapen,
        }
        parts = [f"{min(names)} {what}" for what, names in complaints.items() if names]
        count = sum(map(len, complaints.values()))
        return (
            f"{path} is not the {kind} of the card: {', '.join(parts)} ({count} in all). Give the "
            "file of this card's checkpoint, or the card of this file's."
        )
    if is_convertible(model_class):
        known = "neither diffusers' own names nor the original ones that diffusers converts"
        remedy = f"Give the file or folder of the {kind}."
    else:
        known = "not diffusers' own names, and diffusers converts no others for this class"
        remedy = f"Give a {kind} as diffusers saves it."
    guess = _guess(stored)
    return (
        f"{path} has no {kind}: the names of its {len(stored)} tensors, such as {min(stored)}, are "
        f"{known}.{guess} {remedy}"
    )


def _guess(stored: Shapes) -> str:
    """Return what diffusers takes a file for, if it knows."""
    for view in _views(stored):
        try:
            kind = infer_diffusers_model_type(dict(view))
        # It looks at shapes and names that other files may not have.
        except Exception:
            continue
        # The default for unknown files.
        if kind != "v1":
            return f" It looks like a file of {kind}."
    return ""


def _views(shapes: Shapes) -> Iterator[dict[str, DeferredTensor]]:
    """Yield the tensors of a file under their names, and without the prefixes that they have."""
    tensors = {_without_infixes(name): defer(name, shape) for name, shape in shapes.items()}
    yield tensors
    wrapper = next((prefix for prefix in _WRAPPERS if _inside(tensors, prefix)), "")
    tensors = _inside(tensors, wrapper)
    if wrapper:
        yield tensors
    for prefix in _PREFIXES:
        inside = _inside(tensors, prefix)
        if inside:
            yield inside
            # Some conversions want just these prefixes.
            for other in ("model.diffusion_model.", "vae."):
                yield {other + name: tensor for name, tensor in inside.items()}
    yield {f"vae.{name}": tensor for name, tensor in tensors.items()}


def _without_infixes(name: str) -> str:
    for infix in _INFIXES:
        name = name.replace(infix, "")
    return name


def _inside(tensors: Mapping[str, DeferredTensor], prefix: str) -> dict[str, DeferredTensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _convert(
    view: Mapping[str, DeferredTensor], model_class: type[nn.Module], config: Config
) -> dict[str, DeferredTensor]:
    convert = _converter(model_class)
    if convert is None:
        return {}
    try:
        converted = convert(checkpoint=dict(view), config=config)
    # The conversions expect the names and shapes of their own model.
    except Exception:
        return {}
    return {
        name: tensor for name, tensor in converted.items() if isinstance(tensor, DeferredTensor)
    }


def _converter(model_class: type[nn.Module]) -> _Convert | None:
    known: dict[str, dict[str, Any]] = SINGLE_FILE_LOADABLE_CLASSES
    entry = known.get(model_class.__name__)
    return None if entry is None else entry["checkpoint_mapping_fn"]


def _compare(
    stored: DequantisedWeights, names: Mapping[str, DeferredTensor], wanted: Shapes
) -> Fit:
    names = {
        name if name in wanted else current_name(name): tensor for name, tensor in names.items()
    }
    shared = wanted.keys() & names.keys()
    return Fit(
        weights=RenamedWeights(stored, {name: names[name] for name in sorted(shared)}),
        missing=tuple(sorted(wanted.keys() - names.keys())),
        unknown=tuple(sorted(names.keys() - wanted.keys())),
        misshapen=tuple(sorted(n for n in shared if tuple(names[n].shape) != tuple(wanted[n]))),
        wanted=len(wanted),
    )
