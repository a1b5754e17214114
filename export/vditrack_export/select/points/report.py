"""Scores of points as a table and as plain data."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.table import Table

from vditrack.arrays import Doubles
from vditrack.evaluation.report.summary import estimate
from vditrack_export.select.points.pairs import GAPS
from vditrack_export.select.points.scores import Choice, Scores, average
from vditrack_export.select.tables import SHOWN, describe_own_choice, format_interval, make_table

_CAPTION = (
    "*: {}. In brackets: 95% intervals over clips; they do not account for picking the best of "
    "many choices. still: no point moves; chance: a random cell."
)


def make_score_table(scores: Scores, own: Choice | None, facts: Mapping[str, str]) -> Table:
    """Return a table of the best choices, the card's own, and the baselines without a model."""
    table = make_table(
        f"{facts['card']} on {facts['data']}: δ in percent, and by frames apart",
        _CAPTION.format(describe_own_choice(own is not None)),
        (0, 0, 0, 0),
    )
    for heading in ("noise", "block", "heads", "band", "δ"):
        table.add_column(heading, no_wrap=True)
    for gap in GAPS:
        table.add_column(str(gap), justify="right", no_wrap=True)
    table.add_column("behind", no_wrap=True)
    ranked = scores.ranked()
    listed = ranked[:SHOWN]
    if own is not None and own not in listed:
        listed.append(own)
    for choice in listed:
        behind = scores.difference(ranked[0], choice) if choice != ranked[0] else None
        table.add_row(
            *_name_choice(choice, scores.space.heads, "*" if choice == own else ""),
            format_interval(scores.estimate(choice)),
            *_format_gaps(scores.by_gap(choice)),
            "" if behind is None else format_interval(behind),
        )
    table.add_section()
    for name, by_gap in (("still", scores.still), ("chance", scores.chance)):
        mean = format_interval(estimate(list(average(by_gap, -1))))
        table.add_row(name, "", "", "", mean, *_format_gaps(average(by_gap, 0)), "")
    return table


def to_json(scores: Scores, own: Choice | None, facts: Mapping[str, str]) -> dict[str, Any]:
    """Return plain data: the best choice, the card's own, and the mean of every choice."""
    ranked, space = scores.ranked(), scores.space
    return {
        **facts,
        "warnings": [scores.warning] if scores.warning else [],
        "best": _choice_to_json(scores, ranked[0]),
        "card_choice": None if own is None else _choice_to_json(scores, own),
        "top": [_choice_to_json(scores, choice) for choice in ranked[:SHOWN]],
        "still": _baseline_to_json(scores.still),
        "chance": _baseline_to_json(scores.chance),
        "gaps": list(GAPS),
        "clips": list(scores.clips),
        "axes": {
            "noise_levels": [level.noise for level in space.levels],
            "blocks": list(space.blocks),
            "bands": [list(band) for band in space.bands.ranges],
            "heads": [list(heads) for heads in space.readings],
        },
        # By noise level, block, band and heads.
        "scores": _to_plain(scores.mean),
    }


def name_heads(choice: Choice, heads: int) -> str:
    """Return the heads of a choice as a short text; ``heads`` is the number of all heads."""
    if len(choice.heads) == heads:
        return f"all {heads}"
    return ", ".join(map(str, choice.heads))


def name_band(band: tuple[float, float]) -> str:
    """Return a frequency range as the command line takes it."""
    return f"{band[0]:g}-{band[1]:g}"


def _name_choice(choice: Choice, heads: int, mark: str) -> tuple[str, ...]:
    return (
        f"{choice.denoising.noise:.3g}{mark}",
        str(choice.block),
        name_heads(choice, heads),
        name_band(choice.frequency_range),
    )


def _format_gaps(values: Doubles) -> list[str]:
    return [f"{value:.1f}" if np.isfinite(value) else "-" for value in values]


def _choice_to_json(scores: Scores, choice: Choice) -> dict[str, Any]:
    value = scores.estimate(choice)
    return {
        "noise_level": choice.denoising.noise,
        "timestep": choice.denoising.timestep,
        "block": choice.block,
        "heads": list(choice.heads),
        "frequency_range": list(choice.frequency_range),
        "channels": choice.channels,
        "accuracy": _to_plain(value.mean),
        "interval": _to_plain([value.low, value.high]),
        "by_gap": _to_plain(scores.by_gap(choice)),
        "by_clip": _to_plain(scores.by_clip(choice)),
    }


def _baseline_to_json(by_gap: Doubles) -> dict[str, Any]:
    mean = average(average(by_gap, -1), 0)
    return {"accuracy": _to_plain(mean), "by_gap": _to_plain(average(by_gap, 0))}


def _to_plain(values: Any) -> Any:  # noqa: ANN401
    """Return numbers rounded to four decimals, nested as given, with None in place of NaN."""
    if np.ndim(values):
        return [_to_plain(value) for value in values]
    number = float(values)
    return round(number, 4) if np.isfinite(number) else None
