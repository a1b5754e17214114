"""Scores as a table and as plain data."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from vditrack.arrays import Doubles
from vditrack.evaluation.report.summary import Estimate, estimate
from vditrack_export.select.points.pairs import GAPS
from vditrack_export.select.points.scores import Choice, Scores, over

SHOWN = 12
"""Choices of the table, beside the card's own."""
_CAPTION = (
    "* {}. In brackets 95% intervals over clips, which do not know of how many choices the best is "
    "the best. still: no point moves; chance: a cell at random."
)


def table(scores: Scores, own: Choice | None, facts: Mapping[str, str]) -> Table:
    """Return the best choices, the card's own, and what no model is needed for."""
    shown = Table(
        title=f"{facts['card']} on {facts['data']}: δ in percent, and by frames apart",
        caption=_CAPTION.format("the card's own" if own else "and the card's own was not tried"),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=0,
    )
    for heading in ("noise", "block", "heads", "band", "δ"):
        shown.add_column(heading, no_wrap=True)
    for gap in GAPS:
        shown.add_column(str(gap), justify="right", no_wrap=True)
    shown.add_column("behind", no_wrap=True)
    ranked = scores.ranked()
    listed = ranked[:SHOWN]
    if own is not None and own not in listed:
        listed.append(own)
    for choice in listed:
        behind = scores.difference(ranked[0], choice) if choice != ranked[0] else None
        shown.add_row(
            *_named(choice, scores.space.heads, "*" if choice == own else ""),
            _interval(scores.estimate(choice)),
            *_by_gap(scores.by_gap(choice)),
            "" if behind is None else _interval(behind),
        )
    shown.add_section()
    for name, by_gap in (("still", scores.still), ("chance", scores.chance)):
        everything = _interval(estimate(list(over(by_gap, -1))))
        shown.add_row(name, "", "", "", everything, *_by_gap(over(by_gap, 0)), "")
    return shown


def as_json(scores: Scores, own: Choice | None, facts: Mapping[str, str]) -> dict[str, Any]:
    """Return plain data: the best choice, the card's own, and the mean of every choice."""
    ranked, space = scores.ranked(), scores.space
    return {
        **facts,
        "best": _told(scores, ranked[0]),
        "card_choice": None if own is None else _told(scores, own),
        "top": [_told(scores, choice) for choice in ranked[:SHOWN]],
        "still": _told_baseline(scores.still),
        "chance": _told_baseline(scores.chance),
        "gaps": list(GAPS),
        "clips": list(scores.clips),
        "axes": {
            "noise_levels": [level.noise for level in space.levels],
            "blocks": list(space.blocks),
            "bands": [list(kept) for kept in space.bands.ranges],
            "heads": [list(heads) for heads in space.readings],
        },
        # By noise level, block, band and heads.
        "scores": _plain(scores.mean),
    }


def head_names(choice: Choice, heads: int) -> str:
    """Return the heads of a choice, as a table has room for them."""
    if len(choice.heads) == heads:
        return f"all {heads}"
    return ", ".join(map(str, choice.heads))


def band_name(kept: tuple[float, float]) -> str:
    """Return a range of frequencies as the command line takes it."""
    return f"{kept[0]:g}-{kept[1]:g}"


def _named(choice: Choice, heads: int, mark: str) -> tuple[str, ...]:
    return (
        f"{choice.denoising.noise:.3g}{mark}",
        str(choice.block),
        head_names(choice, heads),
        band_name(choice.frequency_range),
    )


def _interval(value: Estimate) -> str:
    if not np.isfinite(value.low):
        return f"{value.mean:.1f}"
    return f"{value.mean:.1f} [{value.low:.1f}, {value.high:.1f}]".replace("[", r"\[")


def _by_gap(values: Doubles) -> list[str]:
    return [f"{value:.1f}" if np.isfinite(value) else "-" for value in values]


def _told(scores: Scores, choice: Choice) -> dict[str, Any]:
    value = scores.estimate(choice)
    return {
        "noise_level": choice.denoising.noise,
        "timestep": choice.denoising.timestep,
        "block": choice.block,
        "heads": list(choice.heads),
        "frequency_range": list(choice.frequency_range),
        "channels": choice.channels,
        "accuracy": _plain(value.mean),
        "interval": _plain([value.low, value.high]),
        "by_gap": _plain(scores.by_gap(choice)),
        "by_clip": _plain(scores.of_clips(choice)),
    }


def _told_baseline(by_gap: Doubles) -> dict[str, Any]:
    return {"accuracy": _plain(over(over(by_gap, -1), 0)), "by_gap": _plain(over(by_gap, 0))}


def _plain(values: Any) -> Any:  # noqa: ANN401
    """Numbers as JSON has them, rounded; null in the place of NaN."""
    if np.ndim(values):
        return [_plain(value) for value in values]
    number = float(values)
    return round(number, 4) if np.isfinite(number) else None
