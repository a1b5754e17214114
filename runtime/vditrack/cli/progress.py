"""Progress bars on stderr."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from vditrack.cli.console import PlainConsole

ProgressCallback = Callable[[int, int | None], None]
"""Called with (steps done, steps in all); the second is None where it is not known."""


@contextmanager
def progress_bars(*, quiet: bool) -> Iterator[Progress]:
    """Yield progress bars with the estimated time left, on stderr; they print nothing if quiet."""
    columns = (
        TextColumn("{task.description:>9}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=PlainConsole(stderr=True), disable=quiet) as bars:
        yield bars


def add_progress_bar(bars: Progress, title: str, total: int | None = None) -> ProgressCallback:
    """Add a bar and return the callback that moves it."""
    task = bars.add_task(title, total=total)

    def update(done: int, total: int | None) -> None:
        bars.update(task, completed=done, total=total)

    return update
