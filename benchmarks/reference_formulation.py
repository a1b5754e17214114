"""The HeFT formulation, written plainly: baseline of speed and truth of tests.

Descriptors are upsampled to every pixel, each step is a softmax over the whole picture, and every
frame is tracked back to the query frame. `ReferenceFormulation` is written from arXiv 2512.04619,
section 3. `PublicFormulation` does what HeFT's public code does where the paper leaves it open, and
`track_clip` tracks a clip chunk by chunk as that code does.
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


def stretched(chunk: np.ndarray) -> np.ndarray:
    """Descriptors of one frame more than a chunk's, linear in time between half-pixel centres."""
    volume = torch.from_numpy(chunk).flatten(1).T[None]
    longer = functional.interpolate(volume, size=len(chunk) + 1, mode="linear", align_corners=False)
    return longer[0].T.reshape(-1, *chunk.shape[1:]).contiguous().numpy()


def track_clip(
    chunks: list[np.ndarray], stride: int, settings: Matching, queries: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Positions [N, T, 2] and visibility [N, T] of queries [N, 3] (t, x, y).

    Chunks are descriptors float32 [frames, rows, columns, C], each of its own frames. A chunk after
    the first is stretched by a frame and tracked from the last frame of the one before, with the
    templates and the visibility of that one. Before its query a point is invisible.
    """
    frames = sum(map(len, chunks))
    trail = np.repeat(queries[:, None, 1:], frames, axis=1)
    visible = queries[:, :1] == np.arange(frames)
    for start in np.unique(queries[:, 0]).astype(int):
        group = queries[:, 0] == start
        known, begin = None, 0
        for chunk in chunks:
            first, end = max(begin - 1, 0), begin + len(chunk)
            maps = stretched(chunk) if begin else chunk
            begin = end
            if start >= end:
                continue
            formulation = PublicFormulation(maps, stride, settings)
            since = max(start, first)
            known = known or formulation.asked(queries[group, 1:], since - first)
            positions, seen, known = formulation.follow(known, since - first)
            trail[group, since:end] = positions
            visible[group, since:end] = seen
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

    def asked(self, points: np.ndarray, start: int = 0) -> Known:
        """Read the templates of points [N, 2] that are asked for in a frame."""
        places = torch.from_numpy(points).float()
        return Known(places, self.around(start, places), torch.ones(len(places), dtype=torch.bool))

    def follow(self, known: Known, start: int = 0) -> tuple[torch.Tensor, torch.Tensor, Known]:
        """Positions and visibility from a frame on, and what is known in the last frame."""
        frames = len(self.maps) - start
        trail = known.points[:, None].repeat(1, frames, 1)
        visible = known.visible[:, None].repeat(1, frames)
        templates = known.templates.clone()
        for step in range(1, frames):
            frame, limited = start + step, visible[:, step - 1]
            trail[:, step] = self.step(frame, templates, trail[:, step - 1], limited)
            error = self.backward_error(start, trail[:, : step + 1], visible[:, : step + 1])
            seen = error <= self.settings.visibility_threshold
            visible[:, step] = seen
            a = self.settings.template_update
            newest = self.around(frame, trail[:, step])
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

    def backward_error(
        self, start: int, trail: torch.Tensor, visible: torch.Tensor
    ) -> torch.Tensor:
        """RMS distance [N] to the track found from the trail's end back to its first frame."""
        last = trail.shape[1] - 1
        templates = self.around(start + last, trail[:, last])
        position = trail[:, last]
        limited = torch.ones(len(trail), dtype=torch.bool)
        compared = visible[:, :last].clone()
        compared[:, 0] = True
        squared = torch.zeros(len(trail))
        for frame in range(last - 1, -1, -1):
            position = self.step(start + frame, templates, position, limited)
            squared += compared[:, frame] * ((position - trail[:, frame]) ** 2).sum(dim=1)
            limited = visible[:, frame]
        return (squared / compared.sum(dim=1)).sqrt()

    def around(self, frame: int, points: torch.Tensor) -> torch.Tensor:
        """Descriptors [N, C] around points: 3 x 3 samples a pixel apart, weighted exp(-3 d)."""
        return self.around_in(self.cells[frame], points)

    def around_in(self, features: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """Do so in features [C, h, w] of any size that cover the picture."""
        size = torch.tensor([self.x.shape[1], self.y.shape[0]])
        total = torch.zeros(len(points), len(features))
        norm = 0.0
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                weight = math.exp(-3 * math.hypot(dx, dy))
                places = 2 * (points + torch.tensor([dx, dy])) / size - 1
                samples = functional.grid_sample(
                    features[None],
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


class PublicFormulation(ReferenceFormulation):
    """The same as HeFT's public code has it.

    Templates are read from the upsampled maps. The track backward updates its template where the
    track forward is visible. Only visible frames before the newest are compared; where there are
    none, the mean is NaN, and the point is invisible.
    """

    def backward_error(
        self, start: int, trail: torch.Tensor, visible: torch.Tensor
    ) -> torch.Tensor:
        """RMS distance [N] to the track found from the trail's end back to its first frame."""
        last, a = trail.shape[1] - 1, self.settings.template_update
        position = trail[:, last]
        templates = self.around(start + last, position)
        limited = torch.ones(len(trail), dtype=torch.bool)
        squared = torch.zeros(len(trail))
        for frame in range(last - 1, -1, -1):
            position = self.step(start + frame, templates, position, limited)
            seen = visible[:, frame]
            squared[seen] += ((position - trail[:, frame]) ** 2).sum(dim=1)[seen]
            newest = self.around(start + frame, position)
            templates[seen] = (1 - a) * templates[seen] + a * newest[seen]
            limited = seen
        return (squared / visible[:, :last].sum(dim=1)).sqrt()

    def around(self, frame: int, points: torch.Tensor) -> torch.Tensor:
        """Descriptors [N, C] around points: 3 x 3 samples of the upsampled map."""
        return self.around_in(self.maps[frame], points)
