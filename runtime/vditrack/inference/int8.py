"""A bundle's INT8 graphs, which ONNX Runtime's CPU provider runs on CPUs with INT8 dot products."""

import hashlib
import logging
from functools import partial
from importlib import import_module

import msgspec

from vditrack.bundle.folder import ACCEPTANCE, INT8_GRAPHS, Bundle
from vditrack.errors import BackendError
from vditrack.inference.cpu import find_int8_instructions, read_cpu_model
from vditrack.inference.engine_identity import Verification
from vditrack.inference.engine_loading import Verify
from vditrack.inference.onnxruntime import open_session
from vditrack.inference.own_verdicts import load_verdict, store_verdict
from vditrack.inference.session import AbsentError, OpenGraph
from vditrack.inference.smoke_run import open_with_smoke_run

_LOG = logging.getLogger("vditrack")


def open_int8_graphs(bundle: Bundle, verify: Verify | None, threads: int = 0) -> OpenGraph:
    """Open a bundle's INT8 graphs on the CPU.

    The first time that a CPU model runs them with a version of ONNX Runtime, their tracks are
    compared with the bundle's. The verdict is stored in the user's cache folder.

    Args:
        bundle: A checked bundle.
        verify: Compares the tracks; None to accept the graphs after a smoke run alone.
        threads: Threads that run a graph; 0 for one on each core.

    Returns:
        A function that opens the INT8 graph in place of each graph of the bundle.

    Raises:
        AbsentError: The bundle has no INT8 graphs, or the CPU no INT8 dot products.
        BackendError: A graph does not load or run, or the tracks differ from the bundle's.
        BundleError: The bundle's golden tracks cannot be read.

    """
    if bundle.manifest.int8 is None:
        raise AbsentError(f"{bundle.root} has no INT8 graphs{_advise(bundle)}.")
    instructions = find_int8_instructions()
    if instructions is None:
        raise AbsentError(
            "this CPU is not known to have INT8 dot products (VNNI, or Arm's dot product). Use "
            "the backend cpu."
        )
    open_graph = open_with_smoke_run(
        bundle,
        lambda graph: open_session(graph.with_name(INT8_GRAPHS[graph.name]), threads),
    )
    if verify is not None and bundle.acceptance is not None:
        where = f"{read_cpu_model()}, {instructions}"
        _require_accepted(_load_or_verify(bundle, partial(verify, bundle, open_graph, where)))
    return open_graph


def _advise(bundle: Bundle) -> str:
    """Return what to do about a bundle without INT8 graphs."""
    manifest, precision = bundle.manifest, bundle.manifest.precision
    if manifest.encoder.caches or manifest.input.attention != "window":
        return ", and cannot have any, because its graphs pass caches from run to run"
    if (precision.encoder, precision.features) != ("fp32", "fp32"):
        return f", and can have them only if it is exported in FP32, not in {precision.features}"
    return f". Write them with `vditrack quantize {bundle.root} -o NEW_BUNDLE`"


def _load_or_verify(bundle: Bundle, verify: partial[Verification]) -> Verification:
    """Return the stored verdict on these graphs on this machine, or compare tracks and store it."""
    digest = _verdict_digest(bundle, verify.args[-1])
    known = load_verdict(digest)
    if known is not None:
        return known
    _LOG.info("%s: comparing the tracks of its INT8 graphs with the bundle's tracks", bundle.root)
    verified = verify()
    store_verdict(digest, verified, f"the INT8 graphs of {bundle.root}")
    return verified


def _verdict_digest(bundle: Bundle, where: str) -> str:
    """Return a digest of all that a verdict depends on."""
    files = bundle.manifest.files
    names = [name for name in (*INT8_GRAPHS.values(), ACCEPTANCE) if name in files]
    facts = [
        where,
        str(import_module("onnxruntime").__version__),
        *(files[name].sha256 for name in names),
        msgspec.json.encode(bundle.manifest.matching).decode(),
    ]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def _require_accepted(verified: Verification) -> None:
    if not verified.passed:
        raise BackendError(
            f"the tracks of the INT8 graphs differ from the bundle's: on {verified.where} the "
            f"median point moved by {verified.median_move:.2f} pixels; the limit is "
            f"{verified.limit:g}. Use the backend cpu."
        )
