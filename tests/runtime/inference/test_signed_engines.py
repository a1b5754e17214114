"""Where a signature is required, an engine without one is not loaded, nor are its kernels."""

import shutil
from dataclasses import replace

import msgspec
import pytest

from doubles.engines import HERE, build
from doubles.keys import make_keys
from doubles.passthrough import write_passthrough
from vditrack import Tracker, load_bundle
from vditrack.bundle.folder import ACCEPTANCE
from vditrack.bundle.manifest import FileRecord
from vditrack.bundle.signature import BUILD_SIGNATURE, read_signing_key
from vditrack.engine_builder.listing import list_builds
from vditrack.engine_builder.signing import sign_bundle
from vditrack.errors import BackendError, EngineError
from vditrack.inference.engine_identity import IDENTITY, Verification, load_identity
from vditrack.inference.engine_loading import load_build
from vditrack.inference.own_verdicts import load_believed_identity, record_verdict


@pytest.fixture
def keys(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return make_keys(tmp_path)


@pytest.fixture
def bundle(tmp_path, gpu, keys):
    """A signed bundle with a signed build."""
    made = write_passthrough(tmp_path / "bundle")
    build(made, "tensorrt-rtx")
    sign_bundle(made, read_signing_key(keys[0]))
    return made


def folder_of(bundle):
    (folder,) = (bundle.root / "engines").iterdir()
    return folder


def test_a_signed_build_is_loaded(bundle, keys):
    assert Tracker.load(bundle.root, require_signature=keys[1]).backend.name == "tensorrt-rtx"


def test_an_unsigned_build_is_not_loaded_and_the_reason_is_given(bundle, keys):
    (folder_of(bundle) / BUILD_SIGNATURE).unlink()
    tracker = Tracker.load(bundle.root, require_signature=keys[1])
    assert tracker.backend.name == "cpu"
    assert f"{folder_of(bundle)} is not signed" in dict(tracker.backend.fallbacks)["tensorrt-rtx"]
    with pytest.raises(BackendError, match="is not signed"):
        Tracker.load(bundle.root, "tensorrt-rtx", require_signature=keys[1])
    # Without the requirement it is.
    assert Tracker.load(bundle.root).backend.name == "tensorrt-rtx"


def test_a_build_after_signing_is_listed_as_unsigned(bundle, keys):
    shutil.rmtree(bundle.root / "engines")
    build(bundle, "tensorrt-rtx")
    (listed,) = list_builds(load_bundle(bundle.root, require_signature=keys[1]))
    assert "is not signed" in listed.reasons[0]


def test_a_new_verdict_keeps_the_signature(bundle, keys):
    folder = folder_of(bundle)
    Tracker.load(bundle.root, require_signature=keys[1])
    record_verdict(folder, bundle, load_identity(folder))
    Tracker.load(bundle.root, "tensorrt-rtx", require_signature=keys[1])


def forge_verdict(bundle, median_move):
    """Write a verdict into an identity, as whoever can write to the bundle can."""
    folder = folder_of(bundle)
    forged = Verification(where=HERE.gpu, when="now", median_move=median_move, limit=0.5)
    record_verdict(folder, bundle, msgspec.structs.replace(load_identity(folder), verified=forged))
    assert load_identity(folder).verified == forged


def test_a_forged_verdict_switches_no_build_off(bundle, keys):
    forge_verdict(bundle, 9e9)
    assert Tracker.load(bundle.root).backend.name == "cpu"
    assert Tracker.load(bundle.root, require_signature=keys[1]).backend.name == "tensorrt-rtx"


def test_a_forged_verdict_does_not_skip_the_comparison(bundle, keys, tmp_path):
    """The verdict of the user's own cache does."""
    forge_verdict(bundle, 0.0)
    signed = load_bundle(bundle.root, require_signature=keys[1])
    files = signed.manifest.files | {ACCEPTANCE: FileRecord(size=0, sha256="0" * 64)}
    signed = replace(signed, manifest=msgspec.structs.replace(signed.manifest, files=files))
    compared = []

    def verify(_bundle, _open_graph, gpu):
        compared.append(gpu)
        return Verification(where=gpu, when="now", median_move=0.25, limit=0.5)

    for _ in range(2):
        load_build(folder_of(bundle), signed, verify)
    assert compared == [HERE.gpu]
    assert load_believed_identity(folder_of(bundle), signed).verified.median_move == 0.25
    assert load_identity(folder_of(bundle)).verified.median_move == 0.0
    (kept,) = (tmp_path / "cache" / "vditrack" / "verdicts").iterdir()
    kept.write_bytes(b"{")
    load_build(folder_of(bundle), signed, verify)
    assert len(compared) == 2


def test_kernels_from_outside_are_not_loaded(bundle, keys, tmp_path):
    """TensorRT-RTX compiles kernels and keeps them; such a file is code without a signature."""
    planted = folder_of(bundle) / "encoder.runtime_cache"
    planted.write_bytes(b"planted")
    Tracker.load(bundle.root, "tensorrt-rtx", require_signature=keys[1])
    assert planted.read_bytes() == b"planted"
    kept = list((tmp_path / "cache" / "vditrack" / "kernels").iterdir())
    assert len(kept) == 2
    assert {path.read_bytes() for path in kept} == {b"compiled"}


def test_an_engine_that_is_replaced_after_its_check_is_not_loaded(bundle, monkeypatch):
    from vditrack.inference import engine_loading  # noqa: PLC0415

    fits = engine_loading._require_fit

    def replace_engine(identity, *others):
        (folder_of(bundle) / "features.engine").write_bytes(b"another engine")
        fits(identity, *others)

    monkeypatch.setattr(engine_loading, "_require_fit", replace_engine)
    with pytest.raises(BackendError, match=r"features\.engine was altered after its build"):
        Tracker.load(bundle.root, "tensorrt-rtx")


@pytest.mark.parametrize("kind", ["link", "FIFO"])
def test_an_identity_that_is_no_regular_file_is_refused(bundle, kind, tmp_path):
    import os  # noqa: PLC0415

    path = folder_of(bundle) / IDENTITY
    path.rename(tmp_path / "identity.json")
    if kind == "link":
        path.symlink_to(tmp_path / "identity.json")
    else:
        os.mkfifo(path)
    with pytest.raises(EngineError, match="symbolic link" if kind == "link" else "FIFO"):
        load_identity(folder_of(bundle))
