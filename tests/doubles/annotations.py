"""Annotations that were not tracked."""

from pathlib import Path

import numpy as np

from vditrack.annotation.annotate import Annotation, draw_thumbnail, measure_tracks
from vditrack.annotation.settings import Settings
from vditrack.annotation.sources import Source
from vditrack.annotation.track_tables import make_record
from vditrack.annotation.units import Identity, list_units
from vditrack.features.clip_frames import ArrayFrames
from vditrack.io.clip import Gap
from vditrack.points.tracks import Tracks


def make_tracks(count, length) -> Tracks:
    random = np.random.default_rng(0)
    shape = (count, length)
    return Tracks(
        queries=random.random((count, 3), np.float32),
        points=60 * random.random((*shape, 2), np.float32),
        visible=random.random(shape) < 0.5,
        confidence=random.random(shape, np.float32),
        forward_backward_error=random.random(shape, np.float32),
    )


def make_annotation(specification, count=3, length=5, path=Path("data/clip.mp4")):
    """An annotation of a specification, and what its file says of itself."""
    settings = Settings("b" * 64, "cpu", specification)
    (unit,) = list_units(Source(path, start=1.0), Identity("c" * 64, "s", (None,)), settings)
    tracks = make_tracks(count, length)
    tracks.forward_backward_error[:1, 1] = np.inf
    times = 1 + np.arange(length) / 10
    frames = np.zeros((length, 60, 80, 3), np.uint8)
    made = Annotation(
        unit=unit,
        tracks=tracks,
        times=times,
        stamps=10**18 + np.arange(length),
        size=(60, 80),
        objects=None,
        positions=None,
        gaps=(Gap(1.1, 1.3, 1),),
        remarks=("a frame is missing.",),
        measures=measure_tracks(tracks, times, 4),
        thumbnail=draw_thumbnail(ArrayFrames(frames, np.arange(length) / 10), tracks),
    )
    return made, make_record(made, settings, "cpu-int8")
