"""Signs a bundle and all its builds, all or nothing."""

from contextlib import ExitStack
from pathlib import Path

from vditrack.atomic_files import staged_file
from vditrack.bundle.folder import MANIFEST, Bundle
from vditrack.bundle.signature import BUILD_SIGNATURE, SIGNATURE, SigningKey
from vditrack.errors import BundleError
from vditrack.inference.engine_identity import IDENTITY, engine_folders, load_identity
from vditrack.input_checks.files import MAX_JSON_SIZE, read_file


def sign_bundle(bundle: Bundle, key: SigningKey) -> list[str]:
    """Write the signatures of a bundle, of its builds, and of the builds of bundles within it.

    Args:
        bundle: A bundle whose files are checked.
        key: The private key.

    Returns:
        What was signed, as paths relative to the bundle's folder.

    Raises:
        EngineError: A build is damaged, so that its signature would claim what is not there.
        BundleError: The manifest changed since the bundle was loaded.
        InputError: The folder is not writable.

    """
    manifest = _read(bundle.root / MANIFEST)
    signatures = {bundle.root / SIGNATURE: key.sign_bundle(manifest)}
    signed = [MANIFEST]
    for part in (bundle, *bundle.parts.values()):
        for folder in engine_folders(part):
            load_identity(folder)
            path = folder / IDENTITY
            signatures[folder / BUILD_SIGNATURE] = key.sign_build(_read(path))
            signed.append(path.relative_to(bundle.root).as_posix())
    with ExitStack() as staged:
        # Files appear in the opposite order: that of the bundle last.
        for path, content in signatures.items():
            staged.enter_context(staged_file(path)).write_bytes(content)
    return signed


def _read(path: Path) -> bytes:
    try:
        return read_file(path, MAX_JSON_SIZE, follow_links=False)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}.") from error
