"""Builds of engines for the doubles of TensorRT, and the machine that they fit."""

import logging
from datetime import datetime, timezone

from doubles.cuda import write_engine
from vditrack.bundle.file_checks import file_record
from vditrack.inference.engine_identity import (
    ENGINE_OF,
    SCHEMA_VERSION,
    Identity,
    graph_digests,
    write_identity,
)
from vditrack.inference.machine import Machine

VERSIONS = {"tensorrt": "10.3.0", "tensorrt-rtx": "1.7.1.116"}
HERE = Machine(
    tensorrt=VERSIONS["tensorrt"],
    tensorrt_rtx=VERSIONS["tensorrt-rtx"],
    architecture="sm86",
    gpu="NVIDIA RTX A2000",
    driver="580.95.05",
    cuda="13.0",
    jetpack=None,
)


def build(bundle, target, *, version=None, architecture="sm86", flags=(), stands_for=None):
    """Write a build as `vditrack build` does, its engines for the library's double.

    ``stands_for`` names other graphs for engines to be of.
    """
    version = version or VERSIONS[target]
    folder = bundle.root / "engines" / f"{target}-{version}-{architecture}"
    graphs = [name for name in ENGINE_OF if name in bundle.manifest.files]
    stood_for = {name: bundle.root / name for name in graphs} | (stands_for or {})
    paths = [write_engine(folder / ENGINE_OF[name], stood_for[name]) for name in graphs]
    shapes = {"frames": ((1, 64, 96, 3),) * 3}
    identity = Identity(
        schema_version=SCHEMA_VERSION,
        target=target,
        version=version,
        architectures=(architecture,),
        gpu=HERE.gpu if target == "tensorrt" else None,
        cuda=None,
        driver=None,
        jetpack=None,
        precision={name: {"fp32": 1.0} for name in graphs},
        profiles={"encoder.onnx": shapes},
        flags=flags,
        build_seconds=1.0,
        built_at=datetime.now(timezone.utc).isoformat(),
        host=None,
        bundle_sha256="0" * 64,
        graphs=graph_digests(bundle),
        engines={path.name: file_record(path) for path in paths},
        verified=None,
    )
    write_identity(folder, identity)
    return folder


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
