"""Items that are computed ahead of their use, in a thread."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

Item = TypeVar("Item")


def prefetch(items: Iterator[Item], ahead: int = 1) -> Iterator[Item]:
    """Yield the items of an iterator, the next of which are computed meanwhile in a thread.

    So one frame is encoded while labels are propagated into the frame before it. An exception of
    the iterator is raised where its item would be returned.

    Args:
        items: what is computed.
        ahead: items that are computed, and kept, before they are asked for.

    """

    def compute() -> Item | None:
        return next(items, None)

    context = copy_context()
    with ThreadPoolExecutor(1, "prefetch") as worker:
        coming: deque[Future[Item | None]] = deque()
        try:
            coming.extend(worker.submit(context.run, compute) for _ in range(ahead))
            while (item := coming.popleft().result()) is not None:
                coming.append(worker.submit(context.run, compute))
                yield item
        finally:
            for future in coming:
                future.cancel()
