"""INT8 graphs are taken on CPUs that have the instructions, once their tracks were compared."""

import dataclasses
import logging

import msgspec
import numpy as np
import pytest

from doubles.int8 import CHECK, add_int8_graphs, set_instructions
from doubles.passthrough import write_passthrough
from vditrack import Tracker
from vditrack.acceptance import (
    make_acceptance_clips,
    save_acceptance_tracks,
    track_acceptance_clips,
    verify_tracks,
)
from vditrack.bundle.folder import ACCEPTANCE, INT8_GRAPHS, load_bundle, seal_bundle
from vditrack.bundle.manifest import Encoder, Precision
from vditrack.errors import BackendError, BundleError
from vditrack.inference.cpu import _find_in_sysctl, find_in_cpu_info
from vditrack.inference.engine_identity import graph_digests
from vditrack.inference.onnxruntime import open_session
from vditrack.inference.selection import open_backend


@pytest.fixture
def int8_cpu(tmp_path, monkeypatch):
    """A CPU with INT8 dot products, whose user has an empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    set_instructions(monkeypatch, "AVX512-VNNI")


@pytest.fixture
def bundle(tmp_path):
    """A bundle whose INT8 graphs give twice the first latent to each descriptor."""
    made = write_passthrough(tmp_path / "bundle")
    return add_int8_graphs(made, write_passthrough(tmp_path / "other", context=2.0))


def record_tracks(bundle):
    clips = make_acceptance_clips(bundle.manifest.input, 1)
    tracks = track_acceptance_clips(bundle, open_session, clips)
    save_acceptance_tracks(bundle.root / ACCEPTANCE, tracks)
    return seal_bundle(bundle.root, bundle.manifest)


def test_int8_graphs_run_in_place_of_the_others(bundle, int8_cpu):
    chosen = open_backend(bundle, threads=3)
    assert chosen.name == "cpu-int8"
    assert [name for name, _ in chosen.fallbacks] == ["tensorrt", "tensorrt-rtx", "cuda"]
    session = chosen.open_graph(bundle.features)
    assert session.session.get_session_options().intra_op_num_threads == 3
    latents = np.ones((1, 3, 4, 8, 12), np.float32)
    exact = open_session(bundle.features).run({"latents": latents})["descriptors"]
    np.testing.assert_array_equal(session.run({"latents": latents})["descriptors"], 3 * exact)


def test_a_cpu_without_the_instructions_runs_fp32(bundle, int8_cpu, monkeypatch):
    set_instructions(monkeypatch, None)
    chosen = open_backend(bundle)
    assert chosen.name == "cpu"
    assert "not known to have INT8 dot products" in dict(chosen.fallbacks)["cpu-int8"]
    with pytest.raises(BackendError, match=r"backend cpu-int8: this CPU is not known"):
        open_backend(bundle, "cpu-int8")


def test_a_bundle_without_int8_graphs_says_how_to_get_them(tmp_path, int8_cpu):
    made = write_passthrough(tmp_path / "bundle")
    assert open_backend(made).name == "cpu"
    with pytest.raises(BackendError, match=rf"vditrack quantize {made.root} -o"):
        open_backend(made, "cpu-int8")
    half = msgspec.structs.replace(
        made.manifest, precision=Precision(encoder="fp16", features="fp16")
    )
    with pytest.raises(BackendError, match=r"only if it is exported in FP32, not in fp16\."):
        open_backend(dataclasses.replace(made, manifest=half), "cpu-int8")
    cached = Encoder(frames=1, caches=2)
    carried = msgspec.structs.replace(made.manifest, encoder=cached)
    with pytest.raises(BackendError, match=r"cannot have any, because its graphs pass caches"):
        open_backend(dataclasses.replace(made, manifest=carried), "cpu-int8")


def test_fp32_can_be_named(bundle, int8_cpu):
    assert open_backend(bundle, "cpu").open_graph is open_session


def test_tracks_are_compared_once_and_refused_if_they_moved(bundle, int8_cpu, caplog):
    recorded, compared = record_tracks(bundle), []

    def verify(*given):
        compared.append(given[2])
        return verify_tracks(*given)

    with caplog.at_level(logging.INFO, "vditrack"):
        chosen = [open_backend(recorded, verify=verify) for _ in range(2)]
    assert [each.name for each in chosen] == ["cpu", "cpu"]
    assert "the median point moved by" in dict(chosen[1].fallbacks)["cpu-int8"]
    assert len(compared) == 1
    assert compared[0].endswith(", AVX512-VNNI")
    # Graphs that agree are another verdict.
    agreeing = add_int8_graphs(recorded)
    assert [open_backend(agreeing, verify=verify).name for _ in range(2)] == ["cpu-int8"] * 2
    assert len(compared) == 2


def test_no_engine_is_made_of_int8_graphs(bundle):
    assert sorted(graph_digests(bundle)) == ["encoder.onnx", "features.onnx"]


def test_a_manifest_that_promises_int8_graphs_has_to_list_them(bundle):
    (bundle.root / INT8_GRAPHS["features.onnx"]).unlink()
    with pytest.raises(BundleError, match=r"features\.int8\.onnx"):
        load_bundle(bundle.root)
    with pytest.raises(BundleError, match=r"features\.int8\.onnx is not listed"):
        seal_bundle(bundle.root, bundle.manifest)


def test_inspect_shows_the_effect_of_int8(bundle, run_vditrack):
    done = run_vditrack("inspect", bundle.root)
    assert "int8" in done.stdout
    assert str(CHECK.median_move) in done.stdout


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("flags : sse avx512_vnni\n\nflags : sse avx512_vnni\n", "AVX512-VNNI"),
        ("flags : avx2 avx_vnni\n", "AVX-VNNI"),
        ("Features : fp asimd asimddp\n", "Arm dot product"),
        # The small cores of some Arm chips lack it.
        ("Features : fp asimd asimddp\n\nFeatures : fp asimd\n", None),
        ("flags : avx2 avx512f\nmodel name : avx512_vnni\n", None),
        ("", None),
    ],
)
def test_instructions_by_proc_cpuinfo(text, wanted):
    assert find_in_cpu_info(text) == wanted


def test_instructions_by_sysctl():
    assert _find_in_sysctl("hw.optional.arm.FEAT_DotProd: 1\n") == "Arm dot product"
    assert _find_in_sysctl("machdep.cpu.leaf7_features: AVX2 AVX512VNNI\n") == "AVX512-VNNI"
    assert _find_in_sysctl("hw.optional.arm.FEAT_DotProd: 0\n") is None


def test_a_tracker_names_the_backend(bundle, int8_cpu):
    assert Tracker.load(bundle.root).backend.name == "cpu-int8"
