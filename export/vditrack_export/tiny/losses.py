"""What the bundled model is trained for: flow matching, and the matching of known points."""

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


def sample(descriptors: Tensor, cells: Tensor) -> Tensor:
    """Bilinear descriptors [N, C] at cell coordinates [N, 2] of one map [rows, columns, C]."""
    rows, columns = descriptors.shape[:2]
    return bilinear_target(cells, rows, columns) @ descriptors.flatten(0, 1)


def matching_loss(source: Tensor, target: Tensor, from_cells: Tensor, to_cells: Tensor) -> Tensor:
    """Cross-entropy of finding each point among all cells of another frame.

    Args:
        source: [rows, columns, C] descriptors of the frame the points are taken from.
        target: [rows, columns, C] descriptors of the frame they are sought in.
        from_cells: [N, 2] (x, y) cell coordinates in the source.
        to_cells: [N, 2] the same surface's in the target.

    Returns:
        [N]

    """
    rows, columns = target.shape[:2]
    templates = functional.normalize(sample(source, from_cells), dim=1)
    cells = functional.normalize(target.flatten(0, 1), dim=1)
    logits = templates @ cells.T / TEMPERATURE
    wanted = bilinear_target(to_cells, rows, columns)
    return functional.cross_entropy(logits, wanted, reduction="none")
