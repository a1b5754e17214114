"""Verb ``sign``: sign a bundle and its builds with a private key of the user."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from vditrack.bundle.folder import load_bundle
from vditrack.bundle.signature import PassphraseNeededError, SigningKey, read_signing_key
from vditrack.cli.console import echo, echo_json
from vditrack.cli.options import Json
from vditrack.engine_builder.signing import sign_bundle
from vditrack.errors import InputError

PASSPHRASE = "VDITRACK_KEY_PASSPHRASE"
"""Environment variable with the passphrase of an encrypted key."""


def sign(
    bundle: Annotated[
        Path, typer.Argument(help="Folder of the bundle; the signatures are written into it.")
    ],
    key: Annotated[
        Path,
        typer.Option(
            help="Private key (Ed25519; PEM or OpenSSH). `openssl genpkey -algorithm ed25519 -out "
            f"KEY.pem` makes one. The passphrase of an encrypted key is asked for, or read from "
            f"{PASSPHRASE}.",
            show_default=False,
        ),
    ],
    as_json: Json = False,
) -> None:
    """Sign a bundle and its engines, for robots that load signed bundles alone."""
    signing_key = _read_key(key)
    signed = sign_bundle(load_bundle(bundle, verify_files=True), signing_key)
    if as_json:
        content = {"bundle": str(bundle), "key": signing_key.fingerprint, "signed": signed}
        echo_json(content)
        return
    echo(
        f"{bundle}: signed {', '.join(signed)} with the key {signing_key.fingerprint}. An engine "
        "that is built later is unsigned until this command runs again."
    )


def _read_key(path: Path) -> SigningKey:
    try:
        return read_signing_key(path)
    except PassphraseNeededError:
        passphrase = os.environ.get(PASSPHRASE) or _ask_passphrase(path)
        return read_signing_key(path, passphrase.encode())


def _ask_passphrase(path: Path) -> str:
    if not sys.stdin.isatty():
        raise InputError(
            f"{path} is encrypted, and there is no terminal to ask for its passphrase. Set the "
            f"environment variable {PASSPHRASE}."
        )
    answer: str = typer.prompt(f"Passphrase of {path}", hide_input=True, err=True)
    return answer
