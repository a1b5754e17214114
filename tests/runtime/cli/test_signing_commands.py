"""The commands that sign, and that require a signature: each refusal is one line and code 2."""

import shutil

import pytest

from doubles.keys import make_keys
from vditrack.bundle.folder import FEATURES, MANIFEST


@pytest.fixture
def keys(tmp_path):
    return make_keys(tmp_path)


@pytest.fixture
def bundle(tmp_path, tiny_bundle):
    ignored = shutil.ignore_patterns("engines", "__pycache__", "*.py")
    return shutil.copytree(tiny_bundle.root, tmp_path / "bundle", ignore=ignored)


def change_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_sign_and_refuse_after_one_byte_is_changed(bundle, keys, run_vditrack, assert_refused):
    require = ("--require-signature", keys[1])
    assert_refused("inspect", bundle, *require, message="is not signed", cwd=bundle.parent)
    done = run_vditrack("sign", bundle, "--key", keys[0])
    assert done.returncode == 0, done.stderr
    assert f"{bundle}: signed bundle.json with the key" in done.stdout
    shown = run_vditrack("inspect", bundle, *require)
    assert shown.returncode == 0
    assert "signed with the key of" in shown.stdout
    for name, message in ((FEATURES, "was altered"), (MANIFEST, "is not a signature of")):
        kept = (bundle / name).read_bytes()
        change_byte(bundle / name)
        assert_refused("inspect", bundle, *require, message=message, cwd=bundle.parent)
        (bundle / name).write_bytes(kept)


@pytest.mark.parametrize(
    "arguments",
    [
        ["track", "clip", "--grid", "2", "--bundle"],
        ["propagate", "clip", "--mask", "first.png", "--bundle"],
        ["bench", "--duration", "1", "--size", "64x48"],
        ["eval", "synthetic:0", "--clips", "1", "--method"],
        ["inspect"],
        ["build", "--target", "tensorrt-rtx", "--arch", "sm89"],
        ["calibrate"],
        ["combine", "-o", "out", "--motion", "bundle", "--appearance", "bundle"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_every_verb_that_loads_a_bundle_may_require_a_signature(
    arguments, bundle, keys, tmp_path, assert_refused
):
    import cv2  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415

    (tmp_path / "clip").mkdir()
    for path in (tmp_path / "clip" / "0.png", tmp_path / "first.png"):
        cv2.imwrite(str(path), np.ones((48, 64), np.uint8))
    assert_refused(
        *arguments,
        "bundle",
        "--require-signature",
        keys[1],
        message="bundle is not signed",
        cwd=tmp_path,
    )


def test_mistakes_with_keys(bundle, keys, assert_refused):
    private, public = keys
    assert_refused("sign", bundle, "--key", public, message="private key", cwd=bundle.parent)
    assert_refused("sign", bundle, "--key", "no", message="cannot be read", cwd=bundle.parent)
    assert_refused(
        "inspect",
        bundle,
        "--require-signature",
        private,
        message="is a private key, and a public key is needed",
        cwd=bundle.parent,
    )
    change_byte(bundle / FEATURES)
    assert_refused("sign", bundle, "--key", private, message="was altered", cwd=bundle.parent)
