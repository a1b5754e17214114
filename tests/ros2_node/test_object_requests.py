"""Requests on `~/add_objects`: reading them, checking each object, and giving indices."""

import cv2
import numpy as np
import pytest

from doubles.ros_loopback import image_message
from vditrack.errors import InputError
from vditrack_ros.masks.object_requests import ObjectIndices, check_objects, read_objects

SIZE = (96, 128)
MASK = np.zeros(SIZE, np.uint8)
MASK[:10, :10], MASK[20:30, 20:30] = 7, 3


def png(mask):
    return cv2.imencode(".png", mask)[1].tobytes()


@pytest.mark.parametrize("mask", [image_message(MASK, 0, "mono8"), png(MASK)], ids=["image", "png"])
def test_masks_and_boxes_are_read(mask):
    request = read_objects({"stamp": 5, "mask": mask, "boxes": [1, 2, 3.5, 4], "box_ids": [9]})
    np.testing.assert_array_equal(request.mask, MASK)
    assert (request.stamp, request.boxes, request.box_ids) == (5, ((1, 2, 3.5, 4),), (9,))
    request = read_objects({"mask": image_message(MASK[:0, :0], 0, "mono8"), "boxes": [0, 0, 1, 1]})
    assert request.mask is None and request.box_ids == (0,)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "neither a mask nor boxes"),
        ({"boxes": [1, 2, 3]}, "3 numbers as boxes"),
        ({"boxes": [1, 2, 3, 4], "box_ids": [1, 2]}, "1 boxes and 2 box_ids"),
        ({"mask": b"no picture"}, "no PNG with one channel"),
        ({"mask": png(np.zeros((4, 4, 3), np.uint8))}, "no PNG with one channel"),
        ({"mask": png(np.full((4, 4), 256, np.uint16))}, "the index 256"),
        ({"mask": png(np.zeros((4, 4), np.uint8))}, "marks no object"),
    ],
)
def test_what_cannot_be_read_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        read_objects(fields)


def test_each_object_has_an_index_or_a_reason():
    known = ObjectIndices()
    known.reserve([1, 2])
    boxes = [[0, 0, 9, 9], [5, 5, 5, 9], [200, 0, 210, 9], [0, 0, 9, 9], [0, 0, 9, 9], [0, 0, 9, 9]]
    fields = {"mask": png(MASK), "boxes": np.ravel(boxes), "box_ids": [0, 0, 0, 2, 3, 256]}
    checked = check_objects(read_objects(fields), SIZE, known)
    assert checked.ids == [3, 7, 4, 0, 0, 2, 0, 0]
    told = [reason.partition(" is ")[2] or reason for reason in checked.reasons]
    assert told[:3] == ["", "", ""] and told[5] == ""
    assert told[3] == "no box: x0 must be below x1, and y0 below y1."
    assert "has no pixel in the image of 128 x 96" in told[4]
    assert told[6] == "The request has object 3 twice."
    assert told[7].startswith("no index of an object")
    assert [box.index for box in checked.accepted.boxes] == [4, 2]
    assert checked.accepted.indices == [3, 7, 4, 2]
    assert len(checked.errors) == 4


def test_a_mask_of_another_size_is_refused_and_the_boxes_are_not():
    request = read_objects({"mask": png(MASK[:-1]), "boxes": [0, 0, 9, 9]})
    checked = check_objects(request, SIZE, ObjectIndices())
    assert checked.ids == [0, 0, 1] and "128 x 95, the frame 128 x 96" in checked.reasons[0]
    assert checked.accepted.mask is None
    # While its image is to come its size is not known.
    assert check_objects(request, None, ObjectIndices()).ids == [3, 7, 1]


def test_an_index_is_used_again_as_late_as_possible():
    known = ObjectIndices()
    assert [known.find_free() for _ in range(3)] == [1, 2, 3]
    known.reserve(range(1, 256))
    assert known.find_free() == 0
    known.release(2)
    known.release(9)
    assert known.find_free() == 9 and 9 not in known
    assert known.find_free() == 2
