"""Selection of the backend that runs a bundle: the fastest that works here, or a named one."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from vditrack.bundle.folder import Bundle
from vditrack.errors import BackendError, EngineError, InputError, VditrackError
from vditrack.inference.engine_identity import Identity, Target, read_identity, settled_folders
from vditrack.inference.engine_loading import Verify, load_build
from vditrack.inference.int8 import open_int8_graphs
from vditrack.inference.io_binding import BoundSession
from vditrack.inference.onnxruntime import (
    CUDA,
    TENSORRT,
    TENSORRT_RTX,
    OnnxRuntimeSession,
    open_session,
)
from vditrack.inference.session import AbsentError, OpenGraph, Session
from vditrack.inference.smoke_run import open_with_smoke_run

BackendName = Literal[
    "auto",
    "tensorrt",
    "tensorrt-rtx",
    "cuda",
    "cpu-int8",
    "cpu",
    "onnxruntime-tensorrt",
    "onnxruntime-tensorrt-rtx",
]
ORDER = ("tensorrt", "tensorrt-rtx", "cuda", "cpu-int8")
"""Backends that ``auto`` tries before the CPU in the bundle's precision, the fastest first.

ONNX Runtime's own TensorRT providers are left out: they may build engines for minutes whenever they
load a graph. `vditrack build` does that once.
"""

_LOG = logging.getLogger("vditrack")


class Fallback(NamedTuple):
    """A backend that was tried and rejected, and the reason."""

    name: str
    reason: str


@dataclass(frozen=True)
class Backend:
    """The inference engine that runs a bundle's graphs."""

    name: str
    open_graph: OpenGraph
    engine: Identity | None = None
    """Identity of the build that holds the engines; None for ONNX Runtime."""
    fallbacks: tuple[Fallback, ...] = ()
    """Backends that were tried before it, in that order."""


CPU = Backend("cpu", open_session)
"""ONNX Runtime's CPU provider, which opens the graphs of any bundle."""
_ON_CPU = ("cpu-int8", "cpu")


class _Options(NamedTuple):
    """How a backend is opened: see `open_backend`."""

    verify: Verify | None
    threads: int
    device: int | None


Open = Callable[[Bundle, _Options], Backend]
"""Opens a bundle's graphs on a backend."""


def name_backend(name: str, device: int | None) -> str:
    """Return what `open_backend` takes for a backend on a GPU: "cuda:1" is CUDA's on GPU 1.

    Args:
        name: One of `BackendName`.
        device: Number of the GPU, as CUDA counts; None for the first one, or the CPU.

    """
    return name if device is None else f"{name}:{device}"


def open_backend(
    bundle: Bundle, name: str = "auto", verify: Verify | None = None, threads: int = 0
) -> Backend:
    """Open a bundle's graphs on the fastest backend that works here, or on a named one.

    ``auto`` takes the first that fits of: a TensorRT engine in the bundle, a TensorRT-RTX engine in
    the bundle, ONNX Runtime's CUDA provider, its CPU provider with the bundle's INT8 graphs, its
    CPU provider with the bundle's own graphs. A named backend never falls back. Every backend but
    the last passes a smoke run: each graph runs once on zeros and must return finite numbers.

    Args:
        bundle: A checked bundle.
        name: One of `BackendName`. With ":N" it runs on GPU N, as CUDA counts: "auto:1" then takes
            no CPU.
        verify: Compares the tracks of engines and of INT8 graphs with the bundle's own, if that was
            not done on this machine before; None to accept them after the smoke run alone.
        threads: Threads that run a graph on the CPU; 0 for one on each core.

    Raises:
        InputError: There is no backend of that name, or it runs on no GPU and one is given.
        BackendError: The named backend is not installed, does not fit the machine, or fails.

    """
    own, device = _split_name(name)
    options = _Options(verify, threads, device)

    def open_whole(whole: Bundle) -> Backend:
        return _open_own(whole, own, options)

    backend = open_whole(bundle)
    if bundle.manifest.propagation is None:
        return backend
    return replace(backend, open_graph=_with_parts(bundle, backend.open_graph, open_whole))


def _split_name(name: str) -> tuple[str, int | None]:
    """Return the name of a backend without its GPU, and the number of the GPU."""
    own, colon, number = name.partition(":")
    if not colon:
        return name, None
    if not (number.isascii() and number.isdigit()):
        raise InputError(f"{number!r} is no GPU: they are counted from 0.")
    if own in _ON_CPU:
        raise InputError(
            f"the backend {own} runs on no GPU. Leave out the device, or choose another backend."
        )
    return own, int(number)


def _with_parts(
    bundle: Bundle, open_own: OpenGraph, open_other: Callable[[Bundle], Backend]
) -> OpenGraph:
    """Open graphs of the bundles within a bundle too, each on the backend of that name.

    Engines belong to one bundle, so a bundle within it may run on another backend.
    """

    @cache
    def open_part(root: Path) -> OpenGraph:
        return open_other(bundle.parts[root.name]).open_graph

    def open_graph(graph: Path) -> Session:
        return (open_own if graph.parent == bundle.root else open_part(graph.parent))(graph)

    return open_graph


def _open_own(bundle: Bundle, name: str, options: _Options) -> Backend:
    """Open the graphs of the bundle itself."""
    if name == "auto":
        return _best(bundle, options)
    if name not in get_args(BackendName):
        raise InputError(
            f"there is no backend {name!r}. Give one of {', '.join(get_args(BackendName))}."
        )
    if name == "cpu":
        return _open_cpu(options.threads)
    try:
        return _OPENERS[name](bundle, options)
    except BackendError as error:
        raise type(error)(f"backend {name}: {error}") from error


def _open_cpu(threads: int) -> Backend:
    return replace(CPU, open_graph=partial(open_session, threads=threads)) if threads else CPU


def _best(bundle: Bundle, options: _Options) -> Backend:
    fallbacks: list[Fallback] = []
    for name in ORDER:
        if options.device is not None and name in _ON_CPU:
            continue
        try:
            return replace(_OPENERS[name](bundle, options), fallbacks=tuple(fallbacks))
        except BackendError as error:
            # A machine without a GPU is nothing to warn about.
            level = logging.DEBUG if isinstance(error, AbsentError) else logging.WARNING
            _LOG.log(level, "backend %s: %s", name, error)
            fallbacks.append(Fallback(name, str(error)))
    if options.device is not None:
        reasons = " ".join(f"{name}: {reason}" for name, reason in fallbacks)
        raise BackendError(f"no backend runs {bundle.root} on GPU {options.device}. {reasons}")
    # No smoke run: there is nothing left to fall back to.
    return replace(_open_cpu(options.threads), fallbacks=tuple(fallbacks))


def _open_int8(bundle: Bundle, options: _Options) -> Backend:
    return Backend("cpu-int8", open_int8_graphs(bundle, options.verify, options.threads))


def _open_engine(target: Target, bundle: Bundle, options: _Options) -> Backend:
    """Open the engines of the newest build for a target that fits and runs."""
    failure: BackendError | None = None
    for folders in settled_folders(bundle):
        try:
            return _open_newest(target, folders, bundle, options)
        except BackendError as error:
            failure = error
    assert failure is not None
    raise failure


def _open_newest(target: Target, folders: list[Path], bundle: Bundle, options: _Options) -> Backend:
    """Open the engines of the newest of these builds that is for the target, fits and runs.

    A build is known by its identity: the name of its folder says nothing.
    """
    builds: list[tuple[str, Path]] = []
    reasons: list[str] = []
    for folder in folders:
        try:
            identity = read_identity(folder)
        except EngineError as error:
            # It may be for any target.
            reasons.append(f"{folder.name}: {error}")
            continue
        if identity.target == target:
            builds.append((identity.built_at, folder))
    for _, folder in sorted(builds, reverse=True):
        try:
            open_graph, identity = load_build(folder, bundle, options.verify, options.device or 0)
        except VditrackError as error:
            reasons.append(f"{folder.name}: {error}")
        else:
            return Backend(target, open_graph, identity)
    if reasons:
        raise BackendError(" ".join(reasons))
    raise AbsentError(
        f"{bundle.root} has no engine for {target}. "
        f"Run `vditrack build {bundle.root} --target {target}`."
    )


def _open_provider(name: BackendName, provider: str, bundle: Bundle, options: _Options) -> Backend:
    # The plug-in's arrays cross at every run: its memory has another name, and was never tried.
    kind = OnnxRuntimeSession if provider == TENSORRT_RTX else BoundSession
    device = options.device or 0
    open_graph = open_with_smoke_run(bundle, lambda graph: kind(graph, provider, device=device))
    return Backend(name, open_graph)


_OPENERS: dict[str, Open] = {
    "tensorrt": partial(_open_engine, "tensorrt"),
    "tensorrt-rtx": partial(_open_engine, "tensorrt-rtx"),
    "cuda": partial(_open_provider, "cuda", CUDA),
    "cpu-int8": _open_int8,
    "onnxruntime-tensorrt": partial(_open_provider, "onnxruntime-tensorrt", TENSORRT),
    "onnxruntime-tensorrt-rtx": partial(_open_provider, "onnxruntime-tensorrt-rtx", TENSORRT_RTX),
}
