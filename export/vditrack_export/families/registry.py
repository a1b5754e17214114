"""The list of families, and the family of a card's shapes.

Each folder has ``shapes.py`` with the tables of a card, listed in ``DENOISERS`` and ``ENCODERS``,
and ``family.py`` with two dictionaries of the same names, from these tables to subclasses of
`Denoiser` and `Encoder`. Reading a card needs the shapes alone, and so no torch.
Tiny encoders, which stand in for those of families, are in the folder ``tiny_encoders``.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from vditrack_export.families.base_shapes import DenoiserShape, EncoderShape, TinyEncoderKind
from vditrack_export.families.tiny_encoders.shapes import derive_shape

if TYPE_CHECKING:
    from vditrack_export.families.base_family import Family

FAMILIES = (
    "cogvideox",
    "cosmos",
    "hunyuan",
    "ltx",
    "skyreels",
    "tiny",
    "unet",
    "wan",
    "wan_causal",
)


def _import(family: str, module: str) -> ModuleType:
    return import_module(f"{__package__}.{family}.{module}")


_DENOISER_FAMILIES: dict[type[DenoiserShape], str] = {
    shape: family for family in FAMILIES for shape in _import(family, "shapes").DENOISERS
}
_ENCODER_FAMILIES: dict[type[EncoderShape], str] = {
    shape: family for family in FAMILIES for shape in _import(family, "shapes").ENCODERS
}

DENOISER_SHAPES = tuple(_DENOISER_FAMILIES)
ENCODER_SHAPES = tuple(_ENCODER_FAMILIES)


@lru_cache
def resolve_family(
    denoiser: DenoiserShape, encoder: EncoderShape, tiny_encoder: TinyEncoderKind | None = None
) -> Family:
    """Return the family of a card's shapes. This needs torch and diffusers.

    Args:
        denoiser: Shapes of the transformer or UNet.
        encoder: Shapes of the checkpoint's encoder.
        tiny_encoder: The tiny encoder that stands in for it.

    """
    from vditrack_export.families.base_family import Family  # noqa: PLC0415

    denoisers = _import(_DENOISER_FAMILIES[type(denoiser)], "family").DENOISERS
    if tiny_encoder is None:
        used, folder = encoder, _ENCODER_FAMILIES[type(encoder)]
    else:
        used, folder = derive_shape(tiny_encoder, encoder), "tiny_encoders"
    encoders = _import(folder, "family").ENCODERS
    return Family(
        denoiser=denoisers[type(denoiser)](denoiser, encoder), encoder=encoders[type(used)](used)
    )
