"""Ed25519 keys in files, as openssl writes them."""

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
PLAIN = serialization.NoEncryption()


def write_private(path: Path, key: ed25519.Ed25519PrivateKey) -> Path:
    """Write a private key."""
    path.write_bytes(key.private_bytes(PEM, PKCS8, PLAIN))
    return path


def write_public(path: Path, key: ed25519.Ed25519PrivateKey) -> Path:
    """Write the public key of a private key."""
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    path.write_bytes(key.public_key().public_bytes(PEM, spki))
    return path


def make_keys(folder: Path) -> tuple[Path, Path]:
    """Write a new private key, and its public key."""
    key = ed25519.Ed25519PrivateKey.generate()
    return write_private(folder / "key.pem", key), write_public(folder / "key.pub", key)
