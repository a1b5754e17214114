"""The encoder of TAEHV (https://github.com/madebyollin/taehv, MIT licence), for clips and streams.

The encoder turns each group of as many frames as share a latent into one latent. Memory blocks see
the frame before, so nothing looks ahead of a group.

**Alignment.** A checkpoint's own encoder makes its first latent of frame 0 and latent k of the four
frames up to frame 4k. TAEHV's decoder agrees: it decodes latent k to four frames, of which the
first three of a clip are dropped, so that the last of the four is frame 4k. But TAEHV's encoder
makes latent k of the group of frames 4k to 4k + 3, of which the own latent has seen only the first,
and of its memory of the frames before; a clip that ends within a group is completed by repeating
its last frame. That is how the encoder was distilled, and how a clip that is encoded and decoded
keeps its frames in place. So here latent k is the last one that the encoder gives for the clip that
ends with frame 4k, where frame 4k is repeated: it depends on no later frame and comes without
delay. (To repeat frame 0 at the beginning instead would make groups of the own encoder's frames,
but latents that lag three frames behind.)

In a stream, a group is encoded twice: with its first frame repeated, which gives the latent, and
when all its frames are known, which gives the memory for the groups after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vditrack.errors import InputError
from vditrack_export.families.rounded_products import round_input
from vditrack_export.families.tiny_encoders.shapes import WIDTH, Taehv

_BLOCKS = 3
"""Memory blocks of a level."""


class TemporalPool(nn.Module):
    """Joins ``frames`` consecutive frames to one.

    Args:
        frames: Number of frames.

    """

    def __init__(self, frames: int) -> None:
        """Build the layer with random weights."""
        super().__init__()
        self.frames = frames
        self.conv = nn.Conv2d(frames * WIDTH, WIDTH, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [F, C, H, W] to [F / frames, C, H, W]."""
        joined: Tensor = self.conv(x.reshape(-1, self.frames * WIDTH, *x.shape[2:]))
        return joined


class MemoryBlock(nn.Module):
    """A residual block that also sees its input at the frame before."""

    def __init__(self) -> None:
        """Build the layers with random weights."""
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(2 * WIDTH, WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
        )

    def forward(self, x: Tensor, rounded: Tensor, memory: Tensor) -> Tensor:
        """Map frames [F, C, H, W] to as many.

        Args:
            x: The frames.
            rounded: The same in the precision of the weights.
            memory: The frame before them in that precision, [1, C, H, W].

        """
        past = torch.cat((memory, rounded[:-1]))
        return F.relu(self.conv(torch.cat((rounded, past), dim=1)) + x)

    def round(self, x: Tensor) -> Tensor:
        """Return frames in the precision of the weights."""
        return round_input(self.conv[0], x)


class TaehvNetwork(nn.Module):
    """The layers of TAEHV's encoder, under their names in its files.

    Args:
        shape: Its shapes.

    """

    def __init__(self, shape: Taehv) -> None:
        """Build the layers with random weights."""
        super().__init__()
        self.shape = shape
        layers: list[nn.Module] = [nn.Conv2d(3 * shape.patch**2, WIDTH, 3, padding=1), nn.ReLU()]
        for frames in shape.pooled:
            layers += [
                TemporalPool(frames),
                nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1, bias=False),
                *(MemoryBlock() for _ in range(_BLOCKS)),
            ]
        layers.append(nn.Conv2d(WIDTH, shape.latent_channels, 3, padding=1))
        self.encoder = nn.Sequential(*layers)

    @property
    def levels(self) -> Iterator[tuple[TemporalPool, nn.Module, Sequence[MemoryBlock]]]:
        """Temporal pooling, strided convolution and memory blocks of each level."""
        layers = list(self.encoder)[2:-1]
        for start in range(0, len(layers), 2 + _BLOCKS):
            pool, downsample, *blocks = layers[start : start + 2 + _BLOCKS]
            yield pool, downsample, blocks  # type: ignore[misc]

    def as_pixels(self, frames: Tensor) -> Tensor:
        """Map uint8 [F, H, W, 3] RGB to float32 [F, 3 patch^2, H / patch, W / patch] in [0, 1]."""
        # Cast before the transpose: TensorRT cannot transpose uint8.
        pixels = frames.to(torch.float32).permute(0, 3, 1, 2) / 255
        return F.pixel_unshuffle(pixels, self.shape.patch) if self.shape.patch > 1 else pixels

    def forward(self, frames: Tensor) -> Tensor:
        """Encode a whole clip at once, in the groups of frames that TAEHV encodes.

        This is the plain form that streams are compared with.

        Args:
            frames: uint8 [F, H, W, 3] RGB. The last frame is repeated to complete a group.

        Returns:
            Latents, float32 [F / group, C, h, w], rounded up.

        """
        x = self.as_pixels(frames)
        missing = -len(x) % self.shape.temporal_stride
        x = torch.cat((x, x[-1:].expand(missing, *x.shape[1:])))
        for layer in self.encoder:
            memory = (x, torch.zeros_like(x[:1])) if isinstance(layer, MemoryBlock) else ()
            x = layer(x, *memory)
        return x


class TaehvStreamEncoder(nn.Module):
    """Maps a group of frames and the caches of the previous group to a latent and the next caches.

    The first group is a single frame and comes without caches; groups after it have as many frames
    as share a latent. The caches are the previous group's last frame, and of each memory block its
    input at the frame before that.

    Args:
        network: The layers in FP32; they are shared.

    """

    def __init__(self, network: TaehvNetwork) -> None:
        """Share the layers."""
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        """Encode uint8 [F, H, W, 3] RGB.

        Returns:
            Latents in the transformer's scale, float32 [1, C, 1, h, w]; then the caches.

        Raises:
            InputError: The frames do not make a latent.

        """
        shape = self.network.shape
        if len(frames) != (shape.temporal_stride if caches else 1):
            raise InputError(
                "the frames do not make whole latents: a clip begins with one frame, and "
                f"{shape.temporal_stride} more are one more latent."
            )
        first = self.network.encoder[0]
        pixels = round_input(first, self.network.as_pixels(frames))
        if caches:
            pixels = torch.cat((caches[0], pixels))
        latent, memories = self._encode(pixels, caches[1:])
        return (latent.transpose(0, 1)[None], pixels[-1:].clone(), *memories)

    def _encode(self, pixels: Tensor, memories: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Encode a complete group, if there is one, and the beginning of the next.

        Args:
            pixels: The frames of the complete group; then the first of the next, which stands for
                all frames of that group.
            memories: Of each memory block; none at the beginning of a clip.

        Returns:
            The latent of the next group [1, C, h, w], and the memories after the complete group.

        """
        network, coming = self.network, iter(memories)
        # Frames of the complete group, and copies of the newest frame after them.
        complete, copies = len(pixels) - 1, network.shape.temporal_stride
        after: list[Tensor] = []
        x = F.relu(network.encoder[0](pixels))
        for pool, downsample, blocks in network.levels:
            if len(x) - complete < copies:
                # Copies are equal until they meet memories, so one is computed for all.
                x = torch.cat((x, x[-1:].expand(pool.frames - 1, *x.shape[1:])))
            x = downsample(pool(x))
            complete, copies = complete // pool.frames, copies // pool.frames
            missing = copies - (len(x) - complete)
            if missing:
                x = torch.cat((x, x[-1:].expand(missing, *x.shape[1:])))
            for block in blocks:
                rounded = block.round(x)
                # Memory is zero at the beginning of a clip.
                memory = next(coming, rounded[:1] * 0)
                after.append(rounded[complete - 1 : complete].clone() if complete else memory)
                x = block(x, rounded, memory)
        latent: Tensor = network.encoder[-1](x[-1:])
        return latent, after


class TaehvFrameEncoder(nn.Module):
    """Encodes single frames, each as the first frame of a clip of its own.

    Args:
        network: The layers in FP32; they are shared.

    """

    def __init__(self, network: TaehvNetwork) -> None:
        """Share the layers."""
        super().__init__()
        self.stream = TaehvStreamEncoder(network)

    def forward(self, frames: Tensor) -> Tensor:
        """Encode uint8 [1, H, W, 3] RGB to a latent, float32 [1, C, 1, h, w]."""
        latents: Tensor = self.stream(frames)[0]
        return latents
