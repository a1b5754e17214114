"""Fixtures of the streams' tests."""

from collections.abc import Callable
from typing import Any

import pytest

from vditrack import InputError


@pytest.fixture(scope="session")
def assert_stamps_rise() -> Callable[..., None]:
    """Check that a stream refuses a stamp older than the last one and NaN, and resets its clock."""

    def check(stream: Any, frame: Any) -> None:
        stream.push(frame, 5.0)
        with pytest.raises(InputError, match=r"older than the last frame's, 5\.0.*reset"):
            stream.push(frame, 4.0)
        with pytest.raises(InputError, match="nan"):
            stream.push(frame, float("nan"))
        stream.reset()

    return check
