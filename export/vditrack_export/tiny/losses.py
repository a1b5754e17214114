"""Losses of a student: known motion, the teacher's matches and descriptors, and flow matching."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

TEMPERATURE = 0.05
"""The temperature of the softmax over cosine similarities where the motion is known."""


class Softness(NamedTuple):
    """How cosine similarities become a distribution over cells and "nowhere"."""

    temperature: Tensor
    """The temperature of the softmax."""
    no_match: Tensor
    """The cosine that stands for "nowhere"."""


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
    x = cells[:, :1].clamp(0, columns - 1) - torch.arange(columns, device=cells.device)
    y = cells[:, 1:].clamp(0, rows - 1) - torch.arange(rows, device=cells.device)
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


def matching_loss(
    cosines: Tensor, wanted: Tensor, no_match: Tensor, temperature: float = TEMPERATURE
) -> Tensor:
    """Return the cross-entropy of finding each point among all cells of a frame, or nowhere.

    Args:
        cosines: [N, cells].
        wanted: target weights, [N, cells]. They sum to 1, or are all zero if the point is hidden.
        no_match: the cosine that stands for "nowhere".
        temperature: of the softmax over cosines.

    Returns:
        [N]

    """
    nowhere = no_match.expand(len(cosines), 1)
    logits = torch.cat([cosines, nowhere], dim=1) / temperature
    target = torch.cat([wanted, 1 - wanted.sum(dim=1, keepdim=True)], dim=1)
    return functional.cross_entropy(logits, target, reduction="none")


def known_motion_losses(
    descriptors: Tensor,
    cells: Tensor,
    visible: Tensor,
    no_match: Tensor,
    temperature: float = TEMPERATURE,
) -> tuple[Tensor, Tensor]:
    """Return the mean losses of matching every point of every frame in all other frames.

    Args:
        descriptors: [B, F, rows, columns, C].
        cells: cell coordinates of the points in each frame, [B, N, F, 2] (x, y).
        visible: whether they are visible there, bool [B, N, F].
        no_match: the cosine that stands for "nowhere".
        temperature: of the softmax over cosines.

    Returns:
        The loss of points that are visible in the searched frame, and of hidden ones.

    """
    rows, columns = descriptors.shape[2:4]
    seen_in = visible.transpose(1, 2)
    cosines = compare_frames(descriptors, cells)
    others = ~torch.eye(seen_in.shape[1], dtype=torch.bool, device=visible.device)
    sought = seen_in[:, :, None] & others[None, :, :, None]
    seen, hidden = sought & seen_in[:, None], sought & ~seen_in[:, None]
    targets = cells.transpose(1, 2)[:, None].expand(*seen.shape, 2)[seen]
    wanted = bilinear_target(targets, rows, columns)
    nowhere = wanted.new_zeros(int(hidden.sum()), rows * columns)
    return (
        _mean_or_zero(matching_loss(cosines[seen], wanted, no_match, temperature)),
        _mean_or_zero(matching_loss(cosines[hidden], nowhere, no_match, temperature)),
    )


def teacher_matching_loss(
    student: Tensor, teacher: Tensor, soft: Softness, taught: Softness, cells: Tensor
) -> Tensor:
    """Return how far a student's matches are from the teacher's, 0 if they are the same.

    Some cells of each frame are searched among all cells of all frames. It is the Kullback-Leibler
    divergence of the student's distribution over cells and "nowhere" from the teacher's.

    Args:
        student: unit descriptors of frames that show the same, [B, F, rows, columns, C].
        teacher: unit descriptors of the same cells, [B, F, rows, columns, D].
        soft: the student's temperature and "nowhere", which are learnt.
        taught: the teacher's.
        cells: numbers of the searched cells, int64 [Q].

    """
    found = _match_log_probabilities(student, soft, cells)
    with torch.no_grad():
        wanted = _match_log_probabilities(teacher, taught, cells)
    return (wanted.exp() * (wanted - found)).sum(dim=-1).mean()


def hint_loss(regressed: Tensor, teacher: Tensor) -> Tensor:
    """Return 1 minus the mean cosine of regressed and true descriptors, [..., D] each."""
    return 1 - functional.cosine_similarity(regressed, teacher, dim=-1).mean()


def _match_log_probabilities(descriptors: Tensor, soft: Softness, cells: Tensor) -> Tensor:
    """Return logarithms of [B, F, F, Q, cells + 1]: frame of the template, searched frame."""
    flat = descriptors.flatten(2, 3)
    cosines = flat[:, :, cells][:, :, None] @ flat[:, None].transpose(-1, -2)
    nowhere = soft.no_match.expand(*cosines.shape[:-1], 1)
    return (torch.cat([cosines, nowhere], dim=-1) / soft.temperature).log_softmax(dim=-1)


def _mean_or_zero(losses: Tensor) -> Tensor:
    """Return the mean, or zero if there are no losses."""
    return losses.sum() / max(len(losses), 1)
