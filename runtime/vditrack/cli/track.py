"""Verb ``track``: track points through a video or a recording."""

from pathlib import Path
from typing import Annotated

import typer

from vditrack.cli.mask_options import read_marked_objects
from vditrack.cli.options import (
    BackendOption,
    BundleOption,
    DeviceOption,
    EndOption,
    EpisodeOption,
    HostCodeOption,
    Json,
    MaskOption,
    ObjectOption,
    RerunOption,
    SignatureOption,
    StartOption,
    TopicOption,
    VerifyFilesOption,
    check_recording_path,
    choose_backend,
    default_output,
    parse_points,
)
from vditrack.cli.partial_runs import ResumeOption
from vditrack.cli.track_request import Points, TrackRequest
from vditrack.cli.track_run import track_video
from vditrack.errors import InputError
from vditrack.io.track_files import read_queries
from vditrack.points.clip_tracking import TrackMode

TracksFolder = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="Folder that the results are written to. Default: VIDEO_tracks."
    ),
]


def track(
    video: Annotated[
        Path,
        typer.Argument(
            help="Video file, a folder of JPEG or PNG images, a rosbag2 (its folder, an .mcap "
            "or a .db3 file), or the folder of a LeRobot data set."
        ),
    ],
    points: Annotated[
        Path | None,
        typer.Option(
            help="File of points to track, in pixels: a CSV with the header t,x,y or x,y, or an "
            ".npy of the same columns."
        ),
    ] = None,
    grid: Annotated[
        int | None,
        typer.Option(min=1, max=100, help="Track a grid of N x N points on the first frame."),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(help="Track a point given as t,x,y: frame number and pixels. Repeatable."),
    ] = None,
    mask: MaskOption = None,
    objects: ObjectOption = None,
    topic: TopicOption = None,
    episode: EpisodeOption = None,
    bundle: BundleOption = None,
    start: StartOption = 0.0,
    end: EndOption = None,
    output: TracksFolder = None,
    resume: ResumeOption = False,
    reference: Annotated[
        bool,
        typer.Option("--reference", help="Track as HeFT does, and print what still differs."),
    ] = False,
    backend: BackendOption = "auto",
    device: DeviceOption = None,
    require_signature: SignatureOption = None,
    allow_host_code: HostCodeOption = False,
    verify_files: VerifyFilesOption = False,
    rerun: RerunOption = None,
    as_json: Json = False,
) -> None:
    """Track points through a video, and write tracks.npz, tracks.csv and overlay.mp4.

    With --mask or --object, tracks also say which object each point lies on. For a bag, tracks.mcap
    is written too: a bag of the tracks, for Foxglove and rosbag2.

    A recording may be of any length. If a run of more than 256 frames is interrupted, its tracks so
    far are in the folder "partial" of the output, and --resume continues it.
    """
    if sum(choice is not None for choice in (points, grid, at)) != 1:
        raise InputError("give exactly one of --points FILE, --grid N and --at t,x,y.")
    if rerun is not None:
        check_recording_path(rerun, "--rerun")
    marked = read_marked_objects(mask or [], objects or []) if mask or objects else None
    requested = Points(
        queries=read_queries(points) if points else parse_points(at) if at else None,
        grid=(grid, grid) if grid else None,
        masks=marked.masks if marked else None,
        names=marked.names if marked else {},
        remarks=tuple(marked.remarks) if marked else (),
        files=(*([points] if points else []), *(marked.files if marked else [])),
    )
    folder = output or default_output(video, "tracks", episode)
    mode: TrackMode = "reference" if reference else "offline"
    request = TrackRequest(
        video,
        requested,
        folder,
        bundle,
        start,
        end,
        topic,
        choose_backend(backend, device),
        mode,
        rerun,
        require_signature,
        verify_files,
        allow_host_code,
        resume,
        episode,
    )
    track_video(request, as_json=as_json)
