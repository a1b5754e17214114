"""Verb ``annotate``: track points in many recordings."""

import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import typer

from vditrack.annotation.folders import Folder, open_folder
from vditrack.annotation.formats.selection import check_formats
from vditrack.annotation.handling import Model, digest_manifest
from vditrack.annotation.job import Job, Pool, run_job
from vditrack.annotation.lerobot_copy import plan_copy
from vditrack.annotation.ray_pool import RayPool, Resources
from vditrack.annotation.report import import_jinja2
from vditrack.annotation.results import REPORT
from vditrack.annotation.settings import FORMATS, FormatName, Settings
from vditrack.annotation.sources import list_sources, refuse_absent, select_episodes
from vditrack.annotation.specification import (
    MAX_GRID,
    MAX_POINTS,
    Specification,
    override_fields,
    read_specification,
)
from vditrack.annotation.summary import Summary, count_things
from vditrack.annotation.worker_pool import Limits, OpenHandler, WorkerPool
from vditrack.bundle.folder import bundled_model, load_bundle
from vditrack.cli.annotate_options import (
    BoxesOption,
    DepthOption,
    DepthToleranceOption,
    DepthTopicOption,
    LostAfterOption,
    MaskFrameOption,
    MasksOption,
    ObjectMaskOption,
    RefillIntervalOption,
    RenewOption,
)
from vditrack.cli.console import echo, echo_json
from vditrack.cli.drawn_results import INCOMPLETE
from vditrack.cli.lerobot_options import (
    CameraOption,
    EpisodesOption,
    FillMissingOption,
    LerobotOption,
    require_disk,
    write_planned_copy,
)
from vditrack.cli.options import (
    BackendOption,
    BundleOption,
    DeviceOption,
    HostCodeOption,
    Json,
    SignatureOption,
    VerifyFilesOption,
    choose_backend,
    parse_boxes,
    parse_numbers,
    parse_points,
)
from vditrack.cli.progress import add_progress_bar, progress_bars
from vditrack.doctor.hardware import has_nvidia_gpu
from vditrack.errors import InputError
from vditrack.inference.host_memory import available_bytes
from vditrack.io.parquet import import_pyarrow
from vditrack.io.track_files import read_queries

_MEMORY_SHARE = 0.8
"""Share of the free memory that all workers together may take by default."""


def annotate(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Video files, folders of images, bags, LeRobot data sets, folders that hold "
            "these, patterns with *, and manifests: .txt with a path a line, or .csv or .jsonl "
            "with path, topic, start, end and episode. Each may be an address such as "
            "s3://BUCKET/FOLDER.",
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            help="Folder that the results are written to, or an address such as s3://BUCKET/FOLDER.",
        ),
    ],
    episodes: EpisodesOption = None,
    camera: CameraOption = None,
    spec: Annotated[
        Path | None,
        typer.Option(
            help="TOML file that says which points to track. Options of the same names take "
            "precedence. Default: none."
        ),
    ] = None,
    grid: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_GRID, help="Track a grid of N x N points on the first frame."),
    ] = None,
    features: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_POINTS,
            help="Track N corners at a time, the best ones: as they are lost, others are found.",
        ),
    ] = None,
    renew: RenewOption = None,
    lost_after: LostAfterOption = None,
    refill_interval: RefillIntervalOption = None,
    corner_quality: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Minimum quality of a corner, as a share of the best corner's. Default: 0.01.",
        ),
    ] = None,
    random: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_POINTS,
            help="Track N random points, each from a random frame, forward and backward.",
        ),
    ] = None,
    points: Annotated[
        Path | None,
        typer.Option(help="File of points to track: a CSV with the header t,x,y or x,y, or NPY."),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(help="Track a point given as t,x,y: frame number and position. Repeatable."),
    ] = None,
    mask: ObjectMaskOption = None,
    boxes: BoxesOption = None,
    mask_frame: MaskFrameOption = None,
    masks: MasksOption = None,
    depth: DepthOption = None,
    depth_topic: DepthTopicOption = None,
    depth_tolerance: DepthToleranceOption = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the random points. Default: 0.")
    ] = None,
    min_spread: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Write only points that move: their positions have at least this standard "
            "deviation, as a share of the picture. Default: 0, all points.",
        ),
    ] = None,
    coordinates: Annotated[
        Literal["pixels", "normalized"] | None,
        typer.Option(
            help="Unit of positions, given and written: pixels, or shares of width and height. "
            "Default: pixels."
        ),
    ] = None,
    pad_to: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_POINTS,
            help="Write N points for each recording: missing ones are empty, and those that move "
            "least are left out. Default: as many as there are.",
        ),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="|".join(FORMATS),
            help="Write the tracks in another format, too: hdf5 has the layout of ATM, mcap is for "
            "Foxglove, and rerun has the frames. Repeatable. Recordings that are done are not "
            "tracked again.",
        ),
    ] = None,
    bundle: BundleOption = None,
    backend: BackendOption = "auto",
    device: DeviceOption = None,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(help="What runs the workers: processes of this machine, or Ray."),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            help="Ray cluster to connect to, such as auto for the one that this machine belongs "
            "to. Default: RAY_ADDRESS, else Ray is started on this machine."
        ),
    ] = None,
    num_cpus: Annotated[
        float | None,
        typer.Option(min=0.1, help="CPUs that Ray reserves for each worker. Default: --threads."),
    ] = None,
    num_gpus: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="GPUs that Ray reserves for each worker. Default: 1 if the cluster has any and "
            "the backend may use it, else 0.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of workers. Default: one for each core, or one if there is an NVIDIA GPU; "
            "with Ray as many as the cluster has room for.",
        ),
    ] = None,
    threads: Annotated[
        int, typer.Option(min=1, help="Threads of each process that run the model on the CPU.")
    ] = 1,
    retries: Annotated[
        int, typer.Option(min=0, help="How often a recording is tried again after a failure.")
    ] = 1,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Try recordings again that failed in an earlier run."),
    ] = False,
    stall_timeout: Annotated[
        float,
        typer.Option(min=0.1, help="Seconds without progress after which a process is killed."),
    ] = 300.0,
    memory: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            help="Resident memory in GB above which a process is killed; Ray reserves it. Default: "
            "an equal share of 80% of the free memory, or of what Ray may use of the machine.",
        ),
    ] = None,
    lerobot: LerobotOption = None,
    fill_missing: FillMissingOption = False,
    require_signature: SignatureOption = None,
    allow_host_code: HostCodeOption = False,
    verify_files: VerifyFilesOption = False,
    as_json: Json = False,
) -> None:
    """Track points in many recordings, and write one Parquet file for each.

    A recording that fails is tried again, then listed in failed.parquet, and the job goes on. The
    same command again does only what is missing.
    """
    arguments = locals()
    import_pyarrow()
    import_jinja2()
    chosen = check_formats(formats or ())
    limits = _Limits(workers, stall_timeout, None if memory is None else memory * 1e9)
    ray = _RayOptions(address, num_cpus, num_gpus)
    folder = open_folder(output)
    choose = _choose_ray if engine == "ray" else _choose_processes
    open_pool = choose(limits, ray, threads, backend)
    # Options have the names of the fields.
    given = {name: arguments.get(name) for name in Specification.__struct_fields__}
    given |= {"queries": _read_queries(points, at), "boxes": parse_boxes(boxes)}
    specification = override_fields(read_specification(spec) if spec else Specification(), given)
    listed = select_episodes(
        list_sources(sources), parse_numbers("--episodes", episodes), camera or None
    )
    refuse_absent(listed)
    loaded = load_bundle(
        bundled_model() if bundle is None else bundle,
        require_signature=require_signature,
        verify_files=verify_files,
        allow_host_code=allow_host_code,
    )
    settings = Settings(digest_manifest(loaded.root), backend, specification)
    copy = None
    if lerobot is not None:
        copy = plan_copy(
            listed, lerobot, require_disk(folder, listed), settings, fill_missing=fill_missing
        )
    job = Job(
        sources=listed,
        output=folder,
        model=Model(
            bundle,
            choose_backend(backend, device),
            threads,
            require_signature,
            verify_files,
            allow_host_code,
        ),
        settings=settings,
        open_pool=open_pool,
        retries=retries,
        retry_failed=retry_failed,
        formats=chosen,
    )
    # Ray prints what happens to its workers on stdout, which is for results.
    with redirect_stdout(sys.stderr), progress_bars(quiet=as_json) as bars:
        summary = run_job(job, add_progress_bar(bars, "recordings", len(listed)))
    _print_summary(summary, folder, chosen, as_json=as_json)
    if copy is not None:
        write_planned_copy(copy, job, failed=summary.done < summary.recordings, as_json=as_json)
    if summary.failed:
        raise typer.Exit(INCOMPLETE)


def _read_queries(points: Path | None, at: list[str] | None) -> list[list[float]] | None:
    if points is not None and at is not None:
        raise InputError("give one of --points and --at.")
    if points is not None:
        return [list(map(float, row)) for row in read_queries(points).tolist()]
    return None if at is None else [list(map(float, row)) for row in parse_points(at).tolist()]


class _Limits(NamedTuple):
    """What the user says about the workers of any engine; None where nothing is said."""

    workers: int | None
    stall_seconds: float
    memory_bytes: float | None


class _RayOptions(NamedTuple):
    address: str | None
    num_cpus: float | None
    num_gpus: float | None


def _choose_processes(
    limits: _Limits, ray: _RayOptions, _threads: int, backend: str
) -> Callable[[OpenHandler], Pool]:
    if any(option is not None for option in ray):
        raise InputError("--address, --num-cpus and --num-gpus need --engine ray.")
    workers, stall_seconds, memory = limits
    if workers is None:
        one = has_nvidia_gpu() and not backend.startswith("cpu")
        workers = 1 if one else len(os.sched_getaffinity(0))
    memory = memory or _MEMORY_SHARE * available_bytes() / workers
    return partial(WorkerPool, workers=workers, limits=Limits(stall_seconds, memory))


def _choose_ray(
    limits: _Limits, ray: _RayOptions, threads: int, backend: str
) -> Callable[[OpenHandler], Pool]:
    workers, stall_seconds, memory = limits
    num_gpus = 0.0 if ray.num_gpus is None and backend.startswith("cpu") else ray.num_gpus
    return partial(
        RayPool,
        workers=workers,
        stall_seconds=stall_seconds,
        resources=Resources(ray.num_cpus or threads, num_gpus, memory),
        address=ray.address,
    )


def _print_summary(
    summary: Summary, output: Folder, formats: tuple[FormatName, ...], *, as_json: bool
) -> None:
    if as_json:
        echo_json(summary)
        return
    speed = summary.throughput
    rate = f" ({speed.frames_per_second:.1f} frames per second)" if speed.annotated else ""
    echo(
        f"annotated {count_things(speed.annotated, 'recording')} in {speed.seconds:.0f} s{rate}; "
        f"done: {summary.done} of {summary.recordings}"
    )
    if summary.visible_share is not None:
        echo(f"visible: {100 * summary.visible_share:.0f}% of positions")
    if summary.failed:
        kinds = ", ".join(f"{count} {kind}" for kind, count in summary.failures.items())
        echo(f"failed:  {summary.failed} ({kinds}); see {output.locate('failed.parquet')}")
    for folder in ("tracks", *formats):
        echo(f"{folder + ':':8} {output.locate(folder)}")
    echo(f"report:  {output.locate(REPORT)}")
