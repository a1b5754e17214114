"""Signed bundles, with keys as openssl and ssh-keygen write them, and how they are refused."""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from doubles.commands import run_command
from doubles.engines import build
from doubles.keys import PEM, PKCS8, PLAIN, make_keys, write_public
from doubles.propagating import write_propagating
from vditrack.bundle.folder import bundled_model, load_bundle, seal_bundle
from vditrack.bundle.signature import (
    BUILD_SIGNATURE,
    SIGNATURE,
    PassphraseNeededError,
    read_public_key,
    read_signing_key,
)
from vditrack.cli.sign import PASSPHRASE, sign
from vditrack.engine_builder.signing import sign_bundle
from vditrack.errors import BundleError, EngineError, InputError
from vditrack.inference.engine_identity import IDENTITY, load_identity

OPENSSH = serialization.PrivateFormat.OpenSSH


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """A private key and its public key, as openssl writes them."""
    return make_keys(tmp_path)


@pytest.fixture
def signed(tmp_path: Path, keys: tuple[Path, Path]) -> Path:
    """A signed bundle with a build, and with parts for masks."""
    bundle = write_propagating(tmp_path / "signed")
    build(bundle, "tensorrt-rtx")
    build(bundle.appearance, "tensorrt-rtx")
    sign_bundle(load_bundle(bundle.root), read_signing_key(keys[0]))
    return bundle.root


def test_a_signed_bundle_loads(signed: Path, keys: tuple[Path, Path]) -> None:
    bundle = load_bundle(signed, require_signature=keys[1])
    assert bundle.key == read_public_key(keys[1])
    assert bundle.appearance.key == bundle.key
    for part in (bundle, bundle.appearance):
        (folder,) = (part.root / "engines").iterdir()
        load_identity(folder, bundle.key)


def test_a_signature_is_not_needed_by_default(signed: Path) -> None:
    (signed / SIGNATURE).write_text("anything")
    assert load_bundle(signed).key is None


def append_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


def flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("change", [append_byte, flip_byte])
def test_a_changed_byte_in_any_file_is_refused(
    signed: Path, keys: tuple[Path, Path], change: Callable[[Path], None]
) -> None:
    files = [path for path in signed.rglob("*") if path.is_file() and "engines" not in path.parts]
    # White space after the JSON of the signature itself changes nothing.
    files = [path for path in files if not (path.name == SIGNATURE and change is append_byte)]
    assert len(files) > 8
    for path in files:
        kept = path.read_bytes()
        change(path)
        with pytest.raises(BundleError):
            load_bundle(signed, require_signature=keys[1])
        path.write_bytes(kept)
    load_bundle(signed, require_signature=keys[1])


def test_a_manifest_that_was_sealed_again_is_refused(signed: Path, keys: tuple[Path, Path]) -> None:
    """Digests alone protect against damage, not against someone who writes them anew."""
    manifest = load_bundle(signed).manifest
    (signed / "notes.txt").write_text("new")
    seal_bundle(signed, manifest)
    load_bundle(signed)
    with pytest.raises(BundleError, match=r"is not a signature of bundle\.json beside it"):
        load_bundle(signed, require_signature=keys[1])


def test_a_bundle_without_signature_is_refused(signed: Path, keys: tuple[Path, Path]) -> None:
    (signed / SIGNATURE).unlink()
    with pytest.raises(BundleError, match=r"is not signed.* `vditrack sign BUNDLE --key"):
        load_bundle(signed, require_signature=keys[1])
    with pytest.raises(BundleError, match=r"with vditrack is not signed.*--bundle"):
        load_bundle(bundled_model(), require_signature=keys[1])


def test_a_part_alone_is_not_signed(signed: Path, keys: tuple[Path, Path]) -> None:
    with pytest.raises(BundleError, match="is not signed"):
        load_bundle(signed / "appearance", require_signature=keys[1])


def test_the_signature_of_another_key_is_refused(signed: Path, tmp_path: Path) -> None:
    other = write_public(tmp_path / "other.pub", ed25519.Ed25519PrivateKey.generate())
    with pytest.raises(BundleError, match="a signature with another key"):
        load_bundle(signed, require_signature=other)
    # Whoever alters the bundle may also write the required key into the signature.
    content = json.loads((signed / SIGNATURE).read_text())
    content["public_key"] = read_public_key(other).raw.hex()
    (signed / SIGNATURE).write_text(json.dumps(content))
    with pytest.raises(BundleError, match=r"is not a signature of bundle\.json"):
        load_bundle(signed, require_signature=other)


def test_the_signature_of_another_bundle_is_refused(
    signed: Path, tmp_path: Path, keys: tuple[Path, Path]
) -> None:
    shutil.copytree(bundled_model(), tmp_path / "other", ignore=shutil.ignore_patterns("engines"))
    shutil.copy(signed / SIGNATURE, tmp_path / "other")
    with pytest.raises(BundleError, match=r"is not a signature of bundle\.json"):
        load_bundle(tmp_path / "other", require_signature=keys[1])


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff" * 64, b"[" * 10_000, b"{}", b"\0" * 100_000, b'{"signature": "00"}'],
)
def test_a_malformed_signature_is_refused(
    signed: Path, keys: tuple[Path, Path], content: bytes
) -> None:
    (signed / SIGNATURE).write_bytes(content)
    with pytest.raises(BundleError, match=r"is damaged, or is not a|larger than the limit"):
        load_bundle(signed, require_signature=keys[1])


def build_folder(root: Path) -> Path:
    (folder,) = (root / "engines").iterdir()
    return folder


def test_an_unsigned_build_in_a_signed_bundle_is_refused(
    signed: Path, keys: tuple[Path, Path]
) -> None:
    bundle = load_bundle(signed, require_signature=keys[1])
    (build_folder(signed) / BUILD_SIGNATURE).unlink()
    with pytest.raises(EngineError, match="is not signed"):
        load_identity(build_folder(signed), bundle.key)
    load_identity(build_folder(signed))


def edit_identity(folder: Path, **changes: object) -> None:
    """Change an identity and its digest, as whoever knows the format can."""
    identity = json.loads((folder / IDENTITY).read_text())["identity"] | changes
    content = json.dumps(identity)
    sealed = f'{{"sha256":"{hashlib.sha256(content.encode()).hexdigest()}","identity":{content}}}'
    (folder / IDENTITY).write_text(sealed)


def test_what_the_robot_writes_itself_keeps_the_signature(
    signed: Path, keys: tuple[Path, Path]
) -> None:
    verdict = {"where": "GPU", "when": "now", "median_move": 0.1, "limit": 0.5}
    folder, key = build_folder(signed), read_public_key(keys[1])
    edit_identity(folder, verified=verdict)
    load_identity(folder, key)
    edit_identity(folder, version="0")
    with pytest.raises(EngineError, match=r"is not a signature of identity\.json"):
        load_identity(folder, key)


def test_the_signature_of_another_build_is_refused(signed: Path, keys: tuple[Path, Path]) -> None:
    own, other = build_folder(signed), build_folder(signed / "appearance")
    edit_identity(own, flags=["version_compatible"])
    shutil.copy(other / BUILD_SIGNATURE, own)
    with pytest.raises(EngineError, match=r"is not a signature of identity\.json"):
        load_identity(own, read_public_key(keys[1]))
    # Nor is that of a bundle one of a build.
    shutil.copy(signed / SIGNATURE, own / BUILD_SIGNATURE)
    with pytest.raises(EngineError, match=r"is not a signature of identity\.json"):
        load_identity(own, read_public_key(keys[1]))


def test_keys_of_openssh_are_read(signed: Path, tmp_path: Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    private, public = tmp_path / "id_ed25519", tmp_path / "id_ed25519.pub"
    private.write_bytes(key.private_bytes(PEM, OPENSSH, PLAIN))
    openssh = serialization.PublicFormat.OpenSSH
    line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, openssh)
    public.write_bytes(line + b" user@host\n")
    sign_bundle(load_bundle(signed), read_signing_key(private))
    load_bundle(signed, require_signature=public)


def test_an_encrypted_key_needs_its_passphrase(tmp_path: Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    encrypted = serialization.BestAvailableEncryption(b"secret")
    path = tmp_path / "key.pem"
    path.write_bytes(key.private_bytes(PEM, PKCS8, encrypted))
    with pytest.raises(PassphraseNeededError, match="is encrypted"):
        read_signing_key(path)
    with pytest.raises(InputError, match="its passphrase is wrong"):
        read_signing_key(path, b"wrong")
    assert read_signing_key(path, b"secret").fingerprint


def test_without_a_terminal_the_passphrase_comes_from_the_environment(
    signed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    path = tmp_path / "encrypted.pem"
    path.write_bytes(key.private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(b"pass")))
    result = run_command(sign, signed, "--key", path)
    assert isinstance(result.exception, InputError)
    assert PASSPHRASE in str(result.exception)
    monkeypatch.setenv(PASSPHRASE, "pass")
    assert run_command(sign, signed, "--key", path).exit_code == 0


def _rsa() -> bytes:
    return rsa.generate_private_key(65537, 2048).private_bytes(PEM, PKCS8, PLAIN)


def _ecdsa() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(PEM, PKCS8, PLAIN)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (lambda: b"", "is not a private key"),
        (lambda: b"no key", "is not a private key"),
        (_rsa, "another algorithm than Ed25519"),
        (_ecdsa, "another algorithm than Ed25519"),
        (lambda: b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA", "is not a private key"),
        (lambda: b"\0" * 100_000, "larger than the limit"),
    ],
)
def test_other_private_keys_are_refused(
    content: Callable[[], bytes], complaint: str, tmp_path: Path
) -> None:
    (tmp_path / "key").write_bytes(content())
    with pytest.raises(InputError, match=complaint):
        read_signing_key(tmp_path / "key")


def test_other_public_keys_are_refused(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match="is a private key, and a public key is needed"):
        read_public_key(keys[0])
    with pytest.raises(InputError, match="cannot be read"):
        read_public_key(tmp_path / "none")
    for content in (b"ssh-ed25519 AAAA", b"no key"):
        (tmp_path / "key").write_bytes(content)
        with pytest.raises(InputError, match="is not a public key") as caught:
            read_public_key(tmp_path / "key")
        assert "passphrase" not in str(caught.value)
        assert "public key of whoever signed" in str(caught.value)
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(InputError, match="public key of whoever signed"):
            read_public_key(path)


def test_the_wrong_key_of_a_pair_is_named(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match="is a public key, and a private key is needed"):
        read_signing_key(keys[1])
    private = tmp_path / "id_ed25519"
    key = ed25519.Ed25519PrivateKey.generate()
    private.write_bytes(key.private_bytes(PEM, OPENSSH, PLAIN))
    with pytest.raises(InputError, match=r"ssh-keygen -y -f .*id_ed25519"):
        read_public_key(private)


def test_without_cryptography_the_message_says_what_to_install(
    signed: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:

    for name in [name for name in sys.modules if name.split(".")[0] == "cryptography"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"need cryptography.*pip install .*sign"):
        load_bundle(signed, require_signature=keys[1])


def test_nothing_is_signed_if_a_build_is_damaged(signed: Path, keys: tuple[Path, Path]) -> None:
    for path in signed.rglob("*.sig"):
        path.unlink()
    flip_byte(build_folder(signed / "appearance") / "features.engine")
    with pytest.raises(EngineError, match="was altered"):
        sign_bundle(load_bundle(signed), read_signing_key(keys[0]))
    assert list(signed.rglob("*.sig")) == []


def test_the_command_signs_all_builds(signed: Path, keys: tuple[Path, Path]) -> None:
    for path in signed.rglob("*.sig"):
        path.unlink()
    result = run_command(sign, signed, "--key", keys[0], "--json")
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.stdout)["signed"]) == 3
    load_bundle(signed, require_signature=keys[1])
    for path in signed.rglob(IDENTITY):
        load_identity(path.parent, read_public_key(keys[1]))
    assert not [path for path in signed.rglob("*") if path.name.startswith(".vditrack")]
