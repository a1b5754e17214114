"""Scores of masks as a table and as plain data."""

from collections.abc import Mapping
from typing import Any

import msgspec
from rich import box
from rich.table import Table

from vditrack.arrays import Doubles
from vditrack.evaluation.report.summary import Estimate, estimate
from vditrack_export.card import Masks
from vditrack_export.select.masks.scores import MaskScores
from vditrack_export.select.masks.search_space import Setting, Trial, chosen_masks

SHOWN = 12
"""Trials of the table, beside the best of each part alone and the card's own."""
_CAPTION = (
    "λ: weight of motion; beside it block and noise level of each part. * {}. In brackets 95% "
    "intervals over clips, which do not know of how many trials the best is the best. still: masks "
    "do not move."
)


def mask_table(scores: MaskScores, own: Trial | None, facts: Mapping[str, str]) -> Table:
    """Return the best trials, the best of either part alone, and the card's own."""
    shown = Table(
        title=f"{facts['card']}: J&F in percent",
        caption=_CAPTION.format("the card's own" if own else "and the card's own was not tried"),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for heading in ("λ", "motion", "appearance", *scores.clips.sets, "mean", "behind"):
        shown.add_column(heading, no_wrap=heading not in scores.clips.sets)
    best = scores.tried[scores.ranked[0]]
    for trial in _listed(scores, own):
        values = scores.tried[trial]
        shown.add_row(
            f"{trial.weight:g}{'*' * (trial == own)}",
            _named(trial.motion),
            _named(trial.appearance),
            *_scored(scores, values),
            "" if values is best else _interval(estimate(list(best - values))),
        )
    shown.add_section()
    shown.add_row("still", "", "", *_scored(scores, scores.still), "")
    return shown


def masks_as_json(
    scores: MaskScores, own: Trial | None, masks: Masks, facts: Mapping[str, str]
) -> dict[str, Any]:
    """Return plain data: the best trial, what a card would say of it, and every score."""
    clips = scores.clips
    return {
        **facts,
        "best": _told(scores, scores.ranked[0]),
        "card_choice": None if own is None else _told(scores, own),
        "suggested": msgspec.to_builtins(chosen_masks(masks, *scores.chosen())),
        "sets": list(clips.sets),
        "clips": [
            {"name": name, "set": clips.sets[number]}
            for name, number in zip(clips.names, clips.of_set, strict=True)
        ],
        "still": _values(scores, scores.still),
        "trials": [_told(scores, trial) for trial in scores.ranked],
    }


def _listed(scores: MaskScores, own: Trial | None) -> list[Trial]:
    alone = scores.best_alone("motion"), scores.best_alone("appearance")
    return list(dict.fromkeys([*scores.ranked[:SHOWN], *alone, *filter(None, [own])]))


def _named(setting: Setting | None) -> str:
    return "-" if setting is None else f"{setting.block} at {setting.denoising.noise:.3g}"


def _scored(scores: MaskScores, values: Doubles) -> list[str]:
    numbers = range(len(scores.clips.sets))
    by_set = [_interval(scores.estimate(values, number)) for number in numbers]
    return [*by_set, f"{scores.mean(values):.1f}"]


def _interval(value: Estimate) -> str:
    if value.clips < 2:
        return f"{value.mean:.1f}"
    return f"{value.mean:.1f} [{value.low:.1f}, {value.high:.1f}]".replace("[", r"\[")


def _told(scores: MaskScores, trial: Trial) -> dict[str, Any]:
    return {
        "motion_weight": trial.weight,
        "motion": _read(trial.motion),
        "appearance": _read(trial.appearance),
        **_values(scores, scores.tried[trial]),
    }


def _read(setting: Setting | None) -> dict[str, Any] | None:
    if setting is None:
        return None
    return {
        "block": setting.block,
        "noise_level": setting.denoising.noise,
        "timestep": setting.denoising.timestep,
    }


def _values(scores: MaskScores, values: Doubles) -> dict[str, Any]:
    return {
        "J&F": round(scores.mean(values), 4),
        "by_set": [round(mean, 4) for mean in scores.by_set(values)],
        "by_clip": [round(value, 4) for value in values.tolist()],
    }
