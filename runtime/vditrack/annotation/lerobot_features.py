"""Tracks as features of a LeRobot data set: their names, columns and statistics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Doubles, Floats
from vditrack.errors import InputError
from vditrack.input_checks.files import MalformedError, decode_json

PREFIX = "observation.tracks."
"""Begin of the names of features; LeRobot gives policies what begins with ``observation``."""
_CAMERA_PREFIXES = ("observation.images.", "observation.")
_BASE_STATISTICS = ("min", "max", "mean", "std", "count")
_HUGGINGFACE = b"huggingface"
"""Key of a table's metadata under which ``datasets`` stores its types."""
_ARRAY = "datasets.features.features.Array2DExtensionType"

MEASURED = (0, 2)
"""Places in `TrackFeatures.names` of the features that have statistics."""
Statistics = dict[str, NDArray[Any]]
"""Statistics of a feature, by the names that LeRobot gives them."""


class EpisodeTracks(NamedTuple):
    """N points in the T frames of one camera of an episode."""

    points: Floats
    """float32 [T, N, 2] (x, y); NaN where there is no point."""
    visible: NDArray[np.bool_]
    """bool [T, N]."""
    confidence: Floats
    """float32 [T, N]."""


@dataclass(frozen=True)
class TrackFeatures:
    """The features of one camera."""

    camera: str
    """Key of the camera."""
    name: str
    """Feature of the positions; those of visibility and confidence add a suffix."""
    count: int
    """Number of points, N."""
    coordinates: str
    """Unit of the positions: ``pixels`` or ``normalized``."""

    @property
    def names(self) -> tuple[str, str, str]:
        """Names of the features of positions, visibility and confidence."""
        return self.name, f"{self.name}.visible", f"{self.name}.confidence"

    def describe(self) -> dict[str, dict[str, Any]]:
        """Return the entries for ``features`` in ``meta/info.json``."""
        info = {"camera": self.camera, "coordinates": self.coordinates}
        kinds = zip(self.names, ("float32", "bool", "float32"), strict=True)
        shapes = ([self.count, 2], [self.count], [self.count])
        return {
            name: {"dtype": kind, "shape": shape, "names": None, "info": info}
            for (name, kind), shape in zip(kinds, shapes, strict=True)
        }

    def make_fields(self, pa: Any) -> list[Any]:  # noqa: ANN401
        """Return the pyarrow fields of the columns."""
        extension = {
            "ARROW:extension:name": _ARRAY,
            "ARROW:extension:metadata": f'[[{self.count}, 2], "float32"]',
        }
        nested = pa.list_(pa.list_(pa.float32()))
        points, visible, confidence = self.names
        return [
            pa.field(points, nested, metadata=extension),
            pa.field(visible, self._make_type(pa, pa.bool_())),
            pa.field(confidence, self._make_type(pa, pa.float32())),
        ]

    def make_columns(self, pa: Any, tracks: EpisodeTracks) -> list[Any]:  # noqa: ANN401
        """Return the pyarrow arrays of the columns."""
        rows = len(tracks.points)
        flat = pa.array(tracks.points.ravel())
        pairs = pa.ListArray.from_arrays(_make_offsets(rows * self.count, 2), flat)
        points = pa.ListArray.from_arrays(_make_offsets(rows, self.count), pairs)
        others = [pa.array(values.ravel()) for values in (tracks.visible, tracks.confidence)]
        if self.count > 1:
            others = [pa.FixedSizeListArray.from_arrays(one, self.count) for one in others]
        return [points, *others]

    def name_types(self) -> dict[str, dict[str, Any]]:
        """Return the types of the columns as ``datasets`` stores them."""
        points, visible, confidence = self.names
        types: dict[str, dict[str, Any]] = {
            points: {"shape": [self.count, 2], "dtype": "float32", "_type": "Array2D"}
        }
        for name, kind in ((visible, "bool"), (confidence, "float32")):
            value = {"dtype": kind, "_type": "Value"}
            listed = {"feature": value, "length": self.count, "_type": "List"}
            types[name] = listed if self.count > 1 else value
        return types

    def measure(self, tracks: EpisodeTracks, names: Sequence[str]) -> dict[str, Statistics]:
        """Return the statistics of an episode by feature, with the shapes of LeRobot's.

        Positions have a statistic for x and one for y, of all points that exist, 0 if there is
        none. Confidence has one for each point. Visibility has none: LeRobot normalizes all
        observations that have statistics, and cannot subtract the mean of bools.

        Args:
            tracks: The tracks of the episode.
            names: Names of the statistics.

        """
        points, confidence = (self.names[place] for place in MEASURED)
        length = len(tracks.points)
        return {
            points: _measure(tracks.points.reshape(-1, 2), names, length),
            confidence: _measure(tracks.confidence, names, length),
        }

    def _make_type(self, pa: Any, value: Any) -> Any:  # noqa: ANN401
        # LeRobot stores a shape of [1] as a scalar.
        return pa.list_(value, self.count) if self.count > 1 else value


def name_features(cameras: Iterable[str], taken: Iterable[str]) -> dict[str, str]:
    """Return the name of the feature of each camera's tracks.

    It is that of the camera with another prefix. LeRobot takes features with ``image`` in their
    names for pictures, so that is abbreviated.

    Args:
        cameras: Keys of cameras.
        taken: Features that the data set has.

    Raises:
        InputError: The data set has such features, or two cameras would have the same.

    """
    names: dict[str, str] = {}
    for camera in cameras:
        prefix = next((one for one in _CAMERA_PREFIXES if camera.startswith(one)), "")
        name = PREFIX + camera.removeprefix(prefix).replace("image", "img")
        features = TrackFeatures(camera, name, 1, "").names
        if name in names.values() or set(features) & set(taken):
            raise InputError(
                f"the data set has a feature {name} for tracks already, or two cameras of this "
                "name. Annotate a data set without it."
            )
        names[camera] = name
    return names


def add_types(metadata: Mapping[bytes, bytes] | None, features: Sequence[TrackFeatures]) -> Any:  # noqa: ANN401
    """Return a table's metadata, in which ``datasets`` finds the types of the new columns too."""
    content = dict(metadata or {})
    try:
        types = decode_json(content.get(_HUGGINGFACE, b"{}"), dict[str, Any])
        for one in features:
            types["info"]["features"] |= one.name_types()
    except (KeyError, TypeError, MalformedError):
        # `datasets` infers them.
        content.pop(_HUGGINGFACE, None)
        return content
    types.pop("fingerprint", None)
    content[_HUGGINGFACE] = msgspec.json.encode(types)
    return content


def list_statistics(existing: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the names of the statistics that a data set has, by those of its features."""
    known = {name for one in existing.values() for name in one}
    return (*_BASE_STATISTICS, *sorted(name for name in known if _find_quantile(name) is not None))


class TotalStatistics:
    """Statistics of a feature over all episodes, as LeRobot aggregates them."""

    def __init__(self) -> None:
        """Start without episodes."""
        self._total: Statistics = {}
        self._weight, self._length = 0, 0

    def add(self, statistics: Statistics, *, known: bool) -> None:
        """Add an episode; of one without tracks (not ``known``) only the length counts."""
        weight = int(statistics["count"][0])
        self._length += weight
        if known or not self._total:
            self._total = _merge(self._total, self._weight, statistics, weight)
            self._weight += weight if known else 0

    def summarize(self) -> Statistics:
        """Return the statistics; those of a feature without any tracks are 0."""
        return self._total | {"count": np.array([self._length])}


def _merge(a: Statistics, weight_a: int, b: Statistics, weight_b: int) -> Statistics:
    if not weight_a:
        return b
    share = weight_b / (weight_a + weight_b)
    mixed = {name: (1 - share) * a[name] + share * b[name] for name in a}
    away = np.square(a["mean"] - b["mean"]) * share * (1 - share)
    spread = (1 - share) * np.square(a["std"]) + share * np.square(b["std"]) + away
    return mixed | {
        "min": np.minimum(a["min"], b["min"]),
        "max": np.maximum(a["max"], b["max"]),
        "std": np.sqrt(spread),
    }


def _measure(values: NDArray[Any], names: Sequence[str], length: int) -> Statistics:
    """Return statistics over the first axis of [n, k] values, without those that are NaN."""
    columns = values.astype(np.float64)
    columns = columns[np.isfinite(columns).all(axis=1)]
    if not len(columns):
        columns = np.zeros((1, values.shape[1]))
    found: Statistics = {
        "min": columns.min(axis=0),
        "max": columns.max(axis=0),
        "mean": columns.mean(axis=0),
        "std": columns.std(axis=0),
        "count": np.array([length]),
    }
    shares = {name: share for name in names if (share := _find_quantile(name)) is not None}
    quantiles: Doubles = np.quantile(columns, list(shares.values()), axis=0)
    return found | dict(zip(shares, quantiles, strict=True))


def _find_quantile(name: str) -> float | None:
    """Return the share that a statistic such as ``q01`` is the quantile of; None for others."""
    return int(name[1:]) / 100 if name[:1] == "q" and name[1:].isdecimal() else None


def _make_offsets(count: int, step: int) -> NDArray[np.int32]:
    return np.arange(0, (count + 1) * step, step, dtype=np.int32)
