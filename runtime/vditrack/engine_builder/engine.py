"""Builds one engine from one graph."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from types import ModuleType

from rich.progress import Progress

from vditrack.bundle.manifest import Precision
from vditrack.engine_builder.architectures import require_architectures
from vditrack.engine_builder.library import LibraryObject, make_progress_monitor
from vditrack.engine_builder.network import format_last_messages, get_profile, parse_network
from vditrack.engine_builder.options import BuildOptions
from vditrack.engine_builder.precision import measure_product_shares, require_precision
from vditrack.engine_builder.timing import attach_timing_cache, serialize_timing_cache
from vditrack.engine_builder.workspace import GIB, limit_workspace
from vditrack.errors import EngineError
from vditrack.inference.engine_identity import TITLES, Shape
from vditrack.inference.trt_log import collecting_logger

_OUT_OF_MEMORY = re.compile(
    # TensorRT also logs the first message if it skipped every kernel for lack of memory.
    r"could not find any implementation|out ?of ?memory|(insufficient|not enough) memory"
    # TensorRT-RTX logs these if --workspace is too small.
    r"|within workspace limit|increase the (workspace|allowed workspace)"
    r"|memory is insufficient|cannot allocate memory|bad_alloc|cuda ?error 2\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class BuiltEngine:
    """A serialized engine and its properties."""

    plan: LibraryObject
    """Bytes of the engine, a buffer in the library's memory."""
    shares: dict[str, float]
    """Share of the multiply-adds by precision, 0 to 1, as in `measure_product_shares`."""
    profile: dict[str, tuple[Shape, Shape, Shape]]
    """Smallest, optimal and largest shape of each input."""
    timing_cache: bytes | None
    """Timing cache after the build; None if the build used none."""


def build_engine(
    trt: ModuleType,
    graph: Path,
    claimed: Precision,
    options: BuildOptions,
    architectures: tuple[str, ...],
    timing_cache: bytes | None,
    bars: Progress,
) -> BuiltEngine:
    """Build the engine of one graph.

    Args:
        trt: Module of the library, TensorRT or TensorRT-RTX.
        graph: ONNX file, its external weights beside it.
        claimed: Precision that the bundle claims.
        options: Options of the build.
        architectures: Compute capabilities to build for, as in ``sm89``.
        timing_cache: Timing cache of earlier builds, which may be empty; None to use none.
        bars: Progress bars that show the phases of the build.

    Returns:
        The engine.

    Raises:
        EngineError: A check of `check_graph` fails, memory ran out, or the build failed for another
            reason.
        InputError: The timing cache does not fit this library and GPU.

    """
    logger = collecting_logger(trt)
    builder = trt.Builder(logger)
    network, parser, shares = _parse_checked(trt, builder, graph, claimed, options, architectures)
    profile = get_profile(network)
    config = make_builder_config(trt, builder, options, architectures)
    config.add_optimization_profile(_make_optimization_profile(builder, profile))
    if timing_cache is not None:
        attach_timing_cache(config, timing_cache, options.timing_cache, logger)
    plan = _build_in_thread(trt, builder, network, config, bars)
    if plan is None:
        limit = limit_workspace(options.workspace)
        reason = explain_failure(_name_library(trt, options), logger.errors, limit)
        raise EngineError(f"{graph}: {reason}")
    # The parser owns the weights, so it must outlive the build.
    del parser
    kept = None if timing_cache is None else serialize_timing_cache(config)
    return BuiltEngine(plan, shares, profile, kept)


def check_graph(
    trt: ModuleType,
    graph: Path,
    claimed: Precision,
    options: BuildOptions,
    architectures: tuple[str, ...],
) -> None:
    """Check what can be checked of a graph without its build, in a fraction of the build's time.

    Args:
        trt: Module of the library, TensorRT or TensorRT-RTX.
        graph: ONNX file, its external weights beside it.
        claimed: Precision that the bundle claims.
        options: Options of the build.
        architectures: Compute capabilities to build for, as in ``sm89``.

    Raises:
        EngineError: The library does not support an operation, the network does not compute in the
            claimed precision, or TensorRT-RTX does not build it for an architecture.

    """
    _parse_checked(trt, trt.Builder(collecting_logger(trt)), graph, claimed, options, architectures)


def _parse_checked(
    trt: ModuleType,
    builder: LibraryObject,
    graph: Path,
    claimed: Precision,
    options: BuildOptions,
    architectures: tuple[str, ...],
) -> tuple[LibraryObject, LibraryObject, dict[str, float]]:
    """Return the network, its parser, which must outlive it, and its shares of each precision."""
    logger = collecting_logger(trt)
    logger.errors.clear()
    title = _name_library(trt, options)
    network, parser = parse_network(trt, builder, logger, graph, title)
    shares = measure_product_shares(trt, network)
    require_precision(graph, shares, claimed)
    if options.target == "tensorrt-rtx":
        require_architectures(trt, network, graph, architectures, title)
    return network, parser, shares


def _name_library(trt: ModuleType, options: BuildOptions) -> str:
    return f"{TITLES[options.target]} {trt.__version__}"


def make_builder_config(
    trt: ModuleType, builder: LibraryObject, options: BuildOptions, architectures: tuple[str, ...]
) -> LibraryObject:
    """Make the library's builder configuration from the options."""
    config = builder.create_builder_config()
    # By default the libraries round FP32 products to TF32; a bundle's FP32 must stay FP32.
    config.clear_flag(trt.BuilderFlag.TF32)
    # Allows the engine inspector to list the layers.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if (limit := limit_workspace(options.workspace)) is not None:
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


def _make_optimization_profile(
    builder: LibraryObject, profile: dict[str, tuple[Shape, Shape, Shape]]
) -> LibraryObject:
    library_profile = builder.create_optimization_profile()
    for name, shapes in profile.items():
        library_profile.set_shape(name, *shapes)
    return library_profile


def _build_in_thread(
    trt: ModuleType,
    builder: LibraryObject,
    network: LibraryObject,
    config: LibraryObject,
    bars: Progress,
) -> LibraryObject:
    """Build in a second thread, so that the main thread can handle Ctrl-C and cancel the build."""
    cancelled = Event()
    # The configuration does not own the monitor, which must outlive the build.
    config.progress_monitor = monitor = make_progress_monitor(trt, bars, cancelled)
    with ThreadPoolExecutor(max_workers=1) as thread:
        try:
            plan = thread.submit(builder.build_serialized_network, network, config).result()
        finally:
            cancelled.set()
    del monitor
    return plan


def explain_failure(title: str, errors: list[str], limit: int | None) -> str:
    """Return the error message of a failed build: the reason, and what to try.

    Args:
        title: Name of the library, with its version.
        errors: Error messages that the library logged, oldest first.
        limit: Limit of the workspace, in bytes; None if unknown.

    """
    memory_errors = [error for error in errors if _OUT_OF_MEMORY.search(error)]
    if not memory_errors:
        return f"{title} built no engine: {format_last_messages(errors)}"
    workspace = "" if limit is None else f" (with {limit / GIB:.3g} GiB of workspace)"
    return (
        f"{title} ran out of memory{workspace}. Close other programs, change --workspace, "
        "try --optimization-level 2 (TensorRT only), or export the bundle with a smaller --size. "
        f"The library reports: {format_last_messages(memory_errors)}"
    )
