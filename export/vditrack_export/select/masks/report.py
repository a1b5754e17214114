"""Scores of masks as a table and as plain data."""

from collections.abc import Mapping
from typing import Any

import msgspec
from rich.table import Table

from vditrack.arrays import Doubles
from vditrack.evaluation.report.summary import estimate
from vditrack_export.card import Masks
from vditrack_export.select.masks.scores import MaskScores
from vditrack_export.select.masks.search_space import Setting, Trial, replace_masks
from vditrack_export.select.tables import SHOWN, describe_own_choice, format_interval, make_table

_CAPTION = (
    "λ: weight of motion; block and noise level of each part. *: {}. In brackets: 95% intervals "
    "over clips; they do not account for picking the best of many trials. still: masks do not move."
)


def make_mask_table(scores: MaskScores, own: Trial | None, facts: Mapping[str, str]) -> Table:
    """Return a table of the best trials, the best of either part alone, and the card's own."""
    table = make_table(
        f"{facts['card']}: J&F in percent",
        _CAPTION.format(describe_own_choice(own is not None)),
        (0, 1, 0, 0),
    )
    for heading in ("λ", "motion", "appearance", *scores.clips.sets, "mean", "behind"):
        table.add_column(heading, no_wrap=heading not in scores.clips.sets)
    best = scores.by_trial[scores.ranked[0]]
    for trial in _list_trials(scores, own):
        values = scores.by_trial[trial]
        table.add_row(
            f"{trial.weight:g}{'*' * (trial == own)}",
            _name_setting(trial.motion),
            _name_setting(trial.appearance),
            *_format_scores(scores, values),
            "" if values is best else format_interval(estimate(list(best - values))),
        )
    table.add_section()
    table.add_row("still", "", "", *_format_scores(scores, scores.still), "")
    return table


def masks_to_json(
    scores: MaskScores, own: Trial | None, masks: Masks, facts: Mapping[str, str]
) -> dict[str, Any]:
    """Return plain data: the best trial, the ``[masks]`` section for it, and every score."""
    clips = scores.clips
    return {
        **facts,
        "warnings": [scores.warning] if scores.warning else [],
        "best": _trial_to_json(scores, scores.ranked[0]),
        "card_choice": None if own is None else _trial_to_json(scores, own),
        "suggested": msgspec.to_builtins(replace_masks(masks, *scores.chosen())),
        "sets": list(clips.sets),
        "clips": [
            {"name": name, "set": clips.sets[number]}
            for name, number in zip(clips.names, clips.of_set, strict=True)
        ],
        "still": _scores_to_json(scores, scores.still),
        "trials": [_trial_to_json(scores, trial) for trial in scores.ranked],
    }


def _list_trials(scores: MaskScores, own: Trial | None) -> list[Trial]:
    alone = scores.best_alone("motion"), scores.best_alone("appearance")
    return list(dict.fromkeys([*scores.ranked[:SHOWN], *alone, *filter(None, [own])]))


def _name_setting(setting: Setting | None) -> str:
    return "-" if setting is None else f"{setting.block} at {setting.denoising.noise:.3g}"


def _format_scores(scores: MaskScores, values: Doubles) -> list[str]:
    numbers = range(len(scores.clips.sets))
    by_set = [format_interval(scores.estimate(values, number)) for number in numbers]
    return [*by_set, f"{scores.mean(values):.1f}"]


def _trial_to_json(scores: MaskScores, trial: Trial) -> dict[str, Any]:
    return {
        "motion_weight": trial.weight,
        "motion": _setting_to_json(trial.motion),
        "appearance": _setting_to_json(trial.appearance),
        **_scores_to_json(scores, scores.by_trial[trial]),
    }


def _setting_to_json(setting: Setting | None) -> dict[str, Any] | None:
    if setting is None:
        return None
    return {
        "block": setting.block,
        "noise_level": setting.denoising.noise,
        "timestep": setting.denoising.timestep,
    }


def _scores_to_json(scores: MaskScores, values: Doubles) -> dict[str, Any]:
    return {
        "J&F": round(scores.mean(values), 4),
        "by_set": [round(mean, 4) for mean in scores.by_set(values)],
        "by_clip": [round(value, 4) for value in values.tolist()],
    }
