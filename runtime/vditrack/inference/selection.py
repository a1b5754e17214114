"""Which backend runs a bundle: the best that fits and was proved here, or the one asked for."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from vditrack.bundle.folder import Bundle, load_bundle
from vditrack.errors import BackendError, InputError, VditrackError
from vditrack.inference.engine_identity import Identity, Target, engine_folders
from vditrack.inference.engine_loading import Verify, load_build
from vditrack.inference.onnxruntime import (
    CUDA,
    TENSORRT,
    TENSORRT_RTX,
    OnnxRuntimeSession,
    open_session,
)
from vditrack.inference.session import AbsentError, OpenGraph, Session
from vditrack.inference.smoke_run import proved

BackendName = Literal[
    "auto",
    "tensorrt",
    "tensorrt-rtx",
    "cuda",
    "cpu",
    "onnxruntime-tensorrt",
    "onnxruntime-tensorrt-rtx",
]
ORDER = ("tensorrt", "tensorrt-rtx", "cuda")
"""What ``auto`` tries before the CPU, the fastest first.

ONNX Runtime's own TensorRT providers are not among them: they build engines whenever they load a
graph, for minutes maybe, and nobody asked for that. `vditrack build` does it once.
"""

_LOG = logging.getLogger("vditrack")


class Fallback(NamedTuple):
    """A backend that was tried and not taken."""

    name: str
    reason: str


@dataclass(frozen=True)
class Backend:
    """What runs a bundle's graphs."""

    name: str
    open_graph: OpenGraph
    engine: Identity | None = None
    """Identity of the build whose engines these are."""
    fallbacks: tuple[Fallback, ...] = ()
    """What was tried before it, in that order."""


CPU = Backend("cpu", open_session)
"""ONNX Runtime's CPU provider, which opens the graphs of any bundle."""


def open_backend(bundle: Bundle, name: str = "auto", verify: Verify | None = None) -> Backend:
    """Open a bundle's graphs on the best backend there is here, or on the one named.

    ``auto`` takes the first that fits of a TensorRT engine and a TensorRT-RTX engine in the
    bundle, ONNX Runtime's CUDA provider, and its CPU provider. A named one never falls back. Each
    but the CPU is proved: every graph is run once, on zeros, and must give finite numbers.

    Args:
        bundle: a checked bundle.
        name: one of `BackendName`.
        verify: compares the tracks of engines with the bundle's, where nobody has done so yet;
            None to take engines on their proof alone.

    Raises:
        InputError: there is no backend of that name.
        BackendError: the one named is not installed, does not fit or fails; why, and what to do.

    """
    backend = _open_own(bundle, name, verify)
    if bundle.manifest.propagation is None:
        return backend
    return replace(backend, open_graph=_with_parts(bundle, backend.open_graph, name, verify))


def _with_parts(bundle: Bundle, open_own: OpenGraph, name: str, verify: Verify | None) -> OpenGraph:
    """Open graphs of the bundles within a bundle too, each on the backend of that name.

    Engines belong to one bundle, so a bundle within it may run on another backend.
    """

    @cache
    def open_part(root: Path) -> OpenGraph:
        return _open_own(load_bundle(root), name, verify).open_graph

    def open_graph(graph: Path) -> Session:
        return (open_own if graph.parent == bundle.root else open_part(graph.parent))(graph)

    return open_graph


def _open_own(bundle: Bundle, name: str, verify: Verify | None) -> Backend:
    """Open the graphs of the bundle itself."""
    if name == "auto":
        return _best(bundle, verify)
    if name not in get_args(BackendName):
        raise InputError(
            f"there is no backend {name!r}. Give one of {', '.join(get_args(BackendName))}."
        )
    if name == "cpu":
        return Backend(name, open_session)
    try:
        return _OPENERS[name](bundle, verify)
    except BackendError as error:
        raise type(error)(f"backend {name}: {error}") from error


def _best(bundle: Bundle, verify: Verify | None) -> Backend:
    fallbacks: list[Fallback] = []
    for name in ORDER:
        try:
            return replace(_OPENERS[name](bundle, verify), fallbacks=tuple(fallbacks))
        except BackendError as error:
            # That a laptop has no GPU is no news.
            level = logging.DEBUG if isinstance(error, AbsentError) else logging.WARNING
            _LOG.log(level, "backend %s: %s", name, error)
            fallbacks.append(Fallback(name, str(error)))
    # Not proved: there is nothing to fall back to, and its first run says the same.
    return Backend("cpu", open_session, fallbacks=tuple(fallbacks))


def _by_engine(target: Target, bundle: Bundle, verify: Verify | None) -> Backend:
    """Graphs as engines of the first build for the target that fits and runs."""
    folders = [path for path in engine_folders(bundle) if _target(path) == target]
    if not folders:
        raise AbsentError(
            f"{bundle.root} has no engine for it. "
            f"Run `vditrack build {bundle.root} --target {target}`."
        )
    reasons = []
    for folder in folders:
        try:
            open_graph, identity = load_build(folder, bundle, verify)
        except VditrackError as error:
            reasons.append(f"{folder.name}: {error}")
        else:
            return Backend(target, open_graph, identity)
    raise BackendError(" ".join(reasons))


def _by_provider(
    name: BackendName, provider: str, bundle: Bundle, _verify: Verify | None
) -> Backend:
    return Backend(name, proved(bundle, lambda graph: OnnxRuntimeSession(graph, provider)))


_OPENERS: dict[str, Callable[[Bundle, Verify | None], Backend]] = {
    "tensorrt": partial(_by_engine, "tensorrt"),
    "tensorrt-rtx": partial(_by_engine, "tensorrt-rtx"),
    "cuda": partial(_by_provider, "cuda", CUDA),
    "onnxruntime-tensorrt": partial(_by_provider, "onnxruntime-tensorrt", TENSORRT),
    "onnxruntime-tensorrt-rtx": partial(_by_provider, "onnxruntime-tensorrt-rtx", TENSORRT_RTX),
}


def _target(folder: Path) -> Target:
    """Of a build, by its name: an identity is read only where it is needed, with its engines."""
    return "tensorrt-rtx" if folder.name.startswith("tensorrt-rtx-") else "tensorrt"
