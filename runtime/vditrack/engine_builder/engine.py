"""One graph to one engine."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from types import ModuleType

from rich.progress import Progress

from vditrack.bundle.manifest import Precision
from vditrack.engine_builder.library import Foreign, progress_monitor
from vditrack.engine_builder.network import last, parsed_network, profile_of
from vditrack.engine_builder.options import Options
from vditrack.engine_builder.precision import product_shares, require_precision
from vditrack.engine_builder.timing import attach_timing_cache, timing_cache_of
from vditrack.engine_builder.workspace import GIB, workspace_bytes
from vditrack.errors import EngineError
from vditrack.inference.engine_identity import TITLES, Shape
from vditrack.inference.trt_log import collecting_logger

_OUT_OF_MEMORY = re.compile(
    # The first is also what is said where every kernel was left out for want of memory.
    r"could not find any implementation|out ?of ?memory|(insufficient|not enough) memory"
    r"|bad_alloc|cuda ?error 2\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Built:
    """A serialised engine, and what is known of it."""

    plan: Foreign
    """Its bytes, in the library's own memory: a buffer."""
    shares: dict[str, float]
    """Of each type in the products."""
    profile: dict[str, tuple[Shape, Shape, Shape]]
    """Least, best and largest shape of each input."""
    timing_cache: bytes | None


def build_engine(
    trt: ModuleType,
    graph: Path,
    claimed: Precision,
    options: Options,
    architectures: tuple[str, ...],
    timing_cache: bytes | None,
    bars: Progress,
) -> Built:
    """Build the engine of one graph.

    Args:
        trt: the library.
        graph: an ONNX file.
        claimed: precision that the bundle claims.
        options: as asked for.
        architectures: to build for.
        timing_cache: of the builds before; None to have none.
        bars: show how far it is.

    Raises:
        EngineError: an operation is not supported, the precision is not the claimed one, memory
            ran out, or the library gave up for another reason.

    """
    logger = collecting_logger(trt)
    logger.errors.clear()
    builder = trt.Builder(logger)
    title = f"{TITLES[options.target]} {trt.__version__}"
    network, parser = parsed_network(trt, builder, logger, graph, title)
    shares = product_shares(trt, network)
    require_precision(graph, shares, claimed)
    profile = profile_of(network)
    config = configuration(trt, builder, options, architectures)
    config.add_optimization_profile(_library_profile(builder, profile))
    if timing_cache is not None:
        attach_timing_cache(config, timing_cache, options.timing_cache, logger)
    plan = _cancellable(trt, builder, network, config, bars)
    if plan is None:
        limit = workspace_bytes(options.workspace)
        raise EngineError(f"{graph}: {failure(title, logger.errors, limit)}")
    # Only now: the weights that were built from are the parser's.
    del parser
    kept = None if timing_cache is None else timing_cache_of(config)
    return Built(plan, shares, profile, kept)


def configuration(
    trt: ModuleType, builder: Foreign, options: Options, architectures: tuple[str, ...]
) -> Foreign:
    """Put options into the library's words."""
    config = builder.create_builder_config()
    # What the bundle keeps in FP32 is not to be rounded to TF32, as is the libraries' default.
    config.clear_flag(trt.BuilderFlag.TF32)
    # So that an engine can be asked for its layers.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if (limit := workspace_bytes(options.workspace)) is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, limit)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.strip_weights:
        config.set_flag(trt.BuilderFlag.STRIP_PLAN)
        config.set_flag(trt.BuilderFlag.REFIT_IDENTICAL)
    if options.hardware_compatible:
        level = getattr(trt.HardwareCompatibilityLevel, options.hardware_compatible.upper())
        config.hardware_compatibility_level = level
    if options.target == "tensorrt-rtx":
        config.num_compute_capabilities = len(architectures)
        for index, architecture in enumerate(architectures):
            capability = getattr(trt.ComputeCapability, architecture.upper())
            config.set_compute_capability(capability, index)
    return config


def _library_profile(builder: Foreign, profile: dict[str, tuple[Shape, Shape, Shape]]) -> Foreign:
    made = builder.create_optimization_profile()
    for name, shapes in profile.items():
        made.set_shape(name, *shapes)
    return made


def _cancellable(
    trt: ModuleType, builder: Foreign, network: Foreign, config: Foreign, bars: Progress
) -> Foreign:
    """Build in a thread of its own, since Ctrl-C reaches Python only while it does not wait."""
    cancelled = Event()
    # Bound here, since it has to outlive the build.
    config.progress_monitor = monitor = progress_monitor(trt, bars, cancelled)
    with ThreadPoolExecutor(max_workers=1) as thread:
        try:
            plan = thread.submit(builder.build_serialized_network, network, config).result()
        finally:
            cancelled.set()
    del monitor
    return plan


def failure(title: str, errors: list[str], limit: int | None) -> str:
    """Say why a library gave up, by what it logged, and what to try.

    Args:
        title: of the library, with its version.
        errors: its messages.
        limit: of its workspace, in bytes.

    """
    starved = [error for error in errors if _OUT_OF_MEMORY.search(error)]
    if not starved:
        return f"{title} built no engine: {last(errors)}"
    given = "" if limit is None else f" (with {limit / GIB:.1f} GiB of workspace)"
    return (
        f"{title} ran out of memory{given}. Close what else uses it, give another --workspace, "
        "try --optimization-level 2 (TensorRT only), or export the bundle at a smaller --size. "
        f"It said: {last(starved)}"
    )
