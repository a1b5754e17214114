"""Features that are computed ahead of their use, in a thread."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

Item = TypeVar("Item")


def prefetch(items: Iterator[Item]) -> Iterator[Item]:
    """Yield the items of an iterator, the next of which is computed meanwhile in a thread.

    So one frame is encoded while labels are propagated into the frame before it. An exception of
    the iterator is raised where its item would be returned.
    """

    def compute() -> Item | None:
        return next(items, None)

    context = copy_context()
    with ThreadPoolExecutor(1, "prefetch") as worker:
        ahead = worker.submit(context.run, compute)
        while (item := ahead.result()) is not None:
            ahead = worker.submit(context.run, compute)
            yield item
