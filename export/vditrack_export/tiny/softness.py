"""The temperature and the "nowhere" by which a teacher's cosines predict known motion best."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch

from vditrack.coordinates import cells_from_pixels
from vditrack_export.tiny.clip_store import ClipStore
from vditrack_export.tiny.losses import Softness, known_motion_losses
from vditrack_export.tiny.model import STRIDE
from vditrack_export.tiny.student import WEIGHTS

TEMPERATURES = (0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.09)
NO_MATCHES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.94, 0.97)


@torch.no_grad()
def fit_softness(clips: ClipStore) -> Softness:
    """Return the temperature and the cosine of "nowhere" with the least loss on rendered clips.

    The loss is that of known motion, by which the student is trained too.
    """
    choices = list(product(TEMPERATURES, NO_MATCHES))
    totals = np.mean([_measure(clips, number, choices) for number in range(len(clips))], axis=0)
    temperature, no_match = choices[int(np.argmin(totals))]
    return Softness(torch.tensor(temperature), torch.tensor(no_match))


def _measure(clips: ClipStore, number: int, choices: Sequence[tuple[float, float]]) -> list[float]:
    clip = clips.read(number)
    maps = torch.from_numpy(np.array(clip.teacher)).float()[None]
    cells = torch.from_numpy(cells_from_pixels(clip.points, STRIDE))[None]
    visible = torch.from_numpy(np.array(clip.visible))[None]
    losses = []
    for temperature, no_match in choices:
        nowhere = torch.tensor(no_match)
        seen, hidden = known_motion_losses(maps, cells, visible, nowhere, temperature)
        losses.append(float(WEIGHTS["matching"] * seen + WEIGHTS["hidden"] * hidden))
    return losses
