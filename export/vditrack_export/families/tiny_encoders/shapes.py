"""Shapes of tiny encoders, derived from those of the encoder that they stand in for."""

from __future__ import annotations

from math import prod

from vditrack_export.families.base_shapes import EncoderShape, TinyEncoderKind
from vditrack_export.families.sizes import Positive

WIDTH = 64
"""Channels of every layer of TAEHV's encoder, and of TAESD's."""
TAESD_BLOCKS = (1, 3, 3, 3)
"""Residual blocks of TAESD before the first halving of the picture and after each."""
_LEVELS = 3
"""Levels of both; each halves the picture."""
_POOLED = {4: (2, 2, 1), 8: (2, 2, 2)}
"""Frames that each level of TAEHV joins, by the frames that share a latent."""


class Taehv(EncoderShape, frozen=True, kw_only=True, tag="taehv"):
    """Shapes of TAEHV's encoder (https://github.com/madebyollin/taehv)."""

    patch: Positive
    """Side, in pixels, of the squares that become channels before the first layer."""
    pooled: tuple[Positive, Positive, Positive]
    """Frames that each level joins to one."""
    published: str | None
    """Name of the published weights; None if there are none."""

    @property
    def stride(self) -> int:
        """Side of a latent, in pixels."""
        return int(self.patch * 2**_LEVELS)

    @property
    def temporal_stride(self) -> int:
        """Frames per latent."""
        return prod(self.pooled)

    def describe(self) -> str:
        """Return the shapes that differ between published models, for messages."""
        return (
            f"{self.latent_channels} channels of latents, patches of {self.patch} x {self.patch} "
            f"pixels and a latent every {self.temporal_stride} frames"
        )


class Taesd(EncoderShape, frozen=True, kw_only=True, tag="taesd"):
    """Shapes of the encoder of a diffusers ``AutoencoderTiny`` for Stable Diffusion's latents."""

    published: str | None
    """Name of the published weights; None if there are none."""

    @property
    def stride(self) -> int:
        """Side of a latent, in pixels."""
        return int(2**_LEVELS)


def derive_shape(kind: TinyEncoderKind, replaced: EncoderShape) -> Taehv | Taesd:
    """Return the shapes of the tiny encoder that gives the latents of another encoder.

    Args:
        kind: The tiny encoder.
        replaced: Shapes of the encoder that it stands in for.

    Raises:
        ValueError: There is none of this kind.

    """
    tiny = replaced.tiny_encoder
    if tiny is None or tiny.kind != kind:
        known = "there is none for this card" if tiny is None else f"give {tiny.kind}"
        raise ValueError(f"tiny_encoder {kind} does not give the latents of this card: {known}")
    patch, rest = divmod(replaced.stride, 2**_LEVELS)
    pooled = _POOLED.get(replaced.temporal_stride)
    channels = replaced.latent_channels
    if kind == "taesd" and replaced.stride == 2**_LEVELS:
        return Taesd(latent_channels=channels, published=tiny.published)
    if kind == "taesd" or rest or pooled is None:
        raise ValueError(
            f"tiny_encoder {kind} has no latents of {replaced.stride} pixels and "
            f"{replaced.temporal_stride} frames"
        )
    return Taehv(latent_channels=channels, patch=patch, pooled=pooled, published=tiny.published)
