"""Checkpoints with two transformers: one for high noise and one for low noise (Wan 2.2 A14B)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vditrack.errors import InputError
from vditrack_export.checkpoints.json_files import read_json

ExpertName = Literal["high", "low"]

_COMPONENTS: dict[ExpertName, str] = {"high": "transformer", "low": "transformer_2"}
MODEL_INDEX = "model_index.json"
_TIMESTEPS = 1000
"""Number of timesteps that the boundary is a share of."""


@dataclass(frozen=True)
class Expert:
    """The transformer that is read of a checkpoint."""

    component: str
    """Name of its folder."""
    name: ExpertName | None = None
    """The noise that it is for; None if it is the only one."""
    note: str | None = None
    """What was chosen and why, for a user."""


def choose_expert(
    root: Path, component: str, timesteps: Collection[float], asked: ExpertName | None
) -> Expert:
    """Choose the transformer of a checkpoint that is read at some timesteps.

    Args:
        root: Folder of the checkpoint.
        component: Folder of the denoiser in a checkpoint that has one.
        timesteps: The timesteps, of 1000.
        asked: The choice of the user, if any.

    Raises:
        InputError: A choice is asked for and there is none, the checkpoint does not say where the
            boundary lies, or timesteps lie on both sides of it.

    """
    experts = choose_experts(root, component, timesteps, asked)
    if len(experts) > 1:
        raise InputError(
            f"timesteps {min(timesteps):g} to {max(timesteps):g} lie on both sides of the boundary "
            f"between the two transformers of {root}. Give noise levels of one side, or one "
            "transformer with --expert high or --expert low."
        )
    return experts[0]


def choose_experts(
    root: Path, component: str, timesteps: Collection[float], asked: ExpertName | None
) -> tuple[Expert, ...]:
    """Return the transformers of a checkpoint that are read at some timesteps.

    As in the pipeline of diffusers, ``transformer`` denoises at timesteps of at least
    ``boundary_ratio`` (in ``model_index.json``) times 1000, and ``transformer_2`` below.

    Args:
        root: Folder of the checkpoint, or one with its ``model_index.json``.
        component: Folder of the denoiser in a checkpoint that has one.
        timesteps: The timesteps, of 1000.
        asked: The choice of the user, if any.

    Raises:
        InputError: A choice is asked for and there is none, or the checkpoint does not say where
            the boundary lies.

    """
    index = _read_index(root)
    second = _COMPONENTS["low"]
    if component != _COMPONENTS["high"] or not (
        _names_component(index, second) or (root / second).is_dir()
    ):
        if asked is not None:
            raise InputError(
                f"--expert {asked}: checkpoint {root} has one {component}, not one for high noise "
                "and one for low noise. Leave --expert out."
            )
        return (Expert(component),)
    if asked is not None:
        return (_describe(asked, "as --expert says"),)
    ratio = index.get("boundary_ratio")
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio <= 1:
        raise InputError(
            f"checkpoint {root} has two transformers, and {MODEL_INDEX} has no boundary_ratio that "
            "says at which noise each one is used. Give --expert high (transformer) or --expert "
            "low (transformer_2)."
        )
    boundary = ratio * _TIMESTEPS
    high = [f"{step:g}" for step in sorted(timesteps) if step >= boundary]
    low = [f"{step:g}" for step in sorted(timesteps) if step < boundary]
    found = []
    if high:
        reason = f"timestep {', '.join(high)} is not below the boundary {boundary:g}"
        found.append(_describe("high", reason))
    if low:
        reason = f"timestep {', '.join(low)} is below the boundary {boundary:g}"
        found.append(_describe("low", reason))
    return tuple(found)


def _describe(name: ExpertName, reason: str) -> Expert:
    component = _COMPONENTS[name]
    return Expert(component, name, f"expert for {name} noise ({component}): {reason}")


def _read_index(root: Path) -> dict[str, Any]:
    path = root / MODEL_INDEX
    return read_json(path, root) if path.exists() else {}


def _names_component(index: dict[str, Any], component: str) -> bool:
    """Return whether a pipeline has a component; one that was left out is [null, null]."""
    entry = index.get(component)
    return isinstance(entry, list) and any(part is not None for part in entry)
