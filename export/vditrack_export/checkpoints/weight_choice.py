"""The choice among the weight files of a folder: variants, formats, and files in parts."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from vditrack.errors import InputError

DIFFUSERS = ("diffusion_pytorch_model",)
"""First part of the names that diffusers gives weight files."""
TRANSFORMERS = ("model", "pytorch_model")
"""Likewise transformers, in safetensors and in files of ``torch.save``."""

Format = Literal["safetensors", "bin"]

_VARIANT = r"(?:\.(?P<variant>[A-Za-z0-9_-]+))?"
_FORMAT = r"\.(?P<format>safetensors|bin)"
_PART = r"-\d{5}-of-\d{5}"


@dataclass(frozen=True)
class WeightFile:
    """A file with the weights of a model, or the index of several."""

    name: str
    variant: str
    """Such as ``fp16``; empty for the plain files."""
    format: Format
    is_index: bool


def choose_weights(
    names: Collection[str], stems: Collection[str], variant: str | None
) -> WeightFile | None:
    """Return the weight file that is read of a folder.

    Safetensors are preferred over files of ``torch.save``, and an index over a single file.

    Args:
        names: Names of the files in the folder.
        stems: First parts of the names of weight files.
        variant: The variant to take if it is there; None for the plain files or the only variant.

    Returns:
        The file; None if there is none.

    Raises:
        InputError: There are several variants and no plain file.

    """
    files = list_weights(names, stems)
    variants = sorted({file.variant for file in files})
    if variant in variants:
        chosen = variant
    elif "" in variants or not variants:
        chosen = ""
    elif len(variants) == 1 and variant is None:
        chosen = variants[0]
    else:
        raise InputError(
            f"weights are there as {', '.join(variants)}. Choose one with --variant {variants[0]}."
        )
    found = [file for file in files if file.variant == chosen]
    return min(
        found, key=lambda file: (file.format != "safetensors", not file.is_index), default=None
    )


def list_weights(names: Collection[str], stems: Collection[str]) -> list[WeightFile]:
    """Return the weight files of a folder; of files in parts, the index."""
    stem = "|".join(map(re.escape, stems))
    single = re.compile(rf"(?:{stem}){_VARIANT}{_FORMAT}")
    index = re.compile(rf"(?:{stem}){_FORMAT}\.index{_VARIANT}\.json")
    found = []
    for name in sorted(names):
        match = index.fullmatch(name) or single.fullmatch(name)
        if match and not re.search(_PART, name):
            kind: Format = "bin" if match["format"] == "bin" else "safetensors"
            is_index = match.re is index
            found.append(WeightFile(name, match["variant"] or "", kind, is_index))
    return found


def list_parts(names: Collection[str], stems: Collection[str], index: WeightFile) -> list[str]:
    """Return the names of the parts of a model that has an index, without reading the index."""
    stem = "|".join(map(re.escape, stems))
    variant = re.escape(f".{index.variant}") if index.variant else ""
    # Older versions of diffusers put the variant after the number.
    part = re.compile(rf"(?:{stem})(?:{variant}{_PART}|{_PART}{variant})\.{index.format}")
    return sorted(name for name in names if part.fullmatch(name))
