"""Sizes of picture and window that are tried against a frame rate."""

from collections.abc import Iterator

import msgspec

from vditrack.bundle.manifest import Input
from vditrack_export.card import Card
from vditrack_export.plan.interpolation import choose_lengths
from vditrack_export.plan.latents import encoder_choices
from vditrack_export.plan.runs import Plan, Question, plan_bundle
from vditrack_export.plan.settings import Setting, is_possible, window_input

_SCALES = (1.0, 0.8, 0.65, 0.53, 0.4, 0.3)
_WINDOWS = (2, 3, 5, 9, 13, 17, 21, 25)
_LARGEST_MULTIPLE = 16


def candidate_plans(card: Card, question: Question) -> list[Plan]:
    """Return the plan of every candidate, best first.

    Where a tiny encoder gives the card's latents, both encoders are tried, unless the card has the
    tiny one already. Each describes the newest latent of a window, which is all that a stream
    reads. Sizes keep the card's aspect ratio as far as whole cells allow. With temporal compression
    a window is one frame and a multiple of the temporal stride. A model that reads single frames
    has no other windows.

    Those that fit and hold the rate come first, the largest first. Those that do not hold the rate
    follow by the rate that they reach, and those that do not fit the device's memory come last.
    """
    settings = list(_settings(card))
    counted = choose_lengths([setting.latent_frames for setting in settings])
    encoders = (card.tiny_encoder,) if card.tiny_encoder else encoder_choices(card)
    plans = [
        plan_bundle(form, describe_newest(card, setting), question, counted=counted)
        for form in (msgspec.structs.replace(card, tiny_encoder=each) for each in encoders)
        for setting in settings
    ]
    return sorted(plans, key=lambda plan: _order(plan, question.rate))


def describe_newest(card: Card, setting: Setting) -> Input:
    """Return the input of a bundle for a window that describes its newest latent alone.

    With cached keys it describes as many latents as the card.
    """
    window = window_input(card, setting)
    if setting.latent_frames == 1 or window.attention != "window":
        return window
    return msgspec.structs.replace(window, described_frames=setting.temporal_stride)


def holds(plan: Plan, rate: float) -> bool:
    """Return whether a bundle fits the device, and its streams keep up with the camera."""
    return plan.fits and plan.stream_rate >= rate


def _order(plan: Plan, rate: float) -> tuple[float, ...]:
    size = plan.setting
    if holds(plan, rate):
        area, tiny = size.height * size.width, plan.encoder is not None
        return (0, -area, -size.frames, tiny, plan.stream_seconds)
    return (1 if plan.fits else 2, -plan.stream_rate)


def _settings(card: Card) -> Iterator[Setting]:
    windows = _WINDOWS if card.input.frames > 1 else (1,)
    chunk = 1 if card.input.attention == "window" else card.input.described_latents
    for height, width in dict.fromkeys(_pictures(card)):
        for stride in card.encoder.temporal_strides:
            for frames in windows:
                setting = Setting(height, width, frames, stride)
                long_enough = frames > stride or frames == card.input.frames == 1
                # A window of one chunk at the beginning of a clip has fewer frames than later ones.
                long_enough &= frames >= chunk * stride or chunk == 1
                whole = (frames - 1) % stride == 0 and setting.latent_frames % chunk == 0
                if long_enough and whole:
                    yield setting


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
