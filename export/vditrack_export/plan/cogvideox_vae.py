"""The CogVideoX autoencoder, as diffusers' ``AutoencoderKLCogVideoX`` runs it.

Natively batches of eight frames are encoded, and of two latents decoded, one after the other; the
first batch takes the remainder too. Every temporal downsampling averages pairs of frames, the first
alone where their number is odd, and every temporal upsampling repeats likewise.

Frame by frame, as HeFT has it, no frames are averaged or repeated, and each has a latent of its
own. Then a window is encoded in one piece, as `cogvideox.autoencoder` does it,
since group norms look at all frames of a batch.
"""

from dataclasses import replace

from vditrack_export.families.cogvideox.shapes import CogVideoXAutoencoder
from vditrack_export.plan.causal import CausalConvolutions, joined
from vditrack_export.plan.memory import Tensor
from vditrack_export.plan.trace import Cost, Fusion, Trace

ClipSize = tuple[int, int, int]
"""Frames, height and width."""

_FRAMES, _LATENTS = 8, 2  # of one batch
_MIDDLE = 2  # residual blocks between both halves' levels and their ends


def cogvideox_encoder(
    shape: CogVideoXAutoencoder, size: ClipSize, *, compressed: bool, fusion: Fusion
) -> Cost:
    """From a clip to means and variances of its latents.

    Args:
        shape: of the autoencoder.
        size: of the clip; natively the frames are 1 + a multiple of the temporal stride.
        compressed: natively, with temporal compression; else frame by frame.
        fusion: as in `Trace`.

    """
    frames, *area = size

    def encoding(batches: list[int]) -> Cost:
        coder = _Coder(Trace(fusion), shape, compressed=compressed)
        clips = [Tensor((shape.image_channels, batch, *area)) for batch in batches]
        return coder.trace.cost(joined(coder.trace, [coder.encoded(clip) for clip in clips]))

    one_piece = encoding([frames])
    if not compressed:
        return one_piece
    batched = encoding(_batches(frames, _FRAMES))
    # ONNX Runtime's order of the graph takes all batches through a level before the next level.
    return batched if fusion == "all" else replace(batched, peak=one_piece.peak)


def cogvideox_decoder(
    shape: CogVideoXAutoencoder, latents: ClipSize, *, compressed: bool, fusion: Fusion
) -> Cost:
    """From latents (frames, rows, columns) back to frames; arguments as in `cogvideox_encoder`."""
    coder = _Coder(Trace(fusion), shape, compressed=compressed)
    count, *area = latents
    batches = [Tensor((shape.latent_channels, batch, *area)) for batch in _batches(count, _LATENTS)]
    return coder.trace.cost(joined(coder.trace, [coder.decoded(batch) for batch in batches]))


def _batches(count: int, size: int) -> list[int]:
    if count < size:
        return [count]
    return [size + count % size, *[size] * (count // size - 1)]


class _Coder:
    """The layers of both halves, on [C, T, H, W]."""

    def __init__(self, trace: Trace, shape: CogVideoXAutoencoder, *, compressed: bool) -> None:
        self.trace = trace
        self._shape = shape
        self._compressed = compressed
        self._causal = CausalConvolutions(trace).convolve

    def encoded(self, clip: Tensor) -> Tensor:
        """One batch of frames to its latents' moments."""
        shape = self._shape
        x = self._causal("conv_in", clip, shape.widths[0])
        for level, width in enumerate(shape.widths):
            for block in range(shape.residual_blocks):
                x = self._residual(f"down.{level}.{block}", x, width)
            if level < len(shape.widths) - 1:
                x = self._downsampled(f"down.{level}", x, temporal=self._halves_time(level))
        for block in range(_MIDDLE):
            x = self._residual(f"middle.{block}", x, shape.widths[-1])
        ended = self._activated("norm_out", x)
        return self._causal("conv_out", ended, 2 * shape.latent_channels)

    def decoded(self, latents: Tensor) -> Tensor:
        """One batch of latents to its frames."""
        shape = self._shape
        widths = shape.widths[::-1]
        x = self._causal("conv_in", latents, widths[0])
        for block in range(_MIDDLE):
            x = self._residual(f"middle.{block}", x, widths[0], latents)
        for level, width in enumerate(widths):
            for block in range(shape.residual_blocks + 1):
                x = self._residual(f"up.{level}.{block}", x, width, latents)
            if level < len(widths) - 1:
                x = self._upsampled(f"up.{level}", x, temporal=self._halves_time(level))
        ended = self._activated("norm_out", x, latents)
        return self._causal("conv_out", ended, shape.image_channels)

    def _halves_time(self, level: int) -> bool:
        """Whether the step after a level changes the number of frames: the first ones do."""
        return self._compressed and 2**level < self._shape.temporal_stride

    def _residual(
        self, name: str, x: Tensor, channels: int, latents: Tensor | None = None
    ) -> Tensor:
        shortcut = x
        if x.shape[0] != channels:
            shortcut = self._pointwise(f"{name}.shortcut", x, channels)
        inner = self._activated(f"{name}.norm1", x, latents)
        inner = self._causal(f"{name}.conv1", inner, channels)
        inner = self._activated(f"{name}.norm2", inner, latents)
        inner = self._causal(f"{name}.conv2", inner, channels)
        return self.trace.elementwise(inner, shortcut)

    def _activated(self, name: str, x: Tensor, latents: Tensor | None = None) -> Tensor:
        """A norm, which in the decoder is scaled and shifted by the latents, and its activation."""
        normed = self.trace.group_norm(name, x)
        if latents is not None:
            size = (latents.shape[0], *x.shape[1:])
            enlarged = self.trace.copied(size, latents)
            scale, shift = (
                self._pointwise(f"{name}.{part}", enlarged, x.shape[0]) for part in ("y", "b")
            )
            normed = self.trace.elementwise(normed, scale, shift)
        return self.trace.silu(normed)

    def _downsampled(self, name: str, x: Tensor, *, temporal: bool) -> Tensor:
        width, frames, height, breadth = x.shape
        if temporal:
            frames = (frames + 1) // 2
            x = self.trace.copied((width, frames, height, breadth), x)
        padded = self.trace.copied((width, frames, height + 1, breadth + 1), x)
        return self.trace.convolve(name, padded, width, (3, 3), (frames, height // 2, breadth // 2))

    def _upsampled(self, name: str, x: Tensor, *, temporal: bool) -> Tensor:
        width, frames, height, breadth = x.shape
        if temporal and frames > 1:
            frames = 2 * frames - frames % 2
        size = (frames, 2 * height, 2 * breadth)
        large = self.trace.copied((width, *size), x)
        return self.trace.convolve(name, large, width, (3, 3), size)

    def _pointwise(self, name: str, x: Tensor, channels: int) -> Tensor:
        return self.trace.convolve(name, x, channels, (1,), x.shape[1:])
