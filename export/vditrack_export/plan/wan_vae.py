"""The Wan autoencoder, as diffusers' ``AutoencoderKLWan`` runs it.

Natively the first frame is a group of its own and every four frames after it are one more: each
group gives one latent, and what causal convolutions need of the frames before is carried over.

Frame by frame, as HeFT has it, the strided convolution in time of every temporal downsampling is
left out (and its mirror image in the decoder), so that each frame has a latent of its own: that is
what diffusers' encoder and decoder compute when they are called without a cache. All other
convolutions keep their three taps in time and look back at the two frames before. The groups stay,
since they change nothing but the memory.

That of Wan2.2-TI2V-5B makes channels of squares of pixels first, and has a shortcut around each
level, which averages what the level makes smaller and repeats what it makes larger.
"""

from collections.abc import Iterator

from vditrack_export.families.wan.shapes import WanAutoencoder
from vditrack_export.plan.causal import CausalConvolutions, joined
from vditrack_export.plan.memory import Tensor
from vditrack_export.plan.trace import Cost, Fusion, Trace

ClipSize = tuple[int, int, int]
"""Frames, height and width."""


def wan_encoder(shape: WanAutoencoder, size: ClipSize, *, compressed: bool, fusion: Fusion) -> Cost:
    """From a clip to means and variances of its latents.

    Args:
        shape: of the autoencoder.
        size: of the clip; natively the frames are 1 + a multiple of the temporal stride.
        compressed: natively, with temporal compression; else frame by frame.
        fusion: as in `Trace`.

    """
    coder = _Coder(Trace(fusion), compressed=compressed)
    moments = []
    for frames in _groups(size[0], shape.temporal_stride):
        moments.append(_encoded(coder, shape, Tensor((shape.image_channels, frames, *size[1:]))))
        coder.first = False
    every = joined(coder.trace, moments)
    result = coder.pointwise("quant_conv", every, 2 * shape.latent_channels)
    return coder.trace.cost(result)


def wan_decoder(
    shape: WanAutoencoder, latents: ClipSize, *, compressed: bool, fusion: Fusion
) -> Cost:
    """From latents (frames, rows, columns) back to frames; arguments as in `wan_encoder`."""
    coder = _Coder(Trace(fusion), compressed=compressed)
    frames, rows, columns = latents
    channels = shape.latent_channels
    clean = coder.pointwise("post_quant_conv", Tensor((channels, *latents)), channels)
    clip = []
    for _ in range(frames):
        latent = coder.trace.copied((channels, 1, rows, columns), clean)
        clip.append(_decoded(coder, shape, latent))
        coder.first = False
    return coder.trace.cost(joined(coder.trace, clip))


def _groups(frames: int, stride: int) -> Iterator[int]:
    yield 1
    for start in range(1, frames, stride):
        yield min(stride, frames - start)


def _encoded(coder: "_Coder", shape: WanAutoencoder, frames: Tensor) -> Tensor:
    """One group of frames to its latents' moments."""
    x = coder.causal("conv_in", coder.patched(frames, shape.patch), shape.base_width)
    for level, multiple in enumerate(shape.multiples):
        entering = x
        for block in range(shape.residual_blocks):
            x = coder.residual(f"down.{level}.{block}", x, multiple * shape.base_width)
        if level < len(shape.temporal_downsample):
            x = coder.downsampled(f"down.{level}", x, temporal=shape.temporal_downsample[level])
        if shape.residual:
            x = coder.trace.elementwise(x, coder.averaged(entering, x))
    x = coder.middle(x)
    return coder.head(x, 2 * shape.latent_channels)


def _decoded(coder: "_Coder", shape: WanAutoencoder, latent: Tensor) -> Tensor:
    """One latent to its group of frames."""
    base = shape.decoder_base_width or shape.base_width
    widths = [multiple * base for multiple in reversed(shape.multiples)]
    x = coder.middle(coder.causal("conv_in", latent, widths[0]))
    upsampled = shape.temporal_downsample[::-1]
    for level, width in enumerate(widths):
        entering = x
        for block in range(shape.residual_blocks + 1):
            x = coder.residual(f"up.{level}.{block}", x, width)
        if level < len(upsampled):
            narrowed = width if shape.residual else width // 2
            x = coder.upsampled(f"up.{level}", x, narrowed, temporal=upsampled[level])
            if shape.residual:
                x = coder.trace.elementwise(x, coder.repeated(entering, x))
    patches = coder.head(x, shape.image_channels * shape.patch**2)
    return coder.unpatched(patches, shape.patch)


class _Coder:
    """The layers of both halves, on [C, T, H, W], and what they carry from group to group."""

    def __init__(self, trace: Trace, *, compressed: bool) -> None:
        self.trace = trace
        self.causal = CausalConvolutions(trace).convolve
        self.first = True
        """Whether this is the first group of the clip."""
        self._compressed = compressed
        self._newest: dict[str, Tensor] = {}

    def patched(self, x: Tensor, side: int) -> Tensor:
        """Squares of pixels as channels."""
        channels, frames, height, width = x.shape
        if side == 1:
            return x
        smaller = (channels * side**2, frames, height // side, width // side)
        return self.trace.copied(smaller, x)

    def unpatched(self, x: Tensor, side: int) -> Tensor:
        """Channels as squares of pixels again."""
        channels, frames, height, width = x.shape
        if side == 1:
            return x
        return self.trace.copied((channels // side**2, frames, height * side, width * side), x)

    def averaged(self, entering: Tensor, left: Tensor) -> Tensor:
        """What entered a level, averaged to the shape of what left it."""
        if entering.shape == left.shape:
            return entering
        # What makes one mean is put side by side first.
        apart = self.trace.copied(entering.shape, entering)
        return self.trace.copied(left.shape, apart)

    def repeated(self, entering: Tensor, left: Tensor) -> Tensor:
        """What entered a level, repeated to the shape of what left it."""
        apart = self.trace.copied((left.size,), entering)
        return self.trace.copied(left.shape, apart)

    def pointwise(self, name: str, x: Tensor, channels: int) -> Tensor:
        return self.trace.convolve(name, x, channels, (1,), x.shape[1:])

    def residual(self, name: str, x: Tensor, channels: int) -> Tensor:
        grows = x.shape[0] != channels
        shortcut = self.pointwise(f"{name}.shortcut", x, channels) if grows else x
        inner = self.causal(f"{name}.conv1", self._activated(f"{name}.norm1", x), channels)
        inner = self.causal(f"{name}.conv2", self._activated(f"{name}.norm2", inner), channels)
        return self.trace.elementwise(inner, shortcut)

    def middle(self, x: Tensor) -> Tensor:
        x = self.residual("mid.0", x, x.shape[0])
        x = self._attended("mid.attention", x)
        return self.residual("mid.1", x, x.shape[0])

    def head(self, x: Tensor, channels: int) -> Tensor:
        return self.causal("conv_out", self._activated("norm_out", x), channels)

    def downsampled(self, name: str, x: Tensor, *, temporal: bool) -> Tensor:
        width, frames, height, breadth = x.shape
        half = (frames, height // 2, breadth // 2)
        x = self.trace.convolve(f"{name}.resample", x, width, (3, 3), half)
        if not (temporal and self._compressed):
            return x
        before = self._newest.get(name)
        self._newest[name] = self.trace.copied((width, 1, *half[1:]), x)
        if before is None:
            return x
        known = joined(self.trace, [before, x])
        return self.trace.convolve(
            f"{name}.time", known, width, (3, 1, 1), (frames // 2, *half[1:])
        )

    def upsampled(self, name: str, x: Tensor, channels: int, *, temporal: bool) -> Tensor:
        width, frames, height, breadth = x.shape
        if temporal and self._compressed and not self.first:
            x, frames = self._doubled(f"{name}.time", x), 2 * frames
        size = (frames, 2 * height, 2 * breadth)
        large = self.trace.copied((width, *size), x)
        return self.trace.convolve(f"{name}.resample", large, channels, (3, 3), size)

    def _doubled(self, name: str, x: Tensor) -> Tensor:
        """Twice the frames: two of each, from a convolution of three taps in time."""
        width, frames, *area = x.shape
        pairs = self.causal(name, x, 2 * width, (3, 1, 1))
        return self.trace.copied((width, 2 * frames, *area), pairs)

    def _activated(self, name: str, x: Tensor) -> Tensor:
        return self.trace.elementwise(self.trace.norm(name, x, x.shape[0]))

    def _attended(self, name: str, x: Tensor) -> Tensor:
        """Attention within each frame, one head."""
        width, frames, height, breadth = x.shape
        normed = self.trace.norm(f"{name}.norm", x, width)
        merged = self.pointwise(f"{name}.qkv", normed, 3 * width)
        tokens = (frames, height * breadth, width)
        query, key, value = (self.trace.copied(tokens, merged) for _ in range(3))
        attended = self.trace.attend(query, key, value, heads=1, node=False)
        placed = self.trace.copied(x.shape, attended)
        return self.trace.elementwise(self.pointwise(f"{name}.proj", placed, width), x)
