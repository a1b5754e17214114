"""Manifests of older schema versions load, with the values that were constants then."""

import json
import shutil
from pathlib import Path

import msgspec
import pytest

from vditrack.bundle.file_checks import file_record
from vditrack.bundle.folder import MANIFEST, bundled_model, load_bundle
from vditrack.bundle.manifest import SCHEMA_VERSION, Manifest
from vditrack.bundle.upgrade import OLDEST_VERSION, upgrade_manifest
from vditrack.errors import BundleError

MANIFESTS = Path(__file__).parent / "manifests"


def manifest_text(version):
    """`bundle.json` of the bundled model as it was at a schema version."""
    return (MANIFESTS / f"schema_{version}.json").read_text()


def upgraded(version):
    return msgspec.convert(upgrade_manifest(json.loads(manifest_text(version))), Manifest)


def test_every_version_is_tested():
    versions = {int(path.stem.removeprefix("schema_")) for path in MANIFESTS.iterdir()}
    assert versions == set(range(1, SCHEMA_VERSION))


@pytest.mark.parametrize("version", range(1, OLDEST_VERSION))
def test_a_version_that_cannot_give_the_same_tracks_is_refused(version, tmp_path):
    (tmp_path / MANIFEST).write_text(manifest_text(version))
    with pytest.raises(BundleError, match=r"refined in a way that it does not have.*Export"):
        load_bundle(tmp_path)


def contains(new, old):
    """Whether every value of nested objects is in the new ones."""
    if isinstance(old, dict):
        return all(contains(new[name], value) for name, value in old.items())
    return new == old


@pytest.mark.parametrize("version", range(OLDEST_VERSION, SCHEMA_VERSION))
def test_an_old_manifest_says_what_it_said(version):
    old, new = json.loads(manifest_text(version)), upgraded(version)
    assert new.schema_version == SCHEMA_VERSION
    now = json.loads(msgspec.json.encode(new))
    for part in ("name", "notes", "encoder", "output", "files", "parity", "tools"):
        assert now[part] == old[part]
    absent = {"expert": None, "quantisation": [], "adapters": [], "tiny_encoder": None}
    assert now["source"] == {**absent, **old["source"]}
    assert now["encoder_agreement"] is None
    assert now["input"] == {"overlap": 1, "attention": "window", **old["input"]}
    if version >= 7:
        assert contains(now["matching"], old["matching"])
        assert contains(now["propagation"], old["propagation"])
        return
    holding = old["matching"].pop("holding")
    assert now["matching"].items() >= old["matching"].items()
    flow_tracking = new.matching.flow_tracking
    assert flow_tracking.recovery.min_similarity == holding["recovery_similarity"]
    assert flow_tracking.recovery.min_correlation == holding["recovery_correlation"]
    assert now["matching"]["flow_tracking"]["visibility"] == holding["visibility"]
    assert contains(now["propagation"], old.get("propagation"))
    assert new.precision_check is None


def test_a_bundle_of_an_old_version_loads(tmp_path):
    """The whole folder: the manifest that was written then, with graphs of today."""
    fields = json.loads(manifest_text(6))
    for graph in ("encoder.onnx", "features.onnx"):
        shutil.copy(bundled_model() / graph, tmp_path)
    fields["files"] = {
        path.name: msgspec.to_builtins(file_record(path)) for path in tmp_path.iterdir()
    }
    fields["propagation"] = None
    (tmp_path / MANIFEST).write_text(json.dumps(fields))
    loaded = load_bundle(tmp_path).manifest
    assert loaded.schema_version == SCHEMA_VERSION
    assert loaded.matching == upgraded(6).matching


def test_an_old_manifest_that_lacks_a_part_is_refused(tmp_path):
    fields = json.loads(manifest_text(6))
    del fields["matching"]
    (tmp_path / MANIFEST).write_text(json.dumps(fields))
    with pytest.raises(BundleError, match=r"not a bundle's manifest: .*schema version 6"):
        load_bundle(tmp_path)
