"""Signatures of bundles and builds: Ed25519, with keys of the user.

``bundle.sig`` signs ``bundle.json``, which holds the digests of all files of the bundle and of the
bundles within it. ``engines/BUILD/identity.sig`` signs the identity of a build, which holds the
digests of its engines, without the verdict on its tracks, which each robot writes itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from vditrack.errors import BundleError, InputError, install_command
from vditrack.input_checks.files import MalformedError, decode_json, read_file

SIGNATURE = "bundle.sig"
"""The signature of ``bundle.json``, beside it."""
BUILD_SIGNATURE = "identity.sig"
"""The signature of the identity of a build, beside it."""
_BUNDLE_PREFIX, _BUILD_PREFIX = b"vditrack bundle 1\0", b"vditrack build 1\0"
"""What is signed begins with these, so that no signature is one of something else."""
_MAX_SIZE = 1 << 16
_PRIVATE_REMEDY = "`openssl genpkey -algorithm ed25519 -out KEY.pem` makes a private key"
_PUBLIC_REMEDY = (
    "Give the file of the public key of whoever signed, as `openssl pkey -pubout` or ssh-keygen "
    "(KEY.pub) writes it"
)


class _Signature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of a signature file."""

    schema_version: Literal[1]
    algorithm: Literal["ed25519"]
    public_key: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    """Key that signed, to tell a wrong key from a changed file; it is not trusted."""
    signature: Annotated[str, Meta(pattern="^[0-9a-f]{128}$")]


@dataclass(frozen=True)
class PublicKey:
    """The key that a signature has to be of."""

    raw: bytes
    """32 bytes."""
    path: Path
    """File that it was read from, for messages."""


class SigningKey:
    """A private key that signs bundles and builds."""

    def __init__(self, key: Any) -> None:  # noqa: ANN401 - cryptography is imported when needed
        """Take an ``Ed25519PrivateKey`` of cryptography."""
        self._key = key
        self._public = _raw(key.public_key()).hex()

    @property
    def fingerprint(self) -> str:
        """Beginning of the public key's sha256, as messages give it."""
        return _fingerprint(bytes.fromhex(self._public))

    def sign_bundle(self, manifest: bytes) -> bytes:
        """Return the content of ``bundle.sig`` for the content of ``bundle.json``."""
        return self._sign(_BUNDLE_PREFIX + manifest)

    def sign_build(self, identity: bytes) -> bytes:
        """Return the content of ``identity.sig`` for the content of ``identity.json``."""
        return self._sign(_BUILD_PREFIX + _lasting_part(identity))

    def _sign(self, message: bytes) -> bytes:
        signature = _Signature(
            schema_version=1,
            algorithm="ed25519",
            public_key=self._public,
            signature=self._key.sign(message).hex(),
        )
        return msgspec.json.format(msgspec.json.encode(signature), indent=2) + b"\n"


def check_bundle_signature(root: Path, manifest: bytes, key: PublicKey) -> None:
    """Check the signature of a bundle.

    Args:
        root: Folder of the bundle.
        manifest: Content of its ``bundle.json``.
        key: Key that it has to be signed with.

    Raises:
        BundleError: There is no signature, or it is of another key or content.

    """
    _check(root, SIGNATURE, "bundle.json", _BUNDLE_PREFIX + manifest, key)


def check_build_signature(folder: Path, identity: bytes, key: PublicKey) -> None:
    """Check the signature of a build; see `check_bundle_signature`.

    Args:
        folder: Folder of the build.
        identity: Content of its ``identity.json``.
        key: Key that it has to be signed with.

    Raises:
        BundleError: There is no signature, or it is of another key or content.

    """
    _check(folder, BUILD_SIGNATURE, "identity.json", _BUILD_PREFIX + _lasting_part(identity), key)


def read_public_key(path: Path) -> PublicKey:
    """Read a public key: PEM, as of ``openssl pkey -pubout``, or OpenSSH's one line.

    Raises:
        InputError: The file cannot be read, is no Ed25519 public key, or cryptography is not
            installed.

    """
    content = _read_key_file(path, _PUBLIC_REMEDY)
    if b"PRIVATE KEY" in content:
        write = (
            f"`ssh-keygen -y -f {path} > PUBLIC.pub` writes it, if there is no {path}.pub."
            if b"OPENSSH" in content
            else f"`openssl pkey -in {path} -pubout -out PUBLIC.pem` writes it."
        )
        raise InputError(
            f"{path} is a private key, and a public key is needed to check signatures. {write} "
            "Keep the private key off the robot."
        )
    serialization = _serialization()
    openssh = content.startswith(b"ssh-")
    load = serialization.load_ssh_public_key if openssh else serialization.load_pem_public_key
    key = _load_key(path, "public", lambda: load(content), _PUBLIC_REMEDY)
    return PublicKey(_raw(key), path)


def read_signing_key(path: Path, passphrase: bytes | None = None) -> SigningKey:
    """Read a private key: PEM, as of ``openssl genpkey``, or OpenSSH's, as of ``ssh-keygen``.

    Args:
        path: The file.
        passphrase: Passphrase of an encrypted key.

    Raises:
        PassphraseNeededError: The key is encrypted, and there is no passphrase.
        InputError: The file cannot be read, is no Ed25519 private key, the passphrase is wrong, or
            cryptography is not installed.

    """
    content = _read_key_file(path, _PRIVATE_REMEDY)
    if b"PUBLIC KEY" in content or content.startswith(b"ssh-"):
        raise InputError(
            f"{path} is a public key, and a private key is needed to sign. Give the other file of "
            "the pair."
        )
    serialization = _serialization()
    openssh = b"BEGIN OPENSSH PRIVATE KEY" in content
    load = serialization.load_ssh_private_key if openssh else serialization.load_pem_private_key

    def load_private() -> object:
        try:
            return load(content, passphrase)
        # Raised for an encrypted key without a passphrase, and for a passphrase of a plain key.
        except TypeError as error:
            if passphrase is None:
                raise PassphraseNeededError(f"{path} is encrypted. Give its passphrase.") from error
            raise ValueError("it is not encrypted") from error

    return SigningKey(_load_key(path, "private", load_private, _PRIVATE_REMEDY))


class PassphraseNeededError(InputError):
    """A private key is encrypted."""


def _check(folder: Path, name: str, signed: str, message: bytes, key: PublicKey) -> None:
    path = folder / name
    signature = _read_signature(path, key)
    _serialization()
    errors = import_module("cryptography.exceptions")
    ed25519 = import_module("cryptography.hazmat.primitives.asymmetric.ed25519")
    try:
        public = ed25519.Ed25519PublicKey.from_public_bytes(key.raw)
        public.verify(bytes.fromhex(signature.signature), message)
    except errors.InvalidSignature as error:
        if signature.public_key != key.raw.hex():
            other = _fingerprint(bytes.fromhex(signature.public_key))
            raise BundleError(
                f"{path} is a signature with another key ({other}) than {key.path} "
                f"({_fingerprint(key.raw)}). Get {folder} from the owner of that key, or give the "
                "public key of whoever signed it."
            ) from error
        raise BundleError(
            f"{path} is not a signature of {signed} beside it: one of them was altered, or comes "
            f"from another folder. Copy {folder} again, or have it signed again."
        ) from error


def _read_signature(path: Path, key: PublicKey) -> _Signature:
    try:
        return decode_json(read_file(path, _MAX_SIZE, follow_links=False), _Signature)
    except FileNotFoundError as error:
        raise BundleError(
            f"{path.parent} is not signed, and a signature with {key.path} is required. "
            "Whoever has the private key signs it with `vditrack sign BUNDLE --key KEY`."
        ) from error
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}.") from error
    except MalformedError as error:
        raise BundleError(
            f"{path} is damaged, or is not a signature of vditrack ({error}). Copy {path.parent} "
            "again, or have it signed again."
        ) from error


def _lasting_part(identity: bytes) -> bytes:
    """Return the JSON of an identity without the verdict, in one form whatever wrote it."""
    try:
        fields: dict[str, Any] = dict(decode_json(identity, dict[str, Any])["identity"])
    except (MalformedError, KeyError, TypeError, ValueError) as error:
        raise BundleError(f"the identity of a build is malformed: {error}.") from error
    fields.pop("verified", None)
    return msgspec.json.encode(fields, order="sorted")


def _read_key_file(path: Path, remedy: str) -> bytes:
    try:
        return read_file(path, _MAX_SIZE).strip() + b"\n"
    except OSError as error:
        raise InputError(f"key {path} cannot be read: {error.strerror}. {remedy}.") from error


def _load_key(path: Path, kind: str, load: Callable[[], Any], remedy: str) -> Any:  # noqa: ANN401
    """Return the key that a function of cryptography loads, if it is one for Ed25519."""
    unsupported: type[Exception] = import_module("cryptography.exceptions").UnsupportedAlgorithm
    ed25519 = import_module("cryptography.hazmat.primitives.asymmetric.ed25519")
    try:
        key = load()
    except (ValueError, unsupported) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        passphrase = ", or its passphrase is wrong" if kind == "private" else ""
        raise InputError(
            f"{path} is not a {kind} key in the format PEM or OpenSSH{passphrase} ({reason}). "
            f"{remedy}."
        ) from error
    if not isinstance(key, getattr(ed25519, f"Ed25519{kind.capitalize()}Key")):
        raise InputError(
            f"{path} is a key for another algorithm than Ed25519 ({type(key).__name__}). {remedy}."
        )
    return key


def _raw(key: Any) -> bytes:  # noqa: ANN401
    serialization = _serialization()
    raw: bytes = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return raw


def _serialization() -> ModuleType:
    try:
        return import_module("cryptography.hazmat.primitives.serialization")
    except ImportError as error:
        raise InputError(
            "signatures need cryptography, which is not installed. Run "
            f"`{install_command('sign')}`."
        ) from error


def _fingerprint(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:16]
