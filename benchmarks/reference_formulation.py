"""The HeFT formulation, plainly as the paper words it: baseline of speed and truth of tests.

Descriptors are upsampled to every pixel, each step is a softmax over the whole picture, and every
frame is tracked back to the query frame. Written from arXiv 2512.04619, section 3.

A clip longer than a chunk is tracked chunk by chunk, each from the last frame of the one before:
with the templates and the visibility of that one, and with its own first frame as the frame that is
tracked back to, in which every point counts.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from vditrack import Matching


@dataclass(frozen=True)
class Known:
    """What is known of N points in the frame from which they are followed."""

    points: torch.Tensor
    """[N, 2] (x, y)"""
    templates: torch.Tensor
    """[N, C]"""
    visible: torch.Tensor
    """[N]"""


def track_clip(
    chunks: list[np.ndarray], stride: int, settings: Matching, queries: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Positions [N, T, 2] and visibility [N, T] of queries [N, 3] (t, x, y).

    Chunks are descriptors float32 [frames, rows, columns, C] of more than one frame each, and each
    begins with the frame with which the one before ends. Before its query a point is invisible.
    """
    frames = 1 + sum(len(chunk) - 1 for chunk in chunks)
    trail = np.repeat(queries[:, None, 1:], frames, axis=1)
    visible = queries[:, :1] == np.arange(frames)
    for start in np.unique(queries[:, 0]).astype(int):
        group = queries[:, 0] == start
        known, first = None, 0
        for chunk in chunks:
            last = first + len(chunk) - 1
            if start < last:
                since = max(start, first)
                formulation = ReferenceFormulation(chunk[since - first :], stride, settings)
                known = known or formulation.asked(queries[group, 1:])
                positions, seen, known = formulation.follow(known)
                trail[group, since : last + 1] = positions
                visible[group, since : last + 1] = seen
            first = last
    return trail, visible


class ReferenceFormulation:
    """Follows points through the descriptors of one chunk."""

    def __init__(self, descriptors: np.ndarray, stride: int, settings: Matching) -> None:
        """Upsample descriptors float32 [T, rows, columns, C] to [T, C, rows * s, columns * s]."""
        self.cells = torch.from_numpy(descriptors).permute(0, 3, 1, 2)
        self.maps = functional.interpolate(
            self.cells, scale_factor=stride, mode="bilinear", align_corners=False
        )
        self.settings = settings
        height, width = self.maps.shape[2:]
        self.y = torch.arange(height)[:, None] + 0.5
        self.x = torch.arange(width)[None, :] + 0.5

    def track(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions [N, T, 2] and visibility [N, T] of points [N, 2] of the first frame."""
        trail, visible, _ = self.follow(self.asked(points))
        return trail.numpy(), visible.numpy()

    def asked(self, points: np.ndarray) -> Known:
        """Read the templates of points [N, 2] that are asked for in the first frame."""
        start = torch.from_numpy(points).float()
        return Known(start, self.around(0, start), torch.ones(len(start), dtype=torch.bool))

    def follow(self, known: Known) -> tuple[torch.Tensor, torch.Tensor, Known]:
        """Positions, visibility, and what is known of the points in the last frame."""
        frames = len(self.maps)
        trail = known.points[:, None].repeat(1, frames, 1)
        visible = known.visible[:, None].repeat(1, frames)
        templates = known.templates.clone()
        for frame in range(1, frames):
            limited = visible[:, frame - 1]
            trail[:, frame] = self.step(frame, templates, trail[:, frame - 1], limited)
            error = self.backward_error(trail[:, : frame + 1], visible[:, : frame + 1])
            seen = error <= self.settings.visibility_threshold
            visible[:, frame] = seen
            a = self.settings.template_update
            newest = self.around(frame, trail[:, frame])
            templates[seen] = (1 - a) * templates[seen] + a * newest[seen]
        return trail, visible, Known(trail[:, -1], templates, visible[:, -1])

    def step(
        self, frame: int, templates: torch.Tensor, before: torch.Tensor, limited: torch.Tensor
    ) -> torch.Tensor:
        """Softmax over the whole map, masked by the search radius; soft-argmax around its peak."""
        settings = self.settings
        cosines = self.cosines(frame, templates)
        outside = self.distance(before) > settings.search_radius
        cosines[outside & limited[:, None, None]] = -math.inf
        weights = (cosines / settings.temperature).flatten(1).softmax(dim=1).view_as(cosines)
        peak = weights.flatten(1).argmax(dim=1)
        width = self.x.shape[1]
        best = torch.stack([peak % width + 0.5, peak // width + 0.5], dim=1)
        # In double precision: a rounded mean of pixel coordinates wanders by a thousandth of a
        # pixel, and the argmax over pixels of a later frame turns that into whole pixels.
        weights = weights.double() * (self.distance(best) <= settings.argmax_radius)
        weights = weights / weights.sum(dim=(1, 2), keepdim=True)
        x = (weights * self.x).sum(dim=(1, 2))
        y = (weights * self.y).sum(dim=(1, 2))
        return torch.stack([x, y], dim=1).float()

    def cosines(self, frame: int, templates: torch.Tensor) -> torch.Tensor:
        """Cosine similarities [N, H, W] of templates [N, C] with every pixel's descriptor."""
        features = functional.normalize(self.maps[frame], dim=0)
        return torch.einsum("nc,chw->nhw", functional.normalize(templates, dim=1), features)

    def backward_error(self, trail: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """RMS distance [N] to the track found from the trail's end back to the query frame."""
        last = trail.shape[1] - 1
        templates = self.around(last, trail[:, last])
        position = trail[:, last]
        limited = torch.ones(len(trail), dtype=torch.bool)
        compared = visible[:, :last].clone()
        compared[:, 0] = True
        squared = torch.zeros(len(trail))
        for frame in range(last - 1, -1, -1):
            position = self.step(frame, templates, position, limited)
            squared += compared[:, frame] * ((position - trail[:, frame]) ** 2).sum(dim=1)
            limited = visible[:, frame]
        return (squared / compared.sum(dim=1)).sqrt()

    def around(self, frame: int, points: torch.Tensor) -> torch.Tensor:
        """Descriptors [N, C] around points: 3 x 3 samples a pixel apart, weighted exp(-3 d)."""
        size = torch.tensor([self.x.shape[1], self.y.shape[0]])
        total = torch.zeros(len(points), self.maps.shape[1])
        norm = 0.0
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                weight = math.exp(-3 * math.hypot(dx, dy))
                places = 2 * (points + torch.tensor([dx, dy])) / size - 1
                samples = functional.grid_sample(
                    self.cells[frame, None],
                    places[None, None],
                    padding_mode="border",
                    align_corners=False,
                )
                total += weight * samples[0, :, 0].T
                norm += weight
        return total / norm

    def distance(self, points: torch.Tensor) -> torch.Tensor:
        """Distance [N, H, W] of every pixel centre from points [N, 2]."""
        dy = self.y[None] - points[:, 1, None, None]
        dx = self.x[None] - points[:, 0, None, None]
        return (dx**2 + dy**2).sqrt()
