"""Engines are built for real, by TensorRT-RTX, which needs no GPU for it; none is run here."""

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import onnx
import pytest
import tensorrt_rtx
from onnx import TensorProto, helper
from rich.console import Console
from rich.progress import Progress

from doubles.builds import FOR_TWO, QUIET
from doubles.machines import DESKTOP, NO_GPU, ORIN
from vditrack.bundle.folder import Bundle, load_bundle, seal_bundle
from vditrack.engine_builder import run
from vditrack.engine_builder.engine import explain_failure, make_builder_config
from vditrack.engine_builder.library import import_library
from vditrack.engine_builder.network import parse_network
from vditrack.engine_builder.options import BuildOptions, select_architectures
from vditrack.engine_builder.parts import Built, NotBuilt, build_parts
from vditrack.engine_builder.run import build_bundle
from vditrack.engine_builder.timing import attach_timing_cache, serialize_timing_cache
from vditrack.engine_builder.workspace import GIB, limit_workspace, parse_workspace
from vditrack.errors import EngineError, InputError
from vditrack.inference.engine_identity import (
    ENGINE_OF,
    Identity,
    build_digest,
    engine_folders,
    load_identity,
)
from vditrack.inference.trt_log import collecting_logger

VERSION = tensorrt_rtx.__version__
NAME = f"tensorrt-rtx-{VERSION}-sm86-sm89-"
"""How the name of a build's folder begins; the rest is of its digest."""
TO_BUILD = ("--target", "tensorrt-rtx", "--arch", "sm86,sm89")
RunCommand = Callable[..., subprocess.CompletedProcess[str]]


def vditrack(*arguments: Path | str) -> subprocess.CompletedProcess[str]:
    """The command in a cold process."""
    code = "from vditrack.cli.app import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def files_of(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*")}


@pytest.mark.slow
def test_the_bundled_model_builds_for_two_architectures(
    whole: Path, run_vditrack: RunCommand
) -> None:
    before = files_of(whole)
    done = vditrack("build", whole, *TO_BUILD, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["not_built"] == []
    assert [build["part"] for build in told["built"]] == ["points", "appearance"]
    folder, other = (Path(build["folder"]) for build in told["built"])
    assert (folder.parent, other.parent) == (whole / "engines", whole / "appearance" / "engines")
    engines = {"encoder.engine", "features.engine"}
    made = {at / name for at in (folder, other) for name in {*engines, "identity.json"}}
    made |= {folder, other, folder.parent, other.parent}
    assert files_of(whole) == before | {path.relative_to(whole).as_posix() for path in made}
    identity = load_identity(folder)
    assert folder.name == NAME + build_digest(identity)[:8]
    assert msgspec.convert(told["built"][0]["identity"], Identity) == identity
    assert socket.gethostname() not in (folder / "identity.json").read_text()
    assert identity.engines.keys() == engines
    assert identity.architectures == ("sm86", "sm89")
    assert (identity.target, identity.version, identity.flags) == ("tensorrt-rtx", VERSION, ())
    assert identity.precision == {"encoder.onnx": {"fp32": 1.0}, "features.onnx": {"fp32": 1.0}}
    assert identity.profiles["features.onnx"] == {"latents": ((1, 64, 1, 48, 64),) * 3}
    assert identity.verified is None
    # The engines hold the weights: as large as the graphs, and not the same.
    for graph, engine in ENGINE_OF.items():
        if graph in identity.graphs:
            size = identity.engines[engine].size
            assert size >= 0.9 * (whole / graph).stat().st_size
    # One architecture is another engine of another name, beside it.
    done = run_vditrack("build", whole, "--target", "tensorrt-rtx", "--arch", "sm120")
    assert done.returncode == 0
    first, second = engine_folders(load_bundle(whole))
    assert first.name.startswith(f"tensorrt-rtx-{VERSION}-sm120-")
    assert second == folder


@pytest.mark.slow
def test_inspect_shows_what_would_load(whole: Path, run_vditrack: RunCommand) -> None:
    folder, _ = build_bundle(load_bundle(whole), FOR_TWO, QUIET)
    (whole / "engines" / "broken").mkdir()
    shown = " ".join(run_vditrack("inspect", whole).stdout.replace("│", " ").split())
    assert f"engines/{folder.name}" in shown
    assert "no engines: appearance" in shown
    assert "unverified" in shown
    assert "100.00% fp32" in shown
    assert "cannot be read" in shown
    told = json.loads(run_vditrack("inspect", whole, "--json").stdout)
    listed = told["engines"]
    assert told["not_built"] == ["appearance"]
    assert [build["folder"] for build in listed] == ["broken", folder.name]
    assert {build["part"] for build in listed} == {"points"}
    assert listed[0]["identity"] is None
    assert "cannot be read" in listed[0]["reasons"][0]
    assert listed[1]["identity"]["architectures"] == ["sm86", "sm89"]


def test_a_second_build_replaces_the_first(root: Path) -> None:
    folder, first = build_bundle(load_bundle(root), FOR_TWO, QUIET)
    (folder / "encoder_start.engine").write_bytes(b"of an encoder that began otherwise")
    # A build is known by its identity.
    folder.rename(folder.with_name("for the robot"))
    again, second = build_bundle(load_bundle(root), FOR_TWO, QUIET)
    assert again != folder
    assert second.graphs == first.graphs
    assert list((root / "engines").iterdir()) == [again]
    assert {path.name for path in again.iterdir()} == {*second.engines, "identity.json"}


def test_a_build_that_holds_another_file_is_refused_before_the_work(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = build_bundle(load_bundle(root), FOR_TWO, QUIET)
    notes = folder / "notes.txt"
    notes.write_text("mine")
    monkeypatch.setattr(run, "build_engine", lambda *_: pytest.fail("the build began"))
    with pytest.raises(InputError, match=rf"{folder} .* another file \(notes\.txt\)"):
        build_bundle(load_bundle(root), FOR_TWO, QUIET)
    shutil.rmtree(folder.parent)
    folder.parent.write_text("no folder")
    with pytest.raises(InputError, match="engines is a file"):
        build_bundle(load_bundle(root), FOR_TWO, QUIET)


def test_the_host_is_recorded_on_request_only(root: Path) -> None:
    _, identity = build_bundle(load_bundle(root), FOR_TWO, QUIET)
    assert identity.host is None
    _, identity = build_bundle(load_bundle(root), replace(FOR_TWO, record_host=True), QUIET)
    assert identity.host == socket.gethostname()


def fails_for(monkeypatch: pytest.MonkeyPatch, failing: str, graph: str) -> None:
    """Let the library fail for an architecture, at a graph."""
    real = run.build_engine

    def build(*arguments: Any) -> Any:
        if failing in arguments[4] and arguments[1].name == graph:
            raise EngineError(f"no kernels for {failing}")
        return real(*arguments)

    monkeypatch.setattr(run, "build_engine", build)


def test_what_works_for_some_architectures_is_kept(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails_for(monkeypatch, "sm89", "features.onnx")
    options = replace(FOR_TWO, architectures=("sm86", "sm89", "sm120"))
    found = list(build_parts(load_bundle(whole), options, ("points",), QUIET))
    built = [result for result in found if isinstance(result, Built)]
    assert [result.identity.architectures for result in built] == [("sm86",), ("sm120",)]
    assert sorted(result.folder for result in built) == engine_folders(load_bundle(whole))
    missing = [result for result in found if isinstance(result, NotBuilt)]
    assert missing == [
        NotBuilt("points", ("sm89",), "no kernels for sm89", failed=True),
        NotBuilt("appearance", ("sm86", "sm89", "sm120"), "not asked for", failed=False),
    ]


def test_an_architecture_that_is_not_supported_is_left_out_of_one_build(root: Path) -> None:
    """The bundled model is in FP32, which TensorRT-RTX does not build for Turing."""
    bundle = load_bundle(root)
    alone, _ = build_bundle(bundle, replace(FOR_TWO, architectures=("sm86",)), QUIET)
    options = replace(FOR_TWO, architectures=("sm75", "sm86", "sm89"))
    found = build_parts(bundle, options, ("points",), QUIET)
    refusal, built = (result for result in found if result.part == "points")
    assert isinstance(refusal, NotBuilt)
    assert refusal.architectures == ("sm75",)
    assert isinstance(built, Built)
    assert built.identity.architectures == ("sm86", "sm89")
    # It also replaces the earlier build for one of them.
    assert engine_folders(bundle) == [built.folder]
    assert not alone.exists()


def test_a_part_that_fails_leaves_the_others(
    whole: Path, run_vditrack: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that ends the command, as a full disk does."""
    real = run.build_engine
    failure: Exception = EngineError("no kernels")

    def build(trt: Any, path: Path, *rest: Any) -> Any:
        if path.parent == whole / "appearance":
            raise failure
        return real(trt, path, *rest)

    monkeypatch.setattr(run, "build_engine", build)
    one = ("--target", "tensorrt-rtx", "--arch", "sm89")
    done = run_vditrack("build", whole, *one, "--json")
    assert done.returncode == 2
    assert done.stderr == "vditrack: not built: appearance for sm89: no kernels\n"
    told = json.loads(done.stdout)
    (folder,) = engine_folders(load_bundle(whole))
    assert [build["folder"] for build in told["built"]] == [str(folder)]
    (missing,) = told["not_built"]
    assert (missing["part"], missing["reason"]) == ("appearance", "no kernels")
    failure = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    done = run_vditrack("build", whole, *one)
    assert done.returncode == 2
    assert "No space left" in done.stderr
    (again,) = engine_folders(load_bundle(whole))
    assert again != folder
    assert f"engines/{again.name}" in done.stdout


def test_parts_are_chosen(whole: Path, run_vditrack: RunCommand) -> None:
    one = ("--target", "tensorrt-rtx", "--arch", "sm89")
    done = run_vditrack("build", whole, *one, "--parts", "appearance")
    assert done.returncode == 0, done.stderr
    assert "not built: points for sm89: not asked for" in done.stdout
    assert {path.name for path in whole.rglob("engines")} == {"engines"}
    assert engine_folders(load_bundle(whole)) == []
    assert len(engine_folders(load_bundle(whole).appearance)) == 1
    for parts, reason in {
        "motion": "has no motion, only",
        "mask": "there is no part 'mask'",
    }.items():
        refused = run_vditrack("build", whole, *one, "--parts", parts)
        assert refused.returncode == 2
        assert reason in refused.stderr


KILLED_WHILE_BUILDING = """
import sys, time
from pathlib import Path
from rich.console import Console
from rich.progress import Progress
from vditrack.engine_builder.options import BuildOptions
from vditrack.engine_builder.run import build_bundle
from vditrack.bundle.folder import load_bundle

FOR_ONE = {"target": "tensorrt-rtx", "architectures": ("sm89",)}

class Stuck(Progress):
    built = 0
    def add_task(self, description, **options):
        Stuck.built += description == "building engine"
        if Stuck.built == 2:
            print("half", flush=True)
            time.sleep(60)
        return super().add_task(description, **options)

build_bundle(load_bundle(Path(sys.argv[1])), BuildOptions(**FOR_ONE), Stuck(disable=True))
"""
KILLED_WHILE_WRITING = """
import sys, time
from pathlib import Path
from rich.progress import Progress
from vditrack.engine_builder.options import BuildOptions
import vditrack.engine_builder.run as run
from vditrack.bundle.folder import load_bundle

FOR_ONE = {"target": "tensorrt-rtx", "architectures": ("sm89",)}

def stuck(*_):
    print("half", flush=True)
    time.sleep(60)

run.write_identity = stuck
run.build_bundle(load_bundle(Path(sys.argv[1])), BuildOptions(**FOR_ONE), Progress(disable=True))
"""


def killed_half_way(code: str, root: Path) -> None:
    command = [sys.executable, "-c", code, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as building:
        assert building.stdout is not None
        assert building.stdout.readline() == "half\n"
        building.kill()


def test_a_build_killed_half_way_leaves_nothing(root: Path) -> None:
    before = files_of(root)
    killed_half_way(KILLED_WHILE_BUILDING, root)
    assert files_of(root) == before


@pytest.mark.slow
def test_a_build_killed_while_writing_leaves_nothing_that_looks_finished(root: Path) -> None:
    killed_half_way(KILLED_WHILE_WRITING, root)
    assert engine_folders(load_bundle(root)) == []
    folder, _ = build_bundle(load_bundle(root), FOR_TWO, QUIET)
    assert load_identity(folder).engines


def test_ctrl_c_stops_a_build(root: Path) -> None:
    before = files_of(root)

    class Interrupting(Progress):
        def add_task(self, description: str, **options: Any) -> Any:
            if description == "building engine":
                # The main thread waits by then.
                time.sleep(0.2)
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                # Else the build may be over before the signal has come.
                time.sleep(0.2)
            return super().add_task(description, **options)

    with pytest.raises(KeyboardInterrupt):
        build_bundle(load_bundle(root), FOR_TWO, Interrupting(disable=True))
    assert "BuildCanceled" in collecting_logger(tensorrt_rtx).errors[-1]
    assert files_of(root) == before


def test_progress_goes_from_phase_to_phase(root: Path) -> None:
    seen: list[str] = []

    class Watching(Progress):
        def add_task(self, description: str, **options: Any) -> Any:
            seen.append(description)
            return super().add_task(description, **options)

    with Watching(console=Console(file=StringIO())) as bars:
        build_bundle(load_bundle(root), FOR_TWO, bars)
    assert seen.count("building engine") == 2
    assert len(set(seen)) > 5
    assert [task.description for task in bars.tasks] == ["engines"]
    assert bars.tasks[0].completed == 2


def with_graph(root: Path, name: str, model: onnx.ModelProto) -> Bundle:
    """The bundle with another graph in the place of one."""
    manifest = load_bundle(root).manifest
    onnx.save(model, root / name)
    return seal_bundle(root, manifest)


@pytest.mark.slow
def test_an_unsupported_operation_is_named(root: Path, run_vditrack: RunCommand) -> None:
    latents = helper.make_tensor_value_info("latents", TensorProto.FLOAT, [1, 24, 2, 24, 24])
    found = helper.make_tensor_value_info("descriptors", TensorProto.FLOAT, [1, 24, 2])
    nodes = [helper.make_node("Det", ["latents"], ["descriptors"], name="volume")]
    graph = helper.make_graph(nodes, "unsupported", [latents], [found])
    opset = helper.make_opsetid("", 20)
    bundle = with_graph(root, "features.onnx", helper.make_model(graph, opset_imports=[opset]))
    before = files_of(root)
    with pytest.raises(EngineError, match=r"does not support Det as node 'volume'") as refused:
        build_bundle(bundle, FOR_TWO, QUIET)
    assert str(root / "features.onnx") in str(refused.value)
    assert files_of(root) == before
    told = run_vditrack("build", root, *TO_BUILD)
    assert told.returncode == 2
    assert "Det" in told.stderr
    assert "Traceback" not in told.stderr


def test_a_graph_that_is_not_onnx_is_refused(root: Path) -> None:
    manifest = load_bundle(root).manifest
    # A message of ONNX without a graph; other bytes are refused when the bundle is loaded.
    (root / "encoder.onnx").write_bytes(onnx.ModelProto(ir_version=10).SerializeToString())
    with pytest.raises(EngineError, match=r"encoder\.onnx.*TensorRT-RTX"):
        build_bundle(seal_bundle(root, manifest), FOR_TWO, QUIET)


REFUSED = {
    "no GPU, no --arch": (BuildOptions(target="tensorrt-rtx"), NO_GPU, "Name the GPUs .* --arch"),
    "Orin": (
        BuildOptions(target="tensorrt-rtx", architectures=("sm87",)),
        NO_GPU,
        "does not build for sm87, only for sm75, .* --target tensorrt",
    ),
    "timing cache": (
        BuildOptions(target="tensorrt-rtx", architectures=("sm89",), timing_cache=Path("x")),
        NO_GPU,
        "TensorRT-RTX has no --timing-cache: it times nothing",
    ),
    "level": (
        BuildOptions(target="tensorrt-rtx", architectures=("sm89",), optimization_level=0),
        NO_GPU,
        "TensorRT-RTX has no --optimization-level: it builds the same",
    ),
    "versions": (
        BuildOptions(target="tensorrt-rtx", architectures=("sm89",), version_compatible=True),
        NO_GPU,
        "TensorRT-RTX has no --version-compatible: .* only in the release",
    ),
    "hardware": (
        BuildOptions(
            target="tensorrt-rtx", architectures=("sm89",), hardware_compatible="ampere_plus"
        ),
        NO_GPU,
        "TensorRT-RTX has no --hardware-compatible: name the GPUs with --arch",
    ),
    "weights": (
        BuildOptions(target="tensorrt-rtx", architectures=("sm89",), strip_weights=True),
        NO_GPU,
        "TensorRT-RTX has no --strip-weights",
    ),
    "TensorRT without a GPU": (BuildOptions(target="tensorrt"), NO_GPU, "there is none here"),
    "TensorRT for another GPU": (
        BuildOptions(target="tensorrt", architectures=("sm86",)),
        DESKTOP,
        "--arch sm86: TensorRT builds for the GPU it runs on, here sm89",
    ),
    "hardware on a Jetson": (
        BuildOptions(target="tensorrt", hardware_compatible="ampere_plus"),
        ORIN,
        "does not support it on JetPack",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_library_lacks_is_refused_by_name(case: str) -> None:
    options, machine, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        select_architectures(options, machine)


def test_architectures_default_to_this_machine() -> None:
    assert select_architectures(BuildOptions(target="tensorrt-rtx"), DESKTOP) == ("sm89",)
    assert select_architectures(BuildOptions(target="tensorrt"), ORIN) == ("sm87",)
    twice = BuildOptions(target="tensorrt-rtx", architectures=("sm89", "sm86", "sm89"))
    assert select_architectures(twice, DESKTOP) == ("sm86", "sm89")


def test_tensorrt_rtx_builds_the_same_whatever_the_level(root: Path) -> None:
    """Why it is refused: that it was asked for would be all that it did."""
    trt = import_library("tensorrt-rtx")
    logger = collecting_logger(trt)
    plans = []
    for level in (0, 5):
        builder = trt.Builder(logger)
        graph = root / "features.onnx"
        network, _parser = parse_network(trt, builder, logger, graph, "TensorRT-RTX")
        config = builder.create_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM89, 0)
        config.builder_optimization_level = level
        plans.append(bytes(builder.build_serialized_network(network, config)))
    assert plans[0] == plans[1]


def test_options_reach_the_configuration() -> None:
    """TensorRT's own, in the words of TensorRT-RTX, whose binding has the same names."""
    trt = import_library("tensorrt-rtx")
    builder = trt.Builder(collecting_logger(trt))
    plain = make_builder_config(trt, builder, BuildOptions(target="tensorrt"), ("sm87",))
    assert not plain.get_flag(trt.BuilderFlag.TF32)
    assert not plain.get_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    assert not plain.get_flag(trt.BuilderFlag.STRIP_PLAN)
    asked = BuildOptions(
        target="tensorrt",
        workspace=1 << 20,
        optimization_level=5,
        version_compatible=True,
        strip_weights=True,
    )
    config = make_builder_config(trt, builder, asked, ("sm87",))
    assert config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == 1 << 20
    assert config.builder_optimization_level == 5
    for flag in ("VERSION_COMPATIBLE", "STRIP_PLAN", "REFIT_IDENTICAL"):
        assert config.get_flag(getattr(trt.BuilderFlag, flag))
    two = make_builder_config(trt, builder, FOR_TWO, FOR_TWO.architectures)
    targets = [two.get_compute_capability(i) for i in range(two.num_compute_capabilities)]
    assert targets == [trt.ComputeCapability.SM86, trt.ComputeCapability.SM89]


@pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX:DeprecationWarning")
def test_a_timing_cache_that_is_none_is_refused() -> None:
    """By TensorRT-RTX, which has the calls, and refuses its use in a build."""
    trt = import_library("tensorrt-rtx")
    logger = collecting_logger(trt)
    config = trt.Builder(logger).create_builder_config()
    attach_timing_cache(config, b"", Path("new"), logger)
    assert serialize_timing_cache(config)
    with pytest.raises(InputError, match="damaged is a timing cache of another"):
        attach_timing_cache(config, b"nothing like it" * 20, Path("damaged"), logger)


def test_a_library_that_is_missing_says_what_to_install() -> None:
    with pytest.raises(EngineError, match=r"No module named 'tensorrt'.*python3-libnvinfer"):
        import_library("tensorrt")


MEMORY = [
    "Could not find any implementation for node {ForeignNode[a...b]}.",
    "[defaultAllocator.cpp::allocate::56] Error Code 1: Cuda Runtime (out of memory)",
    "Error Code 2: OutOfMemory (Requested size was 8589934592 bytes.)",
    "[resources.cpp::catchCudaError] (cudaError 2: CUDA error)",
    "UNSUPPORTED_STATE: Skipping tactic 0 due to insufficient memory on requested size of 5",
    "std::bad_alloc",
    "Compiling this graph requires workspace memory greater than 0. Please increase the workspace "
    "memory provided to the builder.",
    "Device memory is insufficient to use tactic.",
]


@pytest.mark.parametrize("message", MEMORY)
def test_out_of_memory_is_named(message: str) -> None:
    said = explain_failure("TensorRT 10.3.0", ["an earlier error", message, "a later one"], 2 * GIB)
    assert said.startswith("TensorRT 10.3.0 ran out of memory (with 2 GiB of workspace)")
    assert "--workspace" in said
    assert message in said


def test_a_workspace_that_is_too_small_is_out_of_memory(root: Path) -> None:
    """The messages are the library's own: no kernel fits, or a request is larger."""
    for size, message in ((1 << 20, "OutOfMemory"), (1 << 22, "allowed workspace size")):
        said = rf"ran out of memory \(with {size / GIB:.3g} GiB of workspace\).*{message}"
        with pytest.raises(EngineError, match=said):
            build_bundle(load_bundle(root), replace(FOR_TWO, workspace=size), QUIET)


def test_other_failures_are_not_called_so() -> None:
    said = explain_failure("TensorRT 10.3.0", ["(cudaError 35: driver is\ninsufficient)"], None)
    assert said == "TensorRT 10.3.0 built no engine: (cudaError 35: driver is insufficient)"


def test_workspace() -> None:
    assert parse_workspace("auto") is None
    assert parse_workspace("0.5") == GIB // 2
    for wrong in ("0", "-1", "nan", "much", "1e9"):
        with pytest.raises(InputError, match=f"--workspace {wrong} is neither"):
            parse_workspace(wrong)
    half = limit_workspace(None)
    assert half is not None
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < half <= total // 2
    assert limit_workspace(1 << 20) == 1 << 20
    assert (limit_workspace(1 << 50) or 0) <= total // 2
