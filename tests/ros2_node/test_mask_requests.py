"""Mask requests: decoding, refusals and the queue."""

from array import array

import numpy as np
import pytest
from sensor_msgs.msg import Image

from vditrack_ros.masks.requests import (
    Box,
    MaskRequest,
    MaskRequestError,
    MaskRequestQueue,
    decode_mask,
    drop_superseded,
)


def test_a_mask_waits_no_longer_than_there_is_room():
    waiting = MaskRequestQueue()
    masks = [np.full((4, 6), n + 1, np.uint8) for n in range(12)]
    given_up = [waiting.add(MaskRequest(n, masks[n])) for n in range(12)]
    assert given_up[:10] == [None] * 10 and [one.stamp for one in given_up[10:]] == [0, 1]
    assert [one.stamp for one in waiting.take_between(0, 5)] == [2, 3, 4, 5]
    assert [one.stamp for one in waiting.take_after(9)] == [10, 11]
    assert len(waiting) == 4 and waiting.has(6) and not waiting.has(5)


@pytest.mark.parametrize("encoding", ["mono8", "8UC1", "mono16", "16UC1"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("padding", [0, 6])
def test_masks_as_they_may_be_laid_out(encoding, big, padding):
    mask = np.random.default_rng(0).integers(0, 256, (5, 7))
    wide = encoding.endswith(("16", "16UC1"))
    rows = mask.astype((">u2" if big else "<u2") if wide else "u1")
    data = b"".join(row.tobytes() + bytes(padding) for row in rows)
    message = Image(height=5, width=7, encoding=encoding, is_bigendian=big)
    message.step = rows.strides[0] + padding
    message.data = array("B", data)
    read = decode_mask(message)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, mask)


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("encoding", {"encoding": "32SC1"}),
        ("encoding", {"encoding": ""}),
        ("malformed", {"step": 6}),
        ("malformed", {"height": 6}),
        ("empty", {"height": 0}),
        ("empty", {"height": 0, "width": 0, "step": 0, "data": array("B")}),
        ("empty", {"data": array("B", bytes(35))}),
        ("indices", {"encoding": "mono16", "width": 3}),
    ],
)
def test_what_is_no_mask(reason, changes):
    message = Image(height=5, width=7, encoding="mono8", step=7, data=array("B", [1] * 35))
    for name, value in changes.items():
        setattr(message, name, value)
    with pytest.raises(MaskRequestError, match=r"^~/mask .*\.$") as refused:
        decode_mask(message)
    assert refused.value.reason == reason


def test_masks_that_later_ones_replace_make_room():
    waiting = MaskRequestQueue()
    mask = np.ones((4, 6), np.uint8)
    assert [waiting.add(MaskRequest(n, mask)) for n in range(30)] == [None] * 30
    assert [one.stamp for one in waiting][-1] == 29 and len(waiting) <= 10


def test_masks_that_later_ones_replace_are_left_out():
    one, both = (np.array([[0, 1]], np.uint8), np.array([[2, 1]], np.uint8))
    requests = [
        MaskRequest(10, one),
        MaskRequest(20, both),
        MaskRequest(20, one),
        MaskRequest(30, one),
        MaskRequest(5, boxes=(Box((0, 0, 1, 1), 2),)),
        MaskRequest(5, boxes=(Box((0, 0, 1, 1), 3),)),
    ]
    assert drop_superseded(requests) == [requests[n] for n in (1, 3, 5)]
    newest = MaskRequest(0, both)
    assert drop_superseded([*requests, newest]) == [requests[5], newest]
    removal = MaskRequest(0, removed=1)
    assert drop_superseded([*requests, removal]) == [*requests, removal]
