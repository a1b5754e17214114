"""What the bundled model is trained for: flow matching, and finding known points, or not."""

import torch
from torch import Tensor
from torch.nn import functional

TEMPERATURE = 0.05
"""Of the softmax over cosine similarities."""


def trivial_denoising(sigma: float) -> float:
    """Flow-matching loss of the best predictor that looks at one latent value alone.

    From x = (1 - s) z + s e of unit variances, e - z is predicted linearly. A model that has learnt
    anything about images is below it; over uniform levels its mean is pi / 2.
    """
    return 1 / ((1 - sigma) ** 2 + sigma**2)


def noised(latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Mix latents [B, C, T, h, w] with noise at levels [B]."""
    level = sigma.view(-1, 1, 1, 1, 1)
    return (1 - level) * latents + level * noise


def bilinear_target(cells: Tensor, rows: int, columns: int) -> Tensor:
    """Weights [N, rows * columns] of the four cells around cell coordinates [N, 2] (x, y)."""
    x = cells[:, :1].clamp(0, columns - 1) - torch.arange(columns)
    y = cells[:, 1:].clamp(0, rows - 1) - torch.arange(rows)
    weight_x, weight_y = (1 - x.abs()).clamp(min=0), (1 - y.abs()).clamp(min=0)
    return (weight_y[:, :, None] * weight_x[:, None, :]).flatten(1)


def pair_cosines(descriptors: Tensor, cells: Tensor) -> Tensor:
    """Compare points of every frame with all cells of every frame of the same clip.

    Args:
        descriptors: [B, F, rows, columns, C].
        cells: [B, N, F, 2] (x, y) cell coordinates of the points in each frame.

    Returns:
        [B, F, F, N, rows * columns] cosines: clip, frame the points' descriptors are read from,
        frame searched, point, cell.

    """
    batch, frames, rows, columns = descriptors.shape[:4]
    flat = descriptors.flatten(2, 3)
    weights = bilinear_target(cells.transpose(1, 2).reshape(-1, 2), rows, columns)
    templates = weights.view(batch, frames, -1, rows * columns) @ flat
    templates, flat = functional.normalize(templates, dim=-1), functional.normalize(flat, dim=-1)
    return templates[:, :, None] @ flat[:, None].transpose(-1, -2)


def matching_loss(cosines: Tensor, wanted: Tensor, no_match: Tensor) -> Tensor:
    """Cross-entropy of finding each point among all cells of another frame, or nowhere.

    Args:
        cosines: [N, cells].
        wanted: [N, cells] weights that add up to 1, as of `bilinear_target`, or all zero where the
            point is hidden.
        no_match: the cosine that stands for "nowhere": hidden points must stay below it.

    Returns:
        [N]

    """
    nowhere = no_match.expand(len(cosines), 1)
    logits = torch.cat([cosines, nowhere], dim=1) / TEMPERATURE
    target = torch.cat([wanted, 1 - wanted.sum(dim=1, keepdim=True)], dim=1)
    return functional.cross_entropy(logits, target, reduction="none")
