"""The losses of the bundled model: flow matching and matching of points with known tracks."""

import torch
from torch import Tensor
from torch.nn import functional

TEMPERATURE = 0.05
"""The temperature of the softmax over cosine similarities."""


def trivial_denoising(sigma: float) -> float:
    """Return the flow-matching loss of the best predictor that sees one latent value alone.

    It predicts e - z linearly from x = (1 - s) z + s e, where z and e have unit variance. A model
    that has learnt anything about images is below it. Its mean over uniform levels is pi / 2.
    """
    return 1 / ((1 - sigma) ** 2 + sigma**2)


def mix_noise(latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Return latents [B, C, T, h, w] mixed with noise of the same shape at levels [B]."""
    level = sigma.view(-1, 1, 1, 1, 1)
    return (1 - level) * latents + level * noise


def bilinear_target(cells: Tensor, rows: int, columns: int) -> Tensor:
    """Return the bilinear weights of the four cells around points, [N, rows * columns].

    Args:
        cells: cell coordinates of the points, [N, 2] (x, y); they are clamped to the grid.
        rows: the number of rows.
        columns: the number of columns.

    """
    x = cells[:, :1].clamp(0, columns - 1) - torch.arange(columns)
    y = cells[:, 1:].clamp(0, rows - 1) - torch.arange(rows)
    weight_x, weight_y = (1 - x.abs()).clamp(min=0), (1 - y.abs()).clamp(min=0)
    return (weight_y[:, :, None] * weight_x[:, None, :]).flatten(1)


def compare_frames(descriptors: Tensor, cells: Tensor) -> Tensor:
    """Return the cosines of points of every frame with all cells of every frame of their clip.

    Args:
        descriptors: [B, F, rows, columns, C].
        cells: cell coordinates of the points in each frame, [B, N, F, 2] (x, y).

    Returns:
        [B, F, F, N, rows * columns]: clip, frame of the templates, searched frame, point, cell.

    """
    batch, frames, rows, columns = descriptors.shape[:4]
    flat = descriptors.flatten(2, 3)
    weights = bilinear_target(cells.transpose(1, 2).reshape(-1, 2), rows, columns)
    templates = weights.view(batch, frames, -1, rows * columns) @ flat
    templates, flat = functional.normalize(templates, dim=-1), functional.normalize(flat, dim=-1)
    return templates[:, :, None] @ flat[:, None].transpose(-1, -2)


def matching_loss(cosines: Tensor, wanted: Tensor, no_match: Tensor) -> Tensor:
    """Return the cross-entropy of finding each point among all cells of a frame, or nowhere.

    Args:
        cosines: [N, cells].
        wanted: target weights, [N, cells]. They sum to 1, or are all zero if the point is hidden.
        no_match: the cosine that stands for "nowhere".

    Returns:
        [N]

    """
    nowhere = no_match.expand(len(cosines), 1)
    logits = torch.cat([cosines, nowhere], dim=1) / TEMPERATURE
    target = torch.cat([wanted, 1 - wanted.sum(dim=1, keepdim=True)], dim=1)
    return functional.cross_entropy(logits, target, reduction="none")
