"""Timing of the stages of the work on a frame."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Record = Callable[[str, float], None]
"""Called with a stage's name and duration in seconds each time it ends."""

_LISTENER: ContextVar[Record | None] = ContextVar("listener", default=None)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Time the block as a stage. Stages do not nest, so that their times add up.

    It costs a microsecond or two. A block that raises is not recorded.
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
    """Call ``record`` for every stage that ends in the block, in this thread or task."""
    token = _LISTENER.set(record)
    try:
        yield
    finally:
        _LISTENER.reset(token)
