"""The encoder of ``AutoencoderKL``: of Stable Diffusion, I2VGen-XL and Stable Video Diffusion."""

from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder
from torch import Tensor, nn


class KlImageEncoder(nn.Module):
    """Images, each alone, to the posterior's mean, scaled as the UNet sees it.

    Args:
        vae: in FP32 and for inference; its submodules are shared, not copied.

    """

    def __init__(self, vae: AutoencoderKL | AutoencoderKLTemporalDecoder) -> None:
        super().__init__()
        self.encoder, self.quant_conv = vae.encoder, vae.quant_conv
        self.scaling_factor: float = vae.config.scaling_factor

    def forward(self, images: Tensor) -> Tensor:
        """Map float32 [F, 3, H, W] in [-1, 1] to latents, float32 [F, C, h, w]."""
        mean: Tensor = self.quant_conv(self.encoder(images)).chunk(2, dim=1)[0]
        return mean * self.scaling_factor
