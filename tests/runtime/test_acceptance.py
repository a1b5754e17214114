"""Engines are taken once they track as the bundle's own graphs did, and refused if they do not."""

import json
import logging
import shutil
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import tensorrt_rtx
from onnx import helper
from rich.progress import Progress

from doubles.cuda import CudaDouble, library_double
from doubles.engines import HERE, build, warnings
from doubles.passthrough import write_passthrough
from vditrack import Tracker, acceptance
from vditrack.acceptance import (
    CLIPS,
    MAX_MOVE,
    POINTS,
    AcceptanceTracks,
    load_acceptance_tracks,
    make_acceptance_clips,
    median_move,
    save_acceptance_tracks,
    track_acceptance_clips,
    verify_tracks,
)
from vditrack.bundle.folder import ACCEPTANCE, bundled_model, load_bundle, seal_bundle
from vditrack.bundle.manifest import Input
from vditrack.cli import app as cli
from vditrack.engine_builder import listing, run, verdicts
from vditrack.engine_builder.options import BuildOptions
from vditrack.errors import BackendError, BundleError, EngineError
from vditrack.inference import engine_library
from vditrack.inference import engine_loading as builds
from vditrack.inference.engine_identity import load_identity
from vditrack.inference.onnxruntime import open_session
from vditrack.inference.own_verdicts import record_verdict

SIZE = Input(height=30, width=40, frames=4, temporal_stride=1, described_frames=4)
DIAGONAL = 50.0
AT = BuildOptions(target="tensorrt-rtx", architectures=("sm86",))


def recorded(folder, **options):
    """A bundle with the tracks of its graphs in ONNX Runtime."""
    bundle = write_passthrough(folder, **options)
    return record_tracks(bundle)


def record_tracks(bundle, clips=CLIPS):
    followed = track_acceptance_clips(
        bundle, open_session, make_acceptance_clips(bundle.manifest.input, clips)
    )
    save_acceptance_tracks(bundle.root / ACCEPTANCE, followed)
    return seal_bundle(bundle.root, bundle.manifest)


@pytest.fixture(scope="module")
def recorded_bundle(tmp_path_factory):
    """A bundle with the tracks of its graphs; tests change a copy of it."""
    return recorded(tmp_path_factory.mktemp("recorded") / "bundle")


@pytest.fixture
def bundle(recorded_bundle, tmp_path):
    """A copy of the recorded bundle."""
    return load_bundle(shutil.copytree(recorded_bundle.root, tmp_path / "bundle"))


@pytest.fixture(scope="module", autouse=True)
def clips_rendered_once():
    """Render the clips of a size once: most of a verification of graphs this small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(acceptance, "make_acceptance_clips", cache(make_acceptance_clips))
        yield


def spoil(graph, axis=0):
    """Shuffle what a graph puts out along an axis, as one does that came out wrong."""
    model = onnx.load(graph)
    (output,) = model.graph.output
    for node in model.graph.node:
        node.output[:] = ["right" if name == output.name else name for name in node.output]
    count = output.type.tensor_type.shape.dim[axis].dim_value
    order = onnx.numpy_helper.from_array(np.random.default_rng(0).permutation(count), "order")
    model.graph.initializer.append(order)
    gather = helper.make_node("Gather", ["right", "order"], [output.name], axis=axis)
    model.graph.node.append(gather)
    onnx.save(model, graph)


def build_wrongly(bundle, tmp_path, target="tensorrt-rtx"):
    """A build whose engine of the transformer is of another graph, as large as its own."""
    other = write_passthrough(tmp_path / "others")
    spoil(other.features)
    return build(bundle, target, stands_for={"features.onnx": other.features})


@pytest.fixture
def verifications(monkeypatch):
    """How often clips were tracked to verify an engine."""
    made = []
    real = builds.verify_build
    monkeypatch.setattr(
        builds, "verify_build", lambda *given: made.append(given[0].name) or real(*given)
    )
    return made


# Comparison


def moved(by, lost=0, points=20):
    """Tracks over two frames, and those of which points moved in the second or were lost there."""
    rng = np.random.default_rng(0)
    start = rng.uniform(5, 25, (points, 1, 2)).astype(np.float32)
    before = AcceptanceTracks(np.repeat(start, 2, axis=1), np.ones((points, 2), np.bool_))
    after = before.points.copy()
    after[:, 1, 0] += by
    visible = before.visible.copy()
    visible[:lost, 1] = False
    return before, AcceptanceTracks(after, visible)


@pytest.mark.parametrize(
    ("by", "lost", "wanted"),
    [
        (0.0, 0, 0.0),
        (0.75, 0, 0.75),
        # As many are lost as not: half way.
        (0.0, 10, DIAGONAL / 2),
        (0.0, 9, 0.0),
        (0.0, 20, DIAGONAL),
        (np.nan, 0, DIAGONAL),
        (np.inf, 0, DIAGONAL),
        (1e9, 0, DIAGONAL),
    ],
)
def test_the_median_move(by, lost, wanted):
    assert median_move(*moved(by, lost), SIZE) == pytest.approx(wanted, abs=1e-5)


def test_what_the_bundle_does_not_see_is_not_compared():
    before, after = moved(np.arange(20) // 10 * 9.0)
    unseen = before.visible & (np.arange(20) < 10)[:, None]
    assert median_move(replace(before, visible=unseen), after, SIZE) == 0
    nothing = replace(before, visible=before.visible & [True, False])
    assert median_move(nothing, before, SIZE) == DIAGONAL


@pytest.mark.slow
def test_the_bundled_model_carries_its_tracks(tiny_bundle):
    found = verify_tracks(tiny_bundle, open_session, "here")
    assert found.median_move < 0.05
    assert found.passed
    # Some precision is left in them, and they are of something.
    assert load_acceptance_tracks(tiny_bundle).compared.mean() > 0.5
    assert tiny_bundle.acceptance.stat().st_size < 40_000


# First load


@pytest.mark.slow
def test_an_engine_that_agrees_is_verified_once(bundle, gpu, verifications, caplog):
    folder = build(bundle, "tensorrt-rtx")
    with caplog.at_level(logging.INFO, "vditrack"):
        assert Tracker.load(bundle.root).backend.name == "tensorrt-rtx"
    told = [line.getMessage() for line in caplog.records if line.levelno == logging.INFO]
    assert "comparing its tracks with the bundle's" in told[0]
    assert "the median point moved by 0.000 pixels; the limit is 0.5" in told[1]
    verified = load_identity(folder).verified
    assert (verified.where, verified.limit) == (HERE.gpu, MAX_MOVE)
    assert verified.median_move < 1e-3
    assert Tracker.load(bundle.root).backend.name == "tensorrt-rtx"
    assert verifications == [folder.name]
    assert warnings(caplog) == []


@pytest.mark.slow
def test_another_gpu_verifies_anew(bundle, gpu, verifications, monkeypatch):
    folder = build(bundle, "tensorrt-rtx")
    Tracker.load(bundle.root)
    other = replace(HERE, gpu="NVIDIA RTX A6000")
    monkeypatch.setattr(builds, "read_machine", lambda device=0: other)
    Tracker.load(bundle.root)
    assert verifications == [folder.name] * 2
    assert load_identity(folder).verified.where == other.gpu


@pytest.mark.slow
@pytest.mark.parametrize("target", ["tensorrt", "tensorrt-rtx"])
def test_an_engine_whose_tracks_moved_stays_refused(
    bundle,
    gpu,
    verifications,
    tmp_path,
    caplog,
    target,
):
    folder = build_wrongly(bundle, tmp_path, target)
    reason = "its tracks differ from the bundle's: on NVIDIA RTX A2000 the median point moved by"
    for _ in range(2):
        backend = Tracker.load(bundle.root).backend
        assert backend.name == "cpu"
        assert reason in dict(backend.fallbacks)[target]
    assert load_identity(folder).verified.median_move > 2 * MAX_MOVE
    assert verifications == [folder.name]
    assert len(warnings(caplog)) == 2
    with pytest.raises(BackendError, match=f"backend {target}: {folder.name}: {reason}"):
        Tracker.load(bundle.root, target)


@pytest.mark.slow
def test_another_build_takes_its_place(bundle, gpu, tmp_path):
    build_wrongly(bundle, tmp_path, "tensorrt")
    build(bundle, "tensorrt-rtx")
    assert Tracker.load(bundle.root).backend.name == "tensorrt-rtx"


@pytest.mark.slow
def test_what_cannot_be_kept_is_found_again(bundle, gpu, verifications, monkeypatch, caplog):
    folder = build(bundle, "tensorrt")

    make = Path.mkdir

    def refuse(path, *given, **named):
        # What is written is written beside first.
        if path.name.startswith("."):
            raise PermissionError(13, "Permission denied")
        make(path, *given, **named)

    monkeypatch.setattr(Path, "mkdir", refuse)
    for count in (1, 2):
        assert Tracker.load(bundle.root).backend.name == "tensorrt"
        (*_, warning) = warnings(caplog)
        assert f"{folder.name}: the verdict on its tracks is not stored" in warning
        assert len(warnings(caplog)) == count
    assert verifications == [folder.name] * 2
    assert load_identity(folder).verified is None


def test_a_bundle_without_tracks_loads_unverified(tmp_path, gpu, verifications, caplog):
    bundle = write_passthrough(tmp_path / "bundle")
    folder = build(bundle, "tensorrt-rtx")
    with caplog.at_level(logging.DEBUG, "vditrack"):
        assert Tracker.load(bundle.root).backend.name == "tensorrt-rtx"
    assert f"{folder.name}: not verified because {bundle.root} has no gate.npz" in caplog.text
    assert verifications == []
    assert load_identity(folder).verified is None


# gate.npz


def test_edited_tracks_are_found_out(bundle):
    content = bytearray(bundle.acceptance.read_bytes())
    content[100] ^= 1
    bundle.acceptance.write_bytes(content)
    with pytest.raises(BundleError, match=r"gate\.npz was altered"):
        load_bundle(bundle.root)


POINTS_OF_FOUR = np.ones((4 * POINTS, 16, 2), np.float32)
SEEN = np.ones((4 * POINTS, 16), np.bool_)
MALFORMED = {
    "no archive": (b"no archive", "does not hold points and visible"),
    "one array": (POINTS_OF_FOUR, "does not hold points and visible"),
    "objects": ({"points": np.array([{}]), "visible": SEEN}, "allow_pickle=False"),
    "no visible": ({"points": POINTS_OF_FOUR}, "visible"),
    "float64": ({"points": POINTS_OF_FOUR.astype(float), "visible": SEEN}, "points are float64"),
    "flat": ({"points": POINTS_OF_FOUR[..., 0], "visible": SEEN}, "not float32 [N, T, 2]"),
    "numbers": ({"points": POINTS_OF_FOUR, "visible": SEEN.astype(int)}, "visible is int64"),
    "other N": ({"points": POINTS_OF_FOUR, "visible": SEEN[1:]}, "visible is bool [255, 16]"),
    "other T": ({"points": POINTS_OF_FOUR[:, 1:], "visible": SEEN[:, 1:]}, "over 15 frames"),
    "half a clip": ({"points": POINTS_OF_FOUR[:99], "visible": SEEN[:99]}, "99 points over 16"),
    "no clip": ({"points": POINTS_OF_FOUR[:0], "visible": SEEN[:0]}, "0 points over 16"),
    "NaN": ({"points": POINTS_OF_FOUR * np.nan, "visible": SEEN}, "not all finite"),
    "unseen": ({"points": POINTS_OF_FOUR, "visible": ~SEEN}, "no point is visible"),
    "other clips": ({"points": POINTS_OF_FOUR, "visible": SEEN}, "of other clips than"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_tracks_are_refused(bundle, gpu, kind):
    content, complaint = MALFORMED[kind]
    if isinstance(content, bytes):
        bundle.acceptance.write_bytes(content)
    elif isinstance(content, np.ndarray):
        with bundle.acceptance.open("wb") as file:
            np.save(file, content)
    else:
        np.savez(bundle.acceptance, **content)
    sealed = seal_bundle(bundle.root, bundle.manifest)
    folder = build(sealed, "tensorrt-rtx")
    with pytest.raises(BackendError) as refused:
        Tracker.load(sealed.root, "tensorrt-rtx")
    assert complaint in str(refused.value)
    assert "Export the bundle again" in str(refused.value)
    # The engine is not to blame.
    assert load_identity(folder).verified is None


def test_one_clip_is_enough(tmp_path, gpu):
    bundle = record_tracks(write_passthrough(tmp_path / "bundle"), clips=1)
    folder = build(bundle, "tensorrt-rtx")
    Tracker.load(bundle.root, "tensorrt-rtx")
    assert load_identity(folder).verified.passed


# The command line


def vditrack(monkeypatch, capsys, *arguments):
    """Exit code, stdout and stderr of the command, in this process for its doubles' sake."""
    monkeypatch.setattr(sys, "argv", ["vditrack", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr()
    return ended.value.code or 0, told.out, told.err


@pytest.fixture
def desk(gpu, monkeypatch):
    """The double's machine, for the command line too."""
    for module in (verdicts, listing, run):
        monkeypatch.setattr(module, "read_machine", lambda device=0: HERE)
    return gpu


@pytest.mark.slow
def test_inspect_verifies_and_records(bundle, desk, monkeypatch, capsys):
    folder = build(bundle, "tensorrt-rtx")
    elsewhere = build(bundle, "tensorrt-rtx", architecture="sm120")
    code, out, err = vditrack(monkeypatch, capsys, "inspect", bundle.root, "--verify")
    assert (code, err) == (0, "")
    shown = " ".join(out.replace("│", " ").split())
    assert "0.000 px from the bundle's tracks, limit 0.5 (NVIDIA RTX A2000" in shown
    assert "unverified: not yet compared with the bundle's" in shown
    first = load_identity(folder).verified
    assert first.passed
    assert load_identity(elsewhere).verified is None
    # Again, whatever was found before.
    bad = msgspec.structs.replace(first, median_move=9.0)
    record_verdict(folder, bundle, msgspec.structs.replace(load_identity(folder), verified=bad))
    code, out, _ = vditrack(monkeypatch, capsys, "inspect", bundle.root, "--verify", "--json")
    assert code == 0
    listed = {each["folder"]: each for each in json.loads(out)["engines"]}
    assert listed[folder.name]["identity"]["verified"]["median_move"] < 1e-3
    assert listed[folder.name]["reasons"] == []


def test_engines_are_verified_on_the_gpu_that_is_chosen(bundle, desk):
    build(bundle, "tensorrt-rtx")
    desk.devices = 2
    for device in (1, 0):
        assert verdicts.verify_builds(bundle, device) == []
        assert desk.current == device


@pytest.mark.slow
def test_inspect_shows_everything_before_it_fails(bundle, desk, monkeypatch, capsys, tmp_path):
    wrong, right = build_wrongly(bundle, tmp_path), build(bundle, "tensorrt")
    code, out, err = vditrack(monkeypatch, capsys, "inspect", bundle.root, "--verify")
    assert code == 2
    assert err.startswith(f"vditrack: {wrong.name}: its tracks differ from the bundle's")
    assert err.count("\n") == 1
    assert right.name not in err
    assert f"engines/{wrong.name}" in out
    assert f"engines/{right.name}" in out
    assert load_identity(right).verified.passed
    assert not load_identity(wrong).verified.passed
    # What is known is shown without being found again, and is no mistake of who asks.
    code, out, err = vditrack(monkeypatch, capsys, "inspect", bundle.root)
    assert (code, err) == (0, "")
    assert "does not load" in out


def test_inspect_names_an_engine_that_does_not_run(bundle, desk, monkeypatch, capsys):
    folder = build(bundle, "tensorrt-rtx")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", library_double(desk, executes=False))
    code, out, err = vditrack(monkeypatch, capsys, "inspect", bundle.root, "--verify")
    assert code == 2
    assert err.startswith(f"vditrack: {folder.name}: ")
    assert "fails to run" in err
    assert f"engines/{folder.name}" in out
    assert load_identity(folder).verified is None


def test_inspect_has_nothing_to_verify(bundle, monkeypatch, capsys, tmp_path, desk):
    code, _, err = vditrack(monkeypatch, capsys, "inspect", bundle.root, "--verify")
    assert code == 2
    assert f"no build of {bundle.root} loads on this machine" in err
    build(bundle, "tensorrt-rtx", architecture="sm120")
    assert vditrack(monkeypatch, capsys, "inspect", bundle.root, "--verify")[0] == 2
    trackless = write_passthrough(tmp_path / "trackless")
    build(trackless, "tensorrt-rtx")
    code, _, err = vditrack(monkeypatch, capsys, "inspect", trackless.root, "--verify")
    assert code == 2
    assert f"{trackless.root} has no gate.npz" in err


def test_random_weights_have_nothing_to_compare(tmp_path, desk, monkeypatch, capsys):
    bundle = write_passthrough(tmp_path / "bundle")
    source = msgspec.structs.replace(bundle.manifest.source, random_weights=True)
    bundle = seal_bundle(bundle.root, msgspec.structs.replace(bundle.manifest, source=source))
    build(bundle, "tensorrt-rtx")
    _, out, _ = vditrack(monkeypatch, capsys, "inspect", bundle.root)
    shown = " ".join(out.replace("│", " ").split())
    assert "unverified: the weights are random, so there are no tracks to compare" in shown


# Building, for real; what runs the engines is the double


def runs_as(monkeypatch, cuda, graphs):
    """Have the double run each engine that is built from here on as a graph of these."""
    names, real = {}, run.build_engine

    def noted(trt, graph, *rest):
        built = real(trt, graph, *rest)
        names[bytes(built.plan)] = graph.name
        return built

    monkeypatch.setattr(run, "build_engine", noted)
    library = library_double(cuda, graph_of=lambda engine: str(graphs[names[engine]]))
    monkeypatch.setattr(engine_library, "import_isolated", lambda _: library)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A copy of the bundled model on a machine that can run its engines, with its double."""
    here = replace(HERE, tensorrt_rtx=tensorrt_rtx.__version__)
    for module in (builds, run):
        monkeypatch.setattr(module, "read_machine", lambda device=0: here)
    cuda = CudaDouble()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
    root = tmp_path / "bundle"
    root.mkdir()
    source = load_bundle(bundled_model())
    for name in source.manifest.files:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes((source.root / name).read_bytes())
    # One clip is quicker than all.
    whole = load_acceptance_tracks(source)
    save_acceptance_tracks(
        root / ACCEPTANCE, AcceptanceTracks(whole.points[:POINTS], whole.visible[:POINTS])
    )
    bundle = seal_bundle(root, source.manifest)
    runs_as(monkeypatch, cuda, {"encoder.onnx": bundle.encoder, "features.onnx": bundle.features})
    return bundle, cuda


@pytest.mark.slow
def test_a_build_that_can_be_run_is_verified(tiny, verifications):
    bundle, _ = tiny
    folder, identity = run.build_bundle(bundle, AT, Progress(disable=True))
    assert identity.verified.passed
    assert load_identity(folder) == identity
    assert Tracker.load(bundle.root).backend.name == "tensorrt-rtx"
    assert verifications == []
    # What was compiled for this GPU came with the build, and goes with it.
    caches = {"encoder.runtime_cache", "features.runtime_cache"}
    assert {path.name for path in folder.iterdir()} > caches
    (folder / "features.runtime_cache").write_bytes(b"of the build before")
    again, _ = run.build_bundle(bundle, AT, Progress(disable=True))
    assert (again / "features.runtime_cache").read_bytes() == b"compiled"
    assert list(folder.parent.iterdir()) == [again]


@pytest.mark.slow
def test_a_build_whose_tracks_moved_is_not_written(tiny, monkeypatch, tmp_path):
    bundle, cuda = tiny
    before = sorted(bundle.root.rglob("*"))
    wrong = tmp_path / "wrong.onnx"
    shutil.copy(bundle.features, wrong)
    spoil(wrong, axis=2)
    runs_as(monkeypatch, cuda, {"encoder.onnx": bundle.encoder, "features.onnx": wrong})
    with pytest.raises(
        EngineError, match="nothing was written: its tracks differ from the bundle's"
    ):
        run.build_bundle(bundle, AT, Progress(disable=True))
    assert {*bundle.root.rglob("*")} - {*before} <= {bundle.root / "engines"}


def test_a_build_for_elsewhere_is_unverified(tiny, monkeypatch):
    bundle, _ = tiny
    elsewhere = replace(AT, architectures=("sm89",))
    _, identity = run.build_bundle(bundle, elsewhere, Progress(disable=True))
    assert identity.verified is None


def test_a_build_that_nothing_here_can_run_is_unverified(tiny, monkeypatch):
    bundle, _ = tiny
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    _, identity = run.build_bundle(bundle, AT, Progress(disable=True))
    assert identity.verified is None
