"""Propagation of labels, against a plain dense rendering of its definition."""

import numpy as np
import pytest

from vditrack import propagation
from vditrack.bundle import Propagation
from vditrack.propagation import (
    LabelPropagation,
    cell_labels,
    keypoint_labels,
    keypoints_from_labels,
    mask_from_labels,
)


def settings(**changes):
    standard = {
        "motion_weight": 0.5,
        "temperature": 0.1,
        "top_k": 10,
        "radius": 4.0,
        "context": 3,
    }
    return Propagation(**(standard | changes))


def dense(features, context, wanted):
    """Labels of a frame from all context frames [(features, labels)], by the definition."""
    rows, columns, _ = features.shape
    cells = np.stack(np.mgrid[:rows, :columns], axis=-1).reshape(-1, 2)
    distance = np.linalg.norm(cells[:, None] - cells, axis=-1)
    affinity = [
        np.where(
            distance <= wanted.radius,
            features.reshape(len(cells), -1) @ past.reshape(len(cells), -1).T,
            -np.inf,
        )
        for past, _ in context
    ]
    affinity = np.concatenate(affinity, axis=1)
    most = max(labels.shape[2] for _, labels in context)
    known = [
        np.pad(labels, ((0, 0), (0, 0), (0, most - labels.shape[2]))).reshape(-1, most)
        for _, labels in context
    ]
    known = np.concatenate(known)
    found = np.zeros((len(cells), most))
    for cell, row in enumerate(affinity):
        best = np.argsort(row)[::-1][: wanted.top_k]
        best = best[np.isfinite(row[best])]
        weights = np.exp(row[best].astype(np.float64) / wanted.temperature)
        found[cell] = weights / weights.sum() @ known[best]
    return found.reshape(rows, columns, most)


def random_labels(rng, rows, columns, count):
    return rng.dirichlet(np.ones(count), (rows, columns)).astype(np.float32)


def random_features(rng, frames, rows, columns):
    every = rng.normal(size=(frames, rows, columns, 6))
    return (every / np.linalg.norm(every, axis=-1, keepdims=True)).astype(np.float32)


CASES = {
    "usual": ({}, (13, 17)),
    "all within reach": ({"radius": 40.0}, (6, 9)),
    "reach between cells": ({"radius": 2.5}, (9, 20)),
    "own place alone": ({"radius": 0.5}, (8, 8)),
    "more wanted than there are": ({"top_k": 500}, (5, 4)),
    "one of a kind": ({"top_k": 1}, (16, 16)),
    "one frame of context": ({"context": 1}, (10, 11)),
    "single row": ({}, (1, 30)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("block", [propagation.BLOCK_BYTES, 1])
def test_it_equals_the_dense_definition(case, block, monkeypatch):
    monkeypatch.setattr(propagation, "BLOCK_BYTES", block)
    changes, (rows, columns) = CASES[case]
    wanted, rng = settings(**changes), np.random.default_rng(3)
    frames = random_features(rng, 7, rows, columns)
    carrying = LabelPropagation(wanted)
    assert carrying.advance(frames[0]).shape == (rows, columns, 0)
    first = random_labels(rng, rows, columns, 3)
    carrying.mark(first)
    past = [(frames[0], first)]
    for t in range(1, len(frames)):
        recent = [past[n] for n in range(max(t - wanted.context, 0), t) if n > 0]
        expected = dense(frames[t], [past[0], *recent], wanted)
        found = carrying.advance(frames[t])
        np.testing.assert_allclose(found, expected, atol=1e-5)
        past.append((frames[t], found))


def test_objects_that_enter_later_are_known_from_then_on():
    wanted, rng = settings(context=2), np.random.default_rng(5)
    frames = random_features(rng, 6, 7, 8)
    carrying = LabelPropagation(wanted)
    # The first frame came before anything was marked, and is asked nothing.
    carrying.advance(frames[0])
    carrying.advance(frames[1])
    one = random_labels(rng, 7, 8, 2)
    carrying.mark(one)
    second = carrying.advance(frames[2])
    np.testing.assert_allclose(second, dense(frames[2], [(frames[1], one)], wanted), atol=1e-5)
    two = random_labels(rng, 7, 8, 4)
    carrying.mark(two)
    third = carrying.advance(frames[3])
    context = [(frames[1], one), (frames[2], two)]
    np.testing.assert_allclose(third, dense(frames[3], context, wanted), atol=1e-5)
    fourth = carrying.advance(frames[4])
    context.append((frames[3], third))
    np.testing.assert_allclose(fourth, dense(frames[4], context, wanted), atol=1e-5)
    assert carrying.advance(frames[5]).shape == (7, 8, 4)


def test_a_frame_marked_twice_is_asked_once():
    wanted, rng = settings(), np.random.default_rng(6)
    frames = random_features(rng, 2, 5, 5)
    labels = [random_labels(rng, 5, 5, 2) for _ in range(2)]
    carrying = LabelPropagation(wanted)
    carrying.advance(frames[0])
    for marked in labels:
        carrying.mark(marked)
    expected = dense(frames[1], [(frames[0], labels[1])], wanted)
    np.testing.assert_allclose(carrying.advance(frames[1]), expected, atol=1e-5)


def test_shares_of_cells_are_areas():
    mask = np.zeros((12, 20), np.uint8)
    mask[3:9, 5:15] = 1
    mask[0, 0] = 2
    shares = cell_labels(mask, 3, 4, 3)
    area = [
        [
            [(mask[4 * i : 4 * i + 4, 5 * j : 5 * j + 5] == k).mean() for k in range(3)]
            for j in range(4)
        ]
        for i in range(3)
    ]
    np.testing.assert_allclose(shares, area, atol=1e-6)


def test_a_mask_comes_back_from_its_own_shares():
    mask = np.zeros((48, 80), np.uint8)
    mask[8:24, 16:40], mask[32:40, 40:72] = 1, 2
    np.testing.assert_array_equal(mask_from_labels(cell_labels(mask, 48, 80, 3), 48, 80), mask)
    coarse = mask_from_labels(cell_labels(mask, 6, 10, 3), 48, 80)
    # Corners are rounded off; sides along cells stay where they were.
    assert (coarse == mask).mean() > 0.97
    np.testing.assert_array_equal(coarse[16, :], mask[16, :])


def test_keypoints_come_back_from_their_labels():
    points = np.array([[20.0, 30.0], [100.5, 61.0], [0.5, 95.5]], np.float32)
    labels = keypoint_labels(points, (96, 160), 12, 20)
    np.testing.assert_allclose(labels.sum(axis=2), 1, atol=1e-6)
    found, present = keypoints_from_labels(labels, (96, 160))
    assert present.all()
    # At the border half of the Gaussian is missing.
    assert np.linalg.norm(found - points, axis=1)[:2].max() < 1
    assert np.abs(found[2] - points[2]).max() < 8
    labels[..., 2] = 0.05
    assert keypoints_from_labels(labels, (96, 160))[1].tolist() == [True, False, True]


def test_keypoints_follow_a_field_that_moves():
    rng = np.random.default_rng(8)
    field = random_features(rng, 1, 20, 20)[0]
    points = np.array([[70.0, 80.0], [41.0, 100.0]], np.float32)
    carrying = LabelPropagation(settings(temperature=0.02, top_k=1, context=4))
    carrying.advance(field)
    carrying.mark(keypoint_labels(points, (160, 160), 20, 20))
    for t in range(1, 5):
        labels = carrying.advance(np.roll(field, t, axis=1))
    found, present = keypoints_from_labels(labels, (160, 160))
    assert present.all()
    np.testing.assert_allclose(found, points + np.array([32, 0]), atol=1.5)
