"""The ablation table: what each row leaves out, and that nothing else is changed."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import msgspec
import numpy as np
import pytest

import ablations
from ablations import ROWS, Given, PixelEncoder, rows_of
from doubles.cards import change_fields
from doubles.tiny_checkpoint import TINY_CARD
from vditrack.bundle.configuration import FlowTracking, Visibility
from vditrack.bundle.folder import bundled_model, load_bundle, seal_bundle
from vditrack.bundle.redetection import Recovery
from vditrack.coordinates import Grid
from vditrack.errors import InputError
from vditrack.evaluation.baselines.point_baselines import LucasKanade
from vditrack.evaluation.protocols import first_queries
from vditrack.synthetic.layers.suite import draw_stage, render_stage

pytestmark = pytest.mark.slow

SCRIPT = Path(ablations.__file__)
WEIGHTS = Visibility(
    bias=-8, correlation=6, first_similarity=3, template_similarity=5, distance=-0.3
)
FLOW_TRACKING = FlowTracking(
    recovery=Recovery(min_similarity=0.6, min_correlation=0.75), visibility=WEIGHTS
)
SINGLE_FRAMES = {"height": 64, "width": 64, "frames": 1, "described_frames": 1}
SMALLER = {"layers": 2, "text_dim": 32, "argmax_radius": 8, "search_radius": 32}
CARD = (
    change_fields(TINY_CARD, SINGLE_FRAMES | SMALLER)
    + """[matching.flow_tracking]
[matching.flow_tracking.recovery]
min_similarity = 0.6
min_correlation = 0.75
[matching.flow_tracking.visibility]
bias = -8.0
correlation = 6.0
first_similarity = 3.0
template_similarity = 5.0
distance = -0.3
"""
)


@pytest.fixture(scope="module", autouse=True)
def quick_exports() -> Iterator[None]:
    """Export in less time, and track one acceptance clip in place of four."""
    if find_spec("torch") is None:
        yield
        return
    from doubles.pipelines import use_one_acceptance_clip  # noqa: PLC0415
    from doubles.quick_exports import speed_up_exports  # noqa: PLC0415

    with speed_up_exports(), use_one_acceptance_clip():
        yield


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Given:
    """The bundled model, with settings that do not change when it is trained anew."""
    root = tmp_path_factory.mktemp("bundles") / "tiny"
    shutil.copytree(bundled_model(), root)
    manifest = load_bundle(root).manifest
    matching = msgspec.structs.replace(manifest.matching, flow_tracking=FLOW_TRACKING)
    bundle = seal_bundle(root, msgspec.structs.replace(manifest, matching=matching))
    return Given(bundle, "tiny", None, root.parent, clips=1)


@pytest.fixture(scope="module")
def clip():
    """Frames in which points are covered and come back, and their queries [N, 3]."""
    whole = render_stage("occlusion", *draw_stage(0, 1))
    kept = slice(0, 28)
    part = replace(
        whole,
        frames=whole.frames[kept],
        points=whole.points[:, kept],
        visible=whole.visible[:, kept],
        masks=None,
    )
    asked = first_queries(part.visible)
    at = part.points[asked.tracks, asked.frames]
    return part.frames, np.column_stack([asked.frames, at]).astype(np.float32)


@pytest.fixture(scope="module")
def trained(given, clip):
    return ROWS["trained"](given).track(*clip)


def since_queries(tracks):
    """[N, T] frames after each point's query."""
    return np.arange(tracks.visible.shape[1]) > tracks.queries[:, :1]


@pytest.mark.parametrize(
    "row",
    [
        pytest.param("raw-pixels", marks=pytest.mark.slow),
        pytest.param("random-weights", marks=pytest.mark.slow),
        "features-alone",
        "flow-alone",
        "no-forward-backward",
        "no-first-patch",
        "no-memory",
        "no-prediction",
    ],
)
def test_each_row_tracks_otherwise(row, given, clip, trained):
    other = ROWS[row](given).track(*clip)
    moved = np.linalg.norm(other.points - trained.points, axis=2)
    assert (moved > 0.05).any() or (other.visible != trained.visible).any()
    assert np.isfinite(other.points).all()


def test_flow_alone_goes_where_opencv_does_and_never_comes_back(given, clip):
    frames, queries = clip
    first = queries[queries[:, 0] == 0]
    found = ROWS["flow-alone"](given).track(frames, first)
    peer = LucasKanade().track(frames, first)
    seen = found.visible & peer.visible
    # Flow that leaves a point's predicted position is not followed here; the peer follows it.
    assert (found.visible <= peer.visible).mean() > 0.98
    assert seen.mean() > 0.4
    # The peer's flow goes on for more rounds: what they differ by adds up over frames.
    apart = np.linalg.norm(found.points - peer.points, axis=2)[seen]
    assert np.median(apart) < 0.03
    assert apart.max() < 0.5
    assert (np.diff(found.visible.astype(int), axis=1) <= 0).all()
    assert not found.visible[:, -1].all()


def test_without_the_way_back_flow_never_misses_its_start(given, clip, trained):
    found = ROWS["no-forward-backward"](given).track(*clip)
    asked_for = since_queries(found)
    assert set(np.unique(found.forward_backward_error[asked_for])) <= {0, np.inf}
    assert len(np.unique(trained.forward_backward_error[asked_for])) > 100


def test_without_memory_a_point_that_was_covered_is_not_seen_again(given, clip, trained):
    found = ROWS["no-memory"](given).track(*clip)

    def returns(tracks):
        """How often a point is seen again that was not for five frames."""
        hidden = np.lib.stride_tricks.sliding_window_view(~tracks.visible, 5, axis=1).all(axis=2)
        return (hidden[:, :-1] & tracks.visible[:, 5:] & since_queries(tracks)[:, :-5]).sum()

    assert returns(trained) > 3
    assert returns(found) == 0


def test_raw_pixels_are_those_around_each_cell_without_their_mean():
    frame = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    encoder = PixelEncoder(Grid(rows=4, columns=6, stride=8))
    latents = encoder.run({"frames": frame[None]})["latents"]
    assert latents.shape == encoder.outputs["latents"].shape
    # The cell in row 2, column 3 has its centre at (28, 20).
    square = frame[12:28, 20:36].astype(np.float64)
    expected = (square - square.mean(axis=(0, 1))).transpose(2, 0, 1)
    np.testing.assert_allclose(latents[0, :, 0, 2, 3], expected.ravel(), atol=1e-3)


def command(*arguments) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_row_from_one_command(given):
    told = command("flow-alone", "synthetic:0", "--clips", 1, "--bundle", given.bundle.root)
    assert told.returncode == 0, told.stderr
    lines = [line for line in told.stdout.splitlines() if line.startswith("|")]
    assert lines[0] == "| row | AJ | δ | OA | found again | identity kept |"
    name, jaccard, position, *_, identity = lines[2].strip("| ").split(" | ")
    # The first clip has no objects that look alike.
    assert (name, identity, len(lines)) == ("flow-alone", "-", 3)
    assert 30 < float(jaccard) <= float(position) < 100


def test_rows_that_cannot_be_run():
    assert set(ROWS) - set(rows_of("all", None)) == {"no-frequency-selection"}
    assert rows_of("all", Path("weights")) == list(ROWS)
    with pytest.raises(InputError, match="--weights"):
        rows_of("no-frequency-selection", None)
    with pytest.raises(InputError, match="'no-patch': there are trained, raw-pixels"):
        rows_of("no-patch", None)


def test_a_bundle_without_flow_tracking_is_refused(given):
    matching = msgspec.structs.replace(given.settings, flow_tracking=None)
    manifest = msgspec.structs.replace(given.bundle.manifest, matching=matching)
    without = replace(given, bundle=replace(given.bundle, manifest=manifest))
    with pytest.raises(InputError, match="flow_tracking"):
        ablations.run(without, "trained", ["synthetic:0"])


def test_no_frequency_selection_reads_all_channels_of_the_bundles_own_checkpoint(
    tmp_path, monkeypatch
):
    pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    from vditrack_export.card import load_card  # noqa: PLC0415
    from vditrack_export.checkpoints.sources import Weights  # noqa: PLC0415
    from vditrack_export.pipeline.checkpoint import random_checkpoint  # noqa: PLC0415
    from vditrack_export.pipeline.export import export_bundle  # noqa: PLC0415

    monkeypatch.setattr(ablations, "_tell", lambda *_: None)
    card = tmp_path / "small.toml"
    card.write_text(CARD)
    checkpoint = random_checkpoint(load_card(str(card)), seed=1)
    weights = tmp_path / "weights"
    weights.mkdir()
    checkpoint.encoder.save(weights)
    checkpoint.transformer.save_pretrained(weights / "vdit")
    own = export_bundle(load_card(str(card)), Weights(weights), tmp_path / "own", lambda _: None)
    given = Given(own, str(card), weights, tmp_path, clips=1)
    bundle = ROWS["no-frequency-selection"](given).bundle
    assert bundle.manifest.source.channels == tuple(range(32))
    assert len(own.manifest.source.channels) == 20
    source = msgspec.structs.replace(own.manifest.source, checkpoint_sha256="0" * 64)
    altered = replace(own, manifest=msgspec.structs.replace(own.manifest, source=source))
    with pytest.raises(InputError, match="was not exported from"):
        ROWS["no-frequency-selection"](replace(given, bundle=altered))
