"""Items that are computed ahead, in a thread."""

import threading

import pytest

from vditrack.features.prefetching import prefetch


def test_the_next_item_is_computed_while_one_is_used():
    computed = [threading.Event() for _ in range(3)]

    def items():
        for number, event in enumerate(computed):
            event.set()
            yield number

    ahead = prefetch(items())
    assert next(ahead) == 0
    assert computed[1].wait(10)
    assert not computed[2].is_set()
    assert list(ahead) == [1, 2]


def test_an_error_comes_in_its_place():
    def items():
        yield 1
        raise OSError("of the second item")

    ahead = prefetch(items())
    assert next(ahead) == 1
    with pytest.raises(OSError, match="second"):
        next(ahead)


def test_no_thread_is_left_behind():
    before = threading.active_count()
    ahead = prefetch(iter(range(100)))
    next(ahead)
    ahead.close()
    assert threading.active_count() == before
