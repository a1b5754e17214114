"""Texts of a hostile bundle, in every field that has one, reach the terminal as text alone."""

import hashlib
import json
import shutil

import cv2
import msgspec
import numpy as np
import pytest

from doubles.engines import build
from vditrack.bundle.folder import MANIFEST, load_bundle
from vditrack.inference.engine_identity import IDENTITY

HOSTILE = "[red]x[/red]:smile:\x1b]0;t\x07\x9b2J\u202e\u2028\nvditrack: fine\r"
UNSAFE = {*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), "\u202e", "\u2028"} - {"\n"}
FREE_TEXTS = ("name", "notes", "card", "checkpoint", "licence")
IDENTITY_TEXTS = ("version", "gpu", "cuda", "driver", "jetpack", "host", "built_at")


@pytest.fixture
def hostile(tmp_path, tiny_bundle):
    """A bundle with hostile text in every free field of its manifest and of a build."""
    root = tmp_path / "bundle"
    shutil.copytree(tiny_bundle.root, root)
    folder = build(load_bundle(root), "tensorrt-rtx")
    manifest = json.loads((root / MANIFEST).read_text())
    for part in (manifest, manifest["source"]):
        part.update({name: HOSTILE for name in FREE_TEXTS if name in part})
    manifest["tools"] = {HOSTILE: HOSTILE}
    manifest["parity"] = {HOSTILE: 1e-6}
    (root / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    identity = json.loads((folder / IDENTITY).read_text())["identity"]
    identity |= dict.fromkeys(IDENTITY_TEXTS, HOSTILE)
    identity["precision"] = {HOSTILE: {HOSTILE: 1.0}}
    identity["verified"] = {"where": HOSTILE, "when": HOSTILE, "median_move": 9, "limit": 0.5}
    content = msgspec.json.encode(identity)
    digest = hashlib.sha256(content).hexdigest()
    (folder / IDENTITY).write_bytes(b'{"sha256":"%s","identity":%s}' % (digest.encode(), content))
    return root


@pytest.fixture
def clip_folder(tmp_path):
    """Three small images."""
    folder = tmp_path / "clip"
    folder.mkdir()
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 255, (48, 64, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), noise)
    return folder


def assert_harmless(done):
    for text in (done.stdout, done.stderr):
        assert not UNSAFE & set(text), sorted(UNSAFE & set(text))
        assert not [line for line in done.stderr.splitlines() if line.startswith("vditrack: fine")]


def test_inspect(hostile, run_vditrack):
    done = run_vditrack("inspect", hostile)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("[red]x[/red]:smile:") > len(FREE_TEXTS)
    assert_harmless(done)


def test_inspect_as_json(hostile, run_vditrack):
    done = run_vditrack("inspect", hostile, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["name"] == HOSTILE
    assert_harmless(done)


def test_the_reasons_against_an_engine(hostile, run_vditrack, tmp_path, clip_folder, caplog):
    """They quote the build's identity, in warnings and in errors."""
    for backend in ("auto", "tensorrt-rtx"):
        arguments = ["track", clip_folder, "--grid", "2", "--bundle", hostile, "-o", tmp_path / "o"]
        done = run_vditrack(*arguments, "--backend", backend, "--json")
        assert done.returncode == (0 if backend == "auto" else 2)
        assert_harmless(done)
        if backend == "auto":
            assert "smile" in json.loads(done.stdout)["fallbacks"]["tensorrt-rtx"]
        messages = [record.getMessage() for record in caplog.records] + [done.stderr]
        assert any("smile" in message for message in messages)
        assert not UNSAFE & set("".join(messages))


@pytest.mark.parametrize("path", [("files",), ("source", "tensor"), ("schema_version",)])
def test_an_error_that_quotes_the_manifest(hostile, run_vditrack, path):
    *parents, last = path
    whole = json.loads((hostile / MANIFEST).read_text())
    target = whole
    for parent in parents:
        target = target[parent]
    outside = {f"../{HOSTILE}": {"size": 1, "sha256": "0" * 64}}
    target[last] = outside if last == "files" else HOSTILE
    (hostile / MANIFEST).write_bytes(msgspec.json.encode(whole))
    done = run_vditrack("inspect", hostile)
    assert done.returncode == 2
    assert_harmless(done)


def test_an_architecture_is_a_name_alone(hostile, run_vditrack):
    """It is part of a command that users are told to run."""
    (folder,) = (hostile / "engines").iterdir()
    content = (folder / IDENTITY).read_text()
    identity = json.loads(content)["identity"] | {"architectures": ["sm86; reboot"]}
    text = json.dumps(identity)
    digest = hashlib.sha256(text.encode()).hexdigest()
    (folder / IDENTITY).write_text(f'{{"sha256":"{digest}","identity":{text}}}')
    done = run_vditrack("inspect", hostile)
    assert "is not an engine's identity" in done.stdout
    assert "reboot" not in done.stdout
