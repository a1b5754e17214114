"""Stages of the work on a frame, timed for whoever listens."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Record = Callable[[str, float], None]
"""Called with a stage's name and the seconds it took, each time it ends."""

_LISTENER: ContextVar[Record | None] = ContextVar("listener", default=None)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Mark the block as a stage. Stages do not nest, so that their times add up.

    Costs a microsecond or two. A block that raises is not recorded.
    """
    record = _LISTENER.get()
    if record is None:
        yield
        return
    began = time.perf_counter()
    yield
    record(name, time.perf_counter() - began)


@contextmanager
def record_stages(record: Record) -> Iterator[None]:
    """Have every stage that ends in the block, in this thread or task, told to ``record``."""
    token = _LISTENER.set(record)
    try:
        yield
    finally:
        _LISTENER.reset(token)
