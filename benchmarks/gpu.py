"""A large backbone on this machine's GPU: speed in torch, ONNX Runtime and TensorRT.

    make gpu                                # in an environment of its own, with all libraries
    python benchmarks/gpu.py --json         # in this one; what is not installed is left out

Wan2.1-T2V-1.3B at 832 x 480 has random weights, made here. Parts, each at most as long as its
limit and all together at most 10 minutes: `vditrack doctor`; the providers of ONNX Runtime, each
by runs of the bundled model's graphs compared with the CPU's; the rates of a large product and of
a copy; the whole and the cut transformer, its step with cached keys and the encoder in torch;
graphs of the cut transformer and the encoder in FP16 as export writes them, on ONNX Runtime's
providers and on engines of TensorRT and TensorRT-RTX. Of each network: time, operations a second,
their share of the large product's rate, power and energy, and what crosses between host and GPU in
a run if its state stays on the device. A part that fails is reported with its error. Without a
GPU, small networks run on the CPU in FP32, which tests the script and measures nothing.
"""

import json
import math
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import typer

import result_files
from power import PowerMeter
from timed_parts import Figure, NotPossibleError, Part, print_line, run_parts
from vditrack.bundle.folder import ENCODER, FEATURES, bundled_model, load_bundle
from vditrack.doctor.examination import run_checks
from vditrack.errors import BackendError
from vditrack.inference.isolated_import import import_isolated
from vditrack.inference.machine import read_machine
from vditrack.inference.onnxruntime import CPU, CUDA, TENSORRT, TENSORRT_RTX, OnnxRuntimeSession
from vditrack.inference.session import Array, Session, TensorSpec, find_state

SECONDS = 600.0
"""The longest time of all parts."""
_TIMED_SECONDS = 2.0
"""Time that each network is run for."""
_PEAK = "large product TFLOP/s"


@dataclass(frozen=True)
class Settings:
    """What the parts of a run share."""

    small: bool
    """Whether small networks run on the CPU."""
    folder: Path
    """Folder of the graphs and engines."""
    seconds: float = _TIMED_SECONDS


def list_parts(settings: Settings) -> list[Part]:
    """Return the parts in their order: those that others need, and those that say most, first."""
    graphs = (CPU,) if settings.small else (CUDA, TENSORRT)
    first, *others = (
        Part(f"onnxruntime {short_name(name)}", seconds, measure_provider, (settings, name))
        for name, seconds in zip(graphs, (45, 80), strict=False)
    )
    return [
        Part("doctor", 40, measure_doctor),
        Part("providers", 50, measure_providers, (settings,)),
        Part("rates", 20, measure_rates, (settings,)),
        Part("torch eager", 60, measure_torch, (settings,)),
        Part("graphs", 75, export_graphs, (settings,)),
        first,
        Part("tensorrt", 90, measure_engines, (settings, "tensorrt")),
        Part("tensorrt-rtx", 60, measure_engines, (settings, "tensorrt-rtx")),
        Part("torch compiled", 75, partial(measure_torch, compiled=True), (settings,)),
        *others,
    ]


def short_name(provider: str) -> str:
    """Return a provider's name without its ending."""
    return provider.removesuffix("ExecutionProvider")


def measure_doctor() -> Iterator[Figure]:
    """Yield what the doctor finds, as notes."""
    for finding in run_checks():
        yield f"doctor, {finding.name}", f"{finding.state}: {finding.found}"


def measure_providers(settings: Settings) -> Iterator[Figure]:
    """Run the bundled model's graphs on each provider, and compare the results with the CPU's."""
    bundle = load_bundle(bundled_model())
    graphs = {name: bundle.root / name for name in (FEATURES, ENCODER)}
    providers = (CPU,) if settings.small else (CPU, CUDA, TENSORRT_RTX, TENSORRT)
    expected: dict[str, dict[str, Array]] = {}
    for provider in providers:
        for name, graph in graphs.items():
            title = f"provider {short_name(provider)}, {name}"
            try:
                session = OnnxRuntimeSession(graph, provider)
                found = session.run(random_inputs(session), session.new_state())
            except BackendError as error:
                yield title, f"failed: {error}"
                continue
            exact = expected.setdefault(name, found)
            yield f"{title} error", max(_relative_error(found[key], exact[key]) for key in exact)
            share = node_share(graph, provider, random_inputs(session))
            if share is not None:
                yield f"{title} nodes %", 100 * share


def node_share(graph: Path, provider: str, inputs: dict[str, Array]) -> float | None:
    """Return the share of a graph's nodes that ran on a provider; None if that is not known.

    ONNX Runtime moves nodes that a provider lacks to the CPU without a word. A provider that joins
    nodes into one counts as one, so that few nodes left on the CPU show.
    """
    import onnxruntime  # noqa: PLC0415 - each part imports what it measures

    if provider not in onnxruntime.get_available_providers():
        return None
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(
            str(graph), options, providers=list(dict.fromkeys([provider, CPU]))
        )
        session.run(None, inputs)
        events = json.loads(Path(session.end_profiling()).read_text())
    ran = [event["args"]["provider"] for event in events if "provider" in event.get("args", {})]
    return ran.count(provider) / len(ran) if ran else None


def measure_rates(settings: Settings) -> Iterator[Figure]:
    """Measure a large product of matrices and a copy, in torch."""
    import torch  # noqa: PLC0415

    device, wait = torch_device(settings)
    side, dtype = (256, torch.float32) if settings.small else (8192, torch.float16)
    x = torch.randn(side, side, device=device, dtype=dtype)
    name = "large product"
    yield from time_network(name, lambda: x @ x, 2 * side**3, settings, wait)
    source = torch.zeros(16 * side**2, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds, _ = time_runs(lambda: target.copy_(source), settings, wait)
    yield "copy GB/s", 2e-9 * source.nbytes / seconds
    if not settings.small:
        yield "memory GB", torch.cuda.get_device_properties(0).total_memory / 1e9


def measure_torch(settings: Settings, *, compiled: bool = False) -> Iterator[Figure]:
    """Time the networks in torch, one at a time in the device's memory."""
    import torch  # noqa: PLC0415

    import gpu_networks as networks  # noqa: PLC0415

    device, wait = torch_device(settings)
    card, form = networks.make_card(small=settings.small), "compiled" if compiled else "eager"
    builders = [
        partial(build, compiled=compiled)
        for build in (networks.build_cut, networks.build_step, networks.build_whole)
    ]
    with torch.no_grad():
        for build in builders if compiled else [*builders, networks.build_encoder]:
            network = build(card, device)
            name = f"torch {form}: {network.name}"
            yield from time_network(name, network.run, network.operations, settings, wait)
            if not settings.small:
                yield f"{name} peak GB", torch.cuda.max_memory_allocated() / 1e9
            del network
            if not settings.small:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()


def torch_device(settings: Settings) -> tuple[Any, Callable[[], object]]:
    """Return the device, and a function that waits until it has done its work."""
    import torch  # noqa: PLC0415

    if settings.small:
        return torch.device("cpu"), lambda: None
    if not torch.cuda.is_available():
        raise NotPossibleError(f"torch {torch.__version__} finds no GPU")
    return torch.device("cuda"), torch.cuda.synchronize


def export_graphs(settings: Settings) -> Iterator[Figure]:
    """Write the graphs, in FP16 on a GPU."""
    from gpu_networks import make_card, write_graphs  # noqa: PLC0415

    began = time.perf_counter()
    card = make_card(small=settings.small)
    for name, megabytes in write_graphs(card, settings.folder, half=not settings.small):
        yield f"graph {name} MB", megabytes
        yield f"graph {name} export s", time.perf_counter() - began
        began = time.perf_counter()


def measure_provider(settings: Settings, provider: str) -> Iterator[Figure]:
    """Time the graphs on a provider of ONNX Runtime."""

    def open_graph(graph: Path) -> Session:
        return OnnxRuntimeSession(graph, provider)

    if provider == TENSORRT:
        # Its wheel's libraries are found once they are loaded.
        with suppress(ImportError):
            import_isolated("tensorrt")
    yield from measure_sessions(f"onnxruntime {short_name(provider)}", open_graph, settings)


def measure_engines(settings: Settings, target: Any) -> Iterator[Figure]:  # noqa: ANN401
    """Build engines of the graphs for this GPU, and time them."""
    from rich.progress import Progress  # noqa: PLC0415

    from vditrack.bundle.manifest import Precision  # noqa: PLC0415
    from vditrack.engine_builder.engine import build_engine  # noqa: PLC0415
    from vditrack.engine_builder.library import import_library  # noqa: PLC0415
    from vditrack.engine_builder.options import BuildOptions, select_architectures  # noqa: PLC0415
    from vditrack.inference.tensorrt import EngineSession  # noqa: PLC0415

    machine = read_machine()
    if machine.gpu is None:
        raise NotPossibleError("this machine has no NVIDIA GPU")
    library, options = import_library(target), BuildOptions(target)
    architectures = select_architectures(options, machine)
    precision = Precision(encoder="fp16", features="fp16")

    def open_graph(graph: Path) -> Session:
        bars = Progress(disable=True)
        built = build_engine(library, graph, precision, options, architectures, None, bars)
        path = graph.with_suffix(f".{target}.engine")
        path.write_bytes(built.plan)
        return EngineSession(path, target)

    yield from measure_sessions(target, open_graph, settings)


def measure_sessions(
    backend: str, open_graph: Callable[[Path], Session], settings: Settings
) -> Iterator[Figure]:
    """Time the graphs that were written, from arrays of the host to arrays of the host."""
    titles = {FEATURES: "cut transformer, window", ENCODER: "VAE encoder, a new latent"}
    found = {name: settings.folder / name for name in titles if (settings.folder / name).exists()}
    if not found:
        raise NotPossibleError("the graphs were not written")
    counts = json.loads((settings.folder / "operations.json").read_text())
    for name, graph in found.items():
        title, began = f"{backend}: {titles[name]}", time.perf_counter()
        session = open_graph(graph)
        yield f"{title} load s", time.perf_counter() - began
        state = session.new_state()
        yield f"{title} MB to the GPU", _megabytes(session, session.inputs)
        yield f"{title} MB from the GPU", _megabytes(session, session.outputs)
        yield f"{title} MB of state", state.nbytes / 1e6
        run = partial(session.run, random_inputs(session), state)
        yield from time_network(title, run, counts[name], settings, lambda: None)


def random_inputs(session: Session) -> dict[str, Array]:
    """Return the inputs of a session that are not state; places are those of a full window."""
    rng = np.random.default_rng(0)
    inputs: dict[str, Array] = {}
    state = find_state(session.inputs, session.outputs).specs
    for name, spec in session.inputs.items():
        if name in state:
            continue
        if name == "frames":
            inputs[name] = rng.integers(0, 256, spec.shape, np.uint8)
        elif name == "latents":
            inputs[name] = rng.standard_normal(spec.shape, np.float32)
        else:
            inputs[name] = np.arange(np.prod(spec.shape), dtype=spec.dtype).reshape(spec.shape)
    return inputs


def time_network(
    name: str,
    run: Callable[[], object],
    operations: int,
    settings: Settings,
    wait: Callable[[], object],
) -> Iterator[Figure]:
    """Yield the median time of a run, its operations, and power and energy where they are known."""
    seconds, watts = time_runs(run, settings, wait)
    yield f"{name} ms", 1000 * seconds
    yield f"{name} TFLOP", operations / 1e12
    yield f"{name} TFLOP/s", operations / seconds / 1e12
    if watts is not None:
        yield f"{name} W", watts
        yield f"{name} J", watts * seconds


def time_runs(
    run: Callable[[], object], settings: Settings, wait: Callable[[], object]
) -> tuple[float, float | None]:
    """Return the median time of a run in seconds, and the mean power in watts if it is known."""
    for _ in range(2):
        run()
    wait()
    taken: list[float] = []
    with PowerMeter() as meter:
        ends = time.perf_counter() + settings.seconds
        while len(taken) < 3 or time.perf_counter() < ends:
            began = time.perf_counter()
            run()
            wait()
            taken.append(time.perf_counter() - began)
    return statistics.median(taken), meter.watts


def _relative_error(found: Array, exact: Array) -> float:
    difference = np.abs(found.astype(np.float64) - exact).max()
    return float(difference / max(np.abs(exact).max(), 1e-30))


def _megabytes(session: Session, tensors: dict[str, TensorSpec]) -> float:
    """Return the size of those of the tensors that are not state."""
    found = find_state(session.inputs, session.outputs)
    state = {*found.specs, *found.replaced, *found.rings}
    sizes = {name: math.prod(x.shape) * x.dtype.itemsize for name, x in tensors.items()}
    return sum(size for name, size in sizes.items() if name not in state) / 1e6


def share_of_peak(name: str, value: float, figures: dict[str, float]) -> tuple[str, float] | None:
    """Return the share of the large product's rate that a rate is, if it is one."""
    found = re.fullmatch(r"(.*) TFLOP/s", name)
    if found is None or name == _PEAK or _PEAK not in figures:
        return None
    return f"{found[1]} % of large product", 100 * value / figures[_PEAK]


def main(
    small: Annotated[
        bool, typer.Option(help="Run small networks on the CPU, as without a GPU.")
    ] = False,
    seconds: Annotated[float, typer.Option(help="The longest time of all parts.")] = SECONDS,
    as_json: Annotated[bool, typer.Option("--json", help="Write the result file.")] = False,
    folder: Annotated[Path, typer.Option(help="Folder of the result file.")] = result_files.RESULTS,
) -> None:
    """Measure this machine's GPU, or test the script on its CPU."""
    load, gpu = result_files.begin(), read_machine().gpu
    small = small or gpu is None
    print_line(f"{gpu or 'no NVIDIA GPU'}: {'small networks on the CPU' if small else 'full size'}")
    command = "python benchmarks/gpu.py --json"
    result = result_files.describe_run("gpu", command, load, None if small else gpu)
    figures: dict[str, float] = {}
    notes: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        settings = Settings(small, Path(scratch), 0.1 if small else _TIMED_SECONDS)
        for _, (name, value) in run_parts(list_parts(settings), seconds, print_line):
            keep_figure(name, value, figures, notes)
            if as_json:
                measured = msgspec.structs.replace(result, figures=figures, notes=notes)
                result_files.write_result(measured, folder)
    if as_json:
        print(folder / result_files.file_name(result))


def keep_figure(
    name: str, value: float | str, figures: dict[str, float], notes: dict[str, str]
) -> None:
    """Print a figure or a note and keep it; a rate is followed by its share of the peak."""
    if isinstance(value, str):
        notes[name] = value
        print(f"  {name}: {value}", flush=True)
        return
    share = share_of_peak(name, value, figures)
    for key, number in ((name, value), *((share,) if share else ())):
        figures[key] = float(number)
        print(f"  {key}: {float(number):.4g}", flush=True)


if __name__ == "__main__":
    typer.run(main)
