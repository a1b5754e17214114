"""Which backend runs a bundle: the best that fits and was proved here, or the one asked for."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np

from vditrack.backends import AbsentError, OpenGraph, Session, open_session
from vditrack.backends.onnxruntime import CUDA, TENSORRT, TENSORRT_RTX, OnnxRuntimeSession
from vditrack.backends.tensorrt import EngineSession
from vditrack.bundle import ENCODER, ENCODER_START, FEATURES, Bundle
from vditrack.engines.identity import ENGINE_OF, Target, engine_folders, load_identity, mismatches
from vditrack.engines.machine import read_machine
from vditrack.errors import BackendError, EngineError, InputError, VditrackError

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
    fallbacks: tuple[Fallback, ...] = ()
    """What was tried before it, in that order."""


def open_backend(bundle: Bundle, name: str = "auto") -> Backend:
    """Open a bundle's graphs on the best backend there is here, or on the one named.

    ``auto`` takes the first that fits of a TensorRT engine and a TensorRT-RTX engine in the
    bundle, ONNX Runtime's CUDA provider, and its CPU provider. A named one never falls back. Each
    but the CPU is proved: every graph is run once, on zeros, and must give finite numbers.

    Args:
        bundle: a checked bundle.
        name: one of `BackendName`.

    Raises:
        InputError: there is no backend of that name.
        BackendError: the one named is not installed, does not fit or fails; why, and what to do.

    """
    if name == "auto":
        return _best(bundle)
    if name not in get_args(BackendName):
        raise InputError(
            f"there is no backend {name!r}. Give one of {', '.join(get_args(BackendName))}."
        )
    if name == "cpu":
        return Backend(name, open_session)
    try:
        return Backend(name, _OPENERS[name](bundle))
    except BackendError as error:
        raise type(error)(f"backend {name}: {error}") from error


def _best(bundle: Bundle) -> Backend:
    fallbacks: list[Fallback] = []
    for name in ORDER:
        try:
            return Backend(name, _OPENERS[name](bundle), tuple(fallbacks))
        except BackendError as error:
            # That a laptop has no GPU is no news.
            level = logging.DEBUG if isinstance(error, AbsentError) else logging.WARNING
            _LOG.log(level, "backend %s: %s", name, error)
            fallbacks.append(Fallback(name, str(error)))
    # Not proved: there is nothing to fall back to, and its first run says the same.
    return Backend("cpu", open_session, tuple(fallbacks))


def _by_engine(target: Target, bundle: Bundle) -> OpenGraph:
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
            return _built(folder, target, bundle)
        except VditrackError as error:
            reasons.append(f"{folder.name}: {error}")
    raise BackendError(" ".join(reasons))


def _built(folder: Path, target: Target, bundle: Bundle) -> OpenGraph:
    identity = load_identity(folder)
    if problems := mismatches(identity, bundle, read_machine()):
        raise EngineError("; ".join(problems))

    def open_graph(graph: Path) -> EngineSession:
        return EngineSession(
            folder / ENGINE_OF[graph.name],
            target,
            host_code="version_compatible" in identity.flags,
            weights=graph if "strip_weights" in identity.flags else None,
        )

    return _proved(bundle, open_graph)


def _by_provider(provider: str, bundle: Bundle) -> OpenGraph:
    return _proved(bundle, lambda graph: OnnxRuntimeSession(graph, provider))


_OPENERS: dict[str, Callable[[Bundle], OpenGraph]] = {
    "tensorrt": partial(_by_engine, "tensorrt"),
    "tensorrt-rtx": partial(_by_engine, "tensorrt-rtx"),
    "cuda": partial(_by_provider, CUDA),
    "onnxruntime-tensorrt": partial(_by_provider, TENSORRT),
    "onnxruntime-tensorrt-rtx": partial(_by_provider, TENSORRT_RTX),
}


def _target(folder: Path) -> Target:
    """Of a build, by its name: an identity is read only where it is needed, with its engines."""
    return "tensorrt-rtx" if folder.name.startswith("tensorrt-rtx-") else "tensorrt"


def _proved(bundle: Bundle, open_graph: OpenGraph) -> OpenGraph:
    """Open and prove every graph; what is returned gives the sessions that were proved."""
    names = (ENCODER, ENCODER_START, FEATURES)
    graphs = [bundle.root / name for name in names if name in bundle.manifest.files]
    sessions = {graph: open_graph(graph) for graph in graphs}
    for graph, session in sessions.items():
        _prove(graph, session)
    return sessions.__getitem__


def _prove(graph: Path, session: Session) -> None:
    zeros = {name: np.zeros(of.shape, of.dtype) for name, of in session.inputs.items()}
    try:
        outputs = session.run(zeros)
    except BackendError:
        raise
    # ONNX Runtime's and TensorRT's exceptions share no base class.
    except Exception as error:
        raise BackendError(f"it loads {graph}, and fails to run it: {error}") from error
    for name, output in outputs.items():
        if not np.isfinite(output).all():
            raise BackendError(
                f"it loads {graph}, and runs it wrongly: {name} of zeros is not finite. Export or "
                "build it in BF16 or FP32."
            )
