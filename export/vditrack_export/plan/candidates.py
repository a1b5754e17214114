"""Sizes of picture and window that are tried against a frame rate."""

from collections.abc import Iterator

from vditrack_export.card import Card
from vditrack_export.plan.interpolation import choose_lengths
from vditrack_export.plan.runs import Mode, Question, Run, plan_run
from vditrack_export.plan.settings import Setting, is_possible

_SCALES = (1.0, 0.8, 0.65, 0.53, 0.4, 0.3)
_WINDOWS = (2, 3, 5, 9, 13, 17, 21, 25)
_MODES: tuple[Mode, ...] = ("stream", "windows")
_LARGEST_MULTIPLE = 16


def candidate_runs(card: Card, question: Question) -> list[Run]:
    """Return the run of every candidate, best first.

    Sizes keep the card's aspect ratio as far as whole cells allow. With temporal compression a
    window is one frame and a multiple of the temporal stride. A model that reads single frames has
    no other windows.

    Those that fit and hold the rate come first, the largest first. Those that do not hold the rate
    follow by the rate that they reach, and those that do not fit the device's memory come last.
    """
    settings = list(_settings(card))
    counted = choose_lengths([setting.latent_frames for setting in settings])
    runs = [
        plan_run(card, setting, mode, question, counted=counted)
        for setting in settings
        for mode in _MODES
    ]
    return sorted(runs, key=lambda run: _order(run, question.rate))


def holds(run: Run, rate: float) -> bool:
    """Return whether a run fits the device and keeps up with the camera."""
    return run.fits and run.rate >= rate


def _order(run: Run, rate: float) -> tuple[float, ...]:
    size = run.setting
    if holds(run, rate):
        return (0, -size.height * size.width, -size.frames, run.latency)
    return (1 if run.fits else 2, -run.rate)


def _settings(card: Card) -> Iterator[Setting]:
    windows = _WINDOWS if card.input.frames > 1 else (1,)
    for height, width in dict.fromkeys(_pictures(card)):
        for stride in card.encoder.temporal_strides:
            for frames in windows:
                long_enough = frames > stride or frames == card.input.frames == 1
                if long_enough and (frames - 1) % stride == 0:
                    yield Setting(height, width, frames, stride)


def _pictures(card: Card) -> Iterator[tuple[int, int]]:
    """Yield height and width of pictures that the card could be exported for."""
    size = card.input
    for scale in _SCALES:
        multiple = 1
        while multiple <= _LARGEST_MULTIPLE:
            side = multiple * card.cell
            height, width = (
                max(1, round(scale * length / side)) * side for length in (size.height, size.width)
            )
            if is_possible(card, Setting(height, width, size.frames, size.temporal_stride)):
                yield height, width
                break
            multiple *= 2
