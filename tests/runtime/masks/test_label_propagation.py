"""Label propagation against the dense formulation, other resamplings, and known motion."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np
import pytest
import torch
from torch.nn import functional

import plain_matching
from doubles.propagating import DISPLACEMENT
from moving_features import translated_maps, wave_field
from propagation import dense_affinity, dense_labels
from vditrack.bundle.configuration import Propagation
from vditrack.bundle.folder import bundled_model, load_bundle
from vditrack.masks import cell_matching, label_propagation
from vditrack.masks.label_propagation import LabelPropagation
from vditrack.masks.objects import MaskedObjects
from vditrack.masks.soft_labels import cell_labels, mask_from_labels

SETTINGS = Propagation(motion_weight=0.4, temperature=0.1, top_k=10, radius=4.0, context=3)
ROWS, COLUMNS, STRIDE = 24, 30, 8
SIZE = (ROWS * STRIDE, COLUMNS * STRIDE)
OTHER_CONTENT = [6, 7, 8]


def changed(**changes) -> Propagation:
    return msgspec.structs.replace(SETTINGS, **changes)


def features_of(rng, frames: int, rows: int, columns: int, channels: int = 12) -> np.ndarray:
    features = rng.normal(size=(frames, rows, columns, channels))
    return (features / np.linalg.norm(features, axis=-1, keepdims=True)).astype(np.float32)


def labels_of(rng, rows: int, columns: int, count: int) -> np.ndarray:
    return rng.dirichlet(np.ones(count), (rows, columns)).astype(np.float32)


def widened(labels: np.ndarray, count: int) -> np.ndarray:
    return np.pad(labels, ((0, 0), (0, 0), (0, count - labels.shape[2])))


def context_of(t: int, marks: dict[int, int], length: int) -> list[int]:
    """Context frames of frame t: annotated ones and the last, none before the first annotated."""
    last = range(max(t - length, min(marks)), t)
    return sorted({*(frame for frame in marks if frame < t), *last})


def assert_equals_dense(
    settings: Propagation, rows: int, columns: int, marks: dict[int, int]
) -> None:
    """Compare frame by frame, with K labels set on frames ``marks`` {t: K}.

    Each frame is computed from the labels that earlier frames were given. Where two cells tie for
    the last of the top k, up to rounding, either may be taken.
    """
    rng = np.random.default_rng(7)
    features, known = features_of(rng, 8, rows, columns), []
    propagation = LabelPropagation(settings)
    for t, newest in enumerate(features):
        found = propagation.advance(newest)
        count = max((marks[frame] for frame in marks if frame < t), default=0)
        assert found.shape == (rows, columns, count)
        assert found.dtype == np.float32
        if count:
            frames = context_of(t, marks, settings.context)
            affinity = dense_affinity(newest, features[frames], settings.radius)
            labels = np.stack([widened(known[frame], count) for frame in frames])
            expected = dense_labels(affinity, labels, settings)
            decided = ~(gap_after(affinity, settings.top_k) < 1e-6)
            assert decided.mean() > 0.95
            difference = np.abs(found - expected).reshape(rows * columns, count)
            assert difference[decided].max() < 1e-5
        if t in marks:
            found = labels_of(rng, rows, columns, marks[t])
            propagation.set_labels(found)
        known.append(found)


class DenseMotion:
    """Propagation with velocities by its definition, label by label and frame by frame."""

    def __init__(self, settings: Propagation, rows: int, columns: int, count: int) -> None:
        self.settings, self.shape = settings, (rows, columns)
        self.cells = np.stack(np.mgrid[:rows, :columns][::-1], axis=2).reshape(-1, 2)
        self.speed, self.place = np.zeros((2, count, 2))
        self.frames: list[tuple[np.ndarray, ...]] = []

    def affinity(self, newest: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        """Products [cells, frames x cells]; -inf for cells too far from their predicted place."""
        how, age = self.settings.displacement, len(self.frames)
        parts = []
        for features, labels, place, speed, speeds in self.frames:
            owner = labels.reshape(len(self.cells), -1).argmax(axis=1)
            now = self.cells + self.place[owner] - place[owner]
            distance = np.linalg.norm(self.cells[:, None] - now, axis=2)
            products = np.inner(newest, features).reshape(2 * (len(self.cells),))
            beside = speeds.reshape(-1, 2) - speed[owner]
            apart = velocity.reshape(-1, 1, 2) - (self.speed[owner] + how.deviation * beside)
            squares = (apart**2).sum(axis=2) / how.spread**2
            products = products + self.settings.motion_weight**2 * np.exp(-squares / 2)
            radius = min(how.slack + how.drift * age, self.settings.radius)
            behind = np.where(owner == 0, min(radius + how.slack, self.settings.radius), radius)
            products = products - how.uncovered * (distance > radius)
            if len(self.speed) > 2:
                products -= how.falloff * (distance / radius) ** 2
            products[distance > behind] = -np.inf
            parts.append(products)
            age -= 1
        return np.concatenate(parts, axis=1)

    def remember(self, features: np.ndarray, labels: np.ndarray, velocity: np.ndarray) -> None:
        weights = np.square(labels.astype(np.float64))
        sums = [np.square(frame[1].astype(np.float64)).sum((0, 1)) for frame in self.frames]
        sums.append(weights.sum((0, 1)))
        own = np.einsum("ijk,ijd->kd", weights, velocity) / np.maximum(sums[-1], 1e-9)[:, None]
        seen = sums[-1] / np.maximum(np.max(sums[-self.settings.context :], axis=0), 1e-9)
        self.speed = self.speed + seen[:, None] * (own - self.speed)
        self.frames.append((features, labels, self.place, self.speed, velocity))
        self.place = self.place + self.speed


@pytest.mark.parametrize("objects", [1, 2])
@pytest.mark.parametrize("block", [cell_matching.BLOCK_BYTES, 1])
@pytest.mark.parametrize(
    ("slack", "drift", "radius", "rows", "columns"),
    [
        (1.3, 0.4, 4.0, 13, 17),
        (1.0, 0.0, 4.0, 9, 20),
        (2.0, 1.0, 3.0, 21, 6),
        (1.0, 0.0, 9.0, 1, 1),
    ],
)
def test_labels_move_with_their_objects(
    monkeypatch, block, slack, drift, radius, rows, columns, objects
):
    monkeypatch.setattr(cell_matching, "BLOCK_BYTES", block)
    how = msgspec.structs.replace(
        DISPLACEMENT,
        spread=1.0,
        slack=slack,
        drift=drift,
        deviation=0.7,
        falloff=0.3,
        uncovered=0.2,
    )
    settings = changed(radius=radius, displacement=how)
    rng = np.random.default_rng(11)
    features = features_of(rng, 4, rows, columns)
    # Objects of one label each, so that each has its own motion.
    owners = rng.choice(3, (rows, columns), p=[0.1, 0.45, 0.45]).clip(max=objects)
    first = np.eye(1 + objects, dtype=np.float32)[owners]
    drifts = np.array([[0.2, -0.1], [-1.5, 0.4], [0.9, 1.3]])[: 1 + objects]
    propagation = LabelPropagation(settings)
    dense = DenseMotion(settings, rows, columns, 1 + objects)
    unseen = 0
    for t in range(4):
        velocity = (first @ drifts * (1 + t / 4)).astype(np.float32)
        velocity += rng.normal(0, 0.2, velocity.shape).astype(np.float32)
        found = propagation.advance(features[t], velocity)
        if t == 0:
            found = first
            propagation.set_labels(first)
        else:
            affinity = dense.affinity(features[t], velocity)
            known = np.stack([frame[1] for frame in dense.frames])
            new = np.isneginf(affinity.max(axis=1))
            expected = dense_labels(affinity, known, settings).reshape(rows * columns, -1)
            expected[new] = np.eye(1 + objects)[0]
            decided = ~(gap_after(affinity, settings.top_k) < 1e-6)
            difference = np.abs(found.reshape(rows * columns, -1) - expected)
            assert difference[decided].max() < 1e-5
            unseen += new.sum()
        dense.remember(features[t], found, velocity)
    # With a slack of one cell, some cells have no neighbour.
    assert unseen > 0 or slack > 1 or rows == 1 or objects == 1


@pytest.mark.parametrize("objects", [1, 3])
def test_labels_equal_the_plain_form(objects):
    """With the bundled model's settings, over frames in which objects move and are found again."""
    settings = load_bundle(bundled_model()).manifest.propagation
    rng, count = np.random.default_rng(13), 1 + objects
    maps = translated_maps(
        wave_field(24, seed=5, shortest=24), np.arange(7)[:, None] * (7.0, 3.0), 20, 26, STRIDE
    )
    maps += rng.normal(0, 0.1, maps.shape).astype(np.float32)
    maps *= 0.6 / np.linalg.norm(maps, axis=3, keepdims=True)
    owners = rng.integers(0, count, (5, 7)).repeat(4, axis=0).repeat(4, axis=1)[:, :26]
    velocity = rng.normal((0.8, 0.3), 0.2, (7, 20, 26, 2)).astype(np.float32)
    propagation = LabelPropagation(settings)
    for t, newest in enumerate(maps):
        plain = propagation.copy()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(label_propagation, "propagate_labels", plain_matching.propagate_labels)
            expected = plain.advance(newest, velocity[t])
        found = propagation.advance(newest, velocity[t])
        np.testing.assert_allclose(found, expected, atol=1e-5)
        if t in (0, 4):
            propagation.set_labels(np.eye(count, dtype=np.float32)[owners])


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_limited(monkeypatch, threads):
    used = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, count: int) -> None:
            used.append(count)
            super().__init__(count)

    monkeypatch.setattr(cell_matching, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(cell_matching, "count_cores", lambda: 4)
    objects, size = MaskedObjects(SETTINGS, threads), (ROWS, COLUMNS)
    for features in features_of(np.random.default_rng(3), 2, *size):
        objects.advance(features, size)
        objects.add_masks(np.eye(*size, dtype=np.uint8))
    assert used[0] == threads


def test_objects_are_found_by_velocity_alone():
    how = msgspec.structs.replace(
        DISPLACEMENT, spread=1.0, slack=1.0, drift=0.0, deviation=0.0, falloff=0.0, uncovered=0.5
    )
    objects = MaskedObjects(changed(displacement=how, context=2))
    size, rng = (8, 40), np.random.default_rng(12)
    # All products are about 1. Noise decides which cells are taken, and not their order.
    features = np.ones((11, *size, 17), np.float32)
    features[..., 1:] = rng.normal(0, 0.02, (11, *size, 16))
    first, second = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    first[2:6, 4:9], second[2:6, 30:36] = 1, 2
    velocity = np.zeros((8, 40, 2), np.float32)
    velocity[..., 0] = 1.5
    for t in range(11):
        objects.advance(features[t], size, velocity)
        if t == 0:
            objects.add_masks(first)
        if t == 6:
            # The frames in between are forgotten from here on, but not their time.
            objects.add_masks(second)
    across = np.mgrid[:8, :40][1]
    assert across[objects.mask == 1].mean() == pytest.approx(6 + 1.5 * 10, abs=0.6)
    assert across[objects.mask == 2].mean() == pytest.approx(32.5 + 1.5 * 4, abs=1.1)


def gap_after(affinity: np.ndarray, top_k: int) -> np.ndarray:
    """Gap between the last product taken and the next, for each cell; NaN where all are taken."""
    if affinity.shape[1] <= top_k:
        return np.full(len(affinity), np.nan)
    best = np.sort(affinity, axis=1)[:, ::-1]
    with np.errstate(invalid="ignore"):
        return best[:, top_k - 1] - best[:, top_k]


@pytest.mark.parametrize("block", [cell_matching.BLOCK_BYTES, 40_000, 3_000])
@pytest.mark.parametrize(
    ("changes", "rows", "columns"),
    [
        ({}, 13, 17),
        ({}, 8, 16),
        ({"radius": 2.5, "context": 1}, 21, 9),
        ({"radius": 0.5}, 6, 7),
        ({"radius": 1000.0, "context": 28}, 11, 10),
        ({"top_k": 1}, 9, 12),
        ({"top_k": 5000, "radius": 3.0}, 7, 9),
        ({"top_k": 30, "radius": 1.0}, 10, 10),
        ({"temperature": 0.03}, 9, 10),
        ({}, 1, 25),
        ({}, 1, 1),
    ],
)
def test_labels_equal_the_dense_formulation(monkeypatch, changes, rows, columns, block):
    """Also if few products fit into memory at a time."""
    monkeypatch.setattr(cell_matching, "BLOCK_BYTES", block)
    assert_equals_dense(changed(**changes), rows, columns, {0: 3})


@pytest.mark.parametrize(
    "marks",
    [
        {2: 3},
        {0: 2, 3: 4},
        {0: 2, 1: 2, 2: 3, 6: 5},
        {1: 1, 2: 2},
    ],
)
@pytest.mark.parametrize("length", [1, 3, 20])
def test_objects_added_later(marks, length):
    assert_equals_dense(changed(context=length), 9, 11, marks)


def test_labels_of_three_cells_by_hand():
    """Three cells in a row: the middle one has both others in its radius, those only it."""
    features = np.array([[[1, 0], [0, 1], [0.6, 0.8]]], np.float32)
    labels = np.array([[[1, 0], [0, 1], [0.5, 0.5]]], np.float32)
    propagation = LabelPropagation(changed(radius=1.0, top_k=2, temperature=0.5))
    propagation.advance(features)
    propagation.set_labels(labels)
    found = propagation.advance(np.array([[[1, 0], [1, 0], [0, 2]]], np.float32))
    # Products 1 and 0; 1, 0 and 0.6; 2 and 1.6, each over the temperature.
    first, second, third = (1 / (1 + np.exp(-x)) for x in (2, 0.8, 0.8))
    shares = [1 - first, (1 - second) / 2, third + (1 - third) / 2]
    np.testing.assert_allclose(found[0, :, 1], shares, atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=2), 1, atol=1e-6)


def test_setting_labels_again_replaces_them():
    rng = np.random.default_rng(1)
    features = features_of(rng, 2, 7, 8)
    first, second = labels_of(rng, 7, 8, 2), labels_of(rng, 7, 8, 3)
    results = []
    for marks in ([second], [first, second]):
        propagation = LabelPropagation(SETTINGS)
        propagation.advance(features[0])
        for labels in marks:
            propagation.set_labels(labels)
        results.append(propagation.advance(features[1]))
    np.testing.assert_array_equal(*results)


def test_annotated_frames_outlive_the_queue():
    """An object annotated long ago is found again, though all frames since show other content."""
    rng = np.random.default_rng(2)
    features, labels = features_of(rng, 1, 6, 8, 64)[0], np.zeros((6, 8, 2), np.float32)
    labels[..., 0], labels[2:4, 3:6] = 1, (0, 1)
    propagation = LabelPropagation(changed(context=2, top_k=1))
    propagation.advance(features)
    propagation.set_labels(labels)
    for other in features_of(rng, 5, 6, 8, 64):
        propagation.advance(other)
    np.testing.assert_array_equal(propagation.advance(features), labels)


def test_returned_labels_are_read_only():
    propagation = LabelPropagation(SETTINGS)
    features = features_of(np.random.default_rng(3), 2, 4, 5)
    propagation.advance(features[0])
    propagation.set_labels(np.ones((4, 5, 1), np.float32))
    with pytest.raises(ValueError, match="read-only"):
        propagation.advance(features[1])[0, 0, 0] = 7


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "columns", "radius", "length"), [(60, 107, 15.0, 200), (300, 100, 1000.0, 3)]
)
def test_memory_is_bounded(monkeypatch, rows, columns, radius, length):
    """Of the first strips of the last frame; all products at once would be 33 and 14 GB."""
    strips = cell_matching._strips
    monkeypatch.setattr(cell_matching, "_strips", lambda *sides: [])
    features = features_of(np.random.default_rng(4), length + 2, rows, columns, 4)
    propagation = LabelPropagation(changed(radius=radius, context=length))
    propagation.advance(features[0])
    propagation.set_labels(np.full((rows, columns, 2), 0.5, np.float32))
    for newest in features[1:-1]:
        propagation.advance(newest)
    labels = rows * columns * 2 * 4
    # One strip for each thread.
    threads = cell_matching.count_cores()
    monkeypatch.setattr(cell_matching, "_strips", lambda *sides: strips(*sides)[:threads])
    tracemalloc.start()
    propagation.advance(features[-1])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - labels < 3 * cell_matching.BLOCK_BYTES


@pytest.mark.parametrize("grid", [(3, 4), (7, 11), (1, 1), (9, 5), (8, 30)])
def test_cell_labels_are_shares_of_area(grid):
    """Cells that are not whole numbers of pixels, against pixels split until they are."""
    rows, columns = grid
    mask = np.random.default_rng(5).integers(0, 4, (7, 11), np.uint8)
    fine = np.repeat(np.repeat(mask, rows, axis=0), columns, axis=1)
    blocks = fine.reshape(rows, 7, columns, 11).transpose(0, 2, 1, 3).reshape(rows, columns, -1)
    expected = (blocks[..., None] == np.arange(5)).mean(axis=2)
    np.testing.assert_allclose(cell_labels(mask, rows, columns, 5), expected, atol=1e-6)


@pytest.mark.parametrize("size", [(60, 107), (61, 33), (8, 11), (5, 90)])
def test_masks_are_interpolated_bicubically(size):
    labels = labels_of(np.random.default_rng(6), 8, 11, 5)
    planes = torch.from_numpy(labels).permute(2, 0, 1)[None]
    shares = functional.interpolate(planes, size, mode="bicubic", align_corners=False)[0].numpy()
    mask, best = mask_from_labels(labels, *size), np.sort(shares, axis=0)
    assert mask.dtype == np.uint8
    decided = best[-1] - best[-2] > 1e-5
    assert decided.mean() > 0.95
    np.testing.assert_array_equal(mask[decided], shares.argmax(axis=0)[decided])


def test_masks_of_no_label_and_of_all():
    assert not mask_from_labels(np.zeros((3, 4, 0), np.float32), 6, 8).any()
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(mask_from_labels(cell_labels(mask, 16, 16, 256), 16, 16), mask)


def test_equal_shares_are_the_first_label():
    labels = np.full((2, 2, 3), 1 / 3, np.float32)
    assert not mask_from_labels(labels, 4, 4).any()


@pytest.fixture(scope="module")
def maps() -> np.ndarray:
    """Features of a field that moves right and down; some frames show other content."""
    offsets = np.stack([np.arange(14) * 4.4, np.arange(14) * 2.7], axis=1)
    maps = translated_maps(wave_field(64, seed=3, shortest=48), offsets, ROWS, COLUMNS, STRIDE)
    maps[OTHER_CONTENT] = features_of(np.random.default_rng(9), 3, ROWS, COLUMNS, 64)
    return (maps / np.linalg.norm(maps, axis=-1, keepdims=True)).astype(np.float32)


def test_masks_follow_a_moving_field_and_are_found_again(maps):
    """While the field shows something else, the mask is lost; afterwards it is where it should be.

    The context of two frames holds nothing but other content by then, so that the annotated frame
    alone finds the object again.
    """
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    propagation = LabelPropagation(changed(temperature=0.02, context=2, radius=15.0))
    propagation.advance(maps[0])
    propagation.set_labels(cell_labels(disc(x, y, 80, 70), ROWS, COLUMNS, 2))
    for t, newest in enumerate(maps[1:], start=1):
        mask = mask_from_labels(propagation.advance(newest), *SIZE) > 0
        truth = disc(x, y, 80 + 4.4 * t, 70 + 2.7 * t) > 0
        overlap = (mask & truth).sum() / (mask | truth).sum()
        print(t, overlap)
        assert overlap > 0.9 if t not in OTHER_CONTENT else overlap < 0.5


def disc(x: np.ndarray, y: np.ndarray, centre_x: float, centre_y: float) -> np.ndarray:
    return (np.hypot(x + 0.5 - centre_x, y + 0.5 - centre_y) < 40).astype(np.uint8)
