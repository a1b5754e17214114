"""What the tables of both tasks share."""

import numpy as np
from rich import box
from rich.table import Table

from vditrack.evaluation.report.summary import Estimate

SHOWN = 12
"""The number of best choices in a table."""


def make_table(title: str, caption: str, padding: tuple[int, int, int, int]) -> Table:
    """Return an empty table; ``padding`` is that of a cell: top, right, bottom, left."""
    return Table(
        title=title,
        caption=caption,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=padding,
    )


def describe_own_choice(tried: bool) -> str:
    """Return the part of a caption that explains the star."""
    return "the card's own" if tried else "the card's own was not tried"


def format_interval(value: Estimate) -> str:
    """Return a mean with its confidence interval, if it has one."""
    if not np.isfinite(value.low):
        return f"{value.mean:.1f}"
    return f"{value.mean:.1f} [{value.low:.1f}, {value.high:.1f}]"
