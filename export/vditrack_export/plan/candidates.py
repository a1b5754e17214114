"""Which sizes of picture and window hold a rate."""

from collections.abc import Iterator

from vditrack_export.card import Card
from vditrack_export.plan.pipeline import Setting
from vditrack_export.plan.runs import Mode, Question, Run, plan_run

_SCALES = (1.0, 0.8, 0.65, 0.53, 0.4, 0.3)
_WINDOWS = (2, 3, 5, 9, 13, 17, 21, 25)
_MODES: tuple[Mode, ...] = ("stream", "windows")


def candidate_runs(card: Card, question: Question) -> list[Run]:
    """Every candidate's run: those that fit and hold the rate first, the largest first of them.

    Sizes keep the card's aspect ratio as far as whole cells allow. With temporal compression a
    window is one frame and a multiple of the temporal stride. Those that do not hold the rate
    follow by the rate they reach, and those that do not fit the device's memory come last.
    """
    runs = [
        plan_run(card, setting, mode, question) for setting in _settings(card) for mode in _MODES
    ]
    return sorted(runs, key=lambda run: _order(run, question.rate))


def holds(run: Run, rate: float) -> bool:
    """Whether a run fits the device and keeps up with the camera."""
    return run.fits and run.rate >= rate


def _order(run: Run, rate: float) -> tuple[float, ...]:
    size = run.setting
    if holds(run, rate):
        return (0, -size.height * size.width, -size.frames, run.latency)
    return (1 if run.fits else 2, -run.rate)


def _settings(card: Card) -> Iterator[Setting]:
    side = card.cell
    for scale in _SCALES:
        height, width = (
            max(1, round(scale * length / side)) * side
            for length in (card.input.height, card.input.width)
        )
        for stride in card.encoder.temporal_strides:
            for frames in _WINDOWS:
                if frames > stride and (frames - 1) % stride == 0:
                    yield Setting(height, width, frames, stride)
