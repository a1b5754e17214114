"""Whether an engine fits is known before it is opened; reasons are given in words."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from doubles.machines import DESKTOP, NO_GPU, ORIN
from vditrack.bundle.file_checks import file_record
from vditrack.bundle.folder import Bundle, bundled_model, load_bundle
from vditrack.errors import EngineError
from vditrack.inference import machine as machine_facts
from vditrack.inference.engine_identity import (
    IDENTITY,
    Identity,
    Verification,
    engine_folders,
    graph_digests,
    load_identity,
    mismatches,
    write_identity,
)
from vditrack.inference.machine import Machine, read_machine


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(bundled_model())


@pytest.fixture
def folder(tmp_path: Path, bundle: Bundle) -> Path:
    """A build, of engines that nobody opens here."""
    path = tmp_path / "engines" / "tensorrt-10.3.0-sm87"
    path.mkdir(parents=True)
    for name in ("encoder.engine", "features.engine"):
        (path / name).write_bytes(name.encode() * 100)
    write_identity(path, identity_of(path, bundle))
    return path


def identity_of(folder: Path, bundle: Bundle, **changes: Any) -> Identity:
    """The identity of a build on an Orin."""
    inp = bundle.manifest.input
    frames = (bundle.manifest.encoder.frames, inp.height, inp.width, 3)
    engines = sorted(folder.glob("*.engine"))
    built = Identity(
        schema_version=1,
        target="tensorrt",
        version="10.3.0",
        architectures=("sm87",),
        gpu="Orin",
        cuda="12.6",
        driver="540.4.0",
        jetpack="6.2",
        precision={"encoder.onnx": {"fp32": 1.0}, "features.onnx": {"fp32": 1.0}},
        profiles={"encoder.onnx": {"frames": (frames, frames, frames)}, "features.onnx": {}},
        flags=(),
        build_seconds=1.5,
        built_at="2026-11-22T11:00:00+00:00",
        host=None,
        bundle_sha256="0" * 64,
        graphs=graph_digests(bundle),
        engines={path.name: file_record(path) for path in engines},
        verified=None,
    )
    return msgspec.structs.replace(built, **changes)


def test_an_identity_comes_back_as_it_was_written(folder: Path, bundle: Bundle) -> None:
    found = load_identity(folder)
    assert found == identity_of(folder, bundle)
    content = (folder / "encoder.engine").read_bytes()
    assert found.engines["encoder.engine"].sha256 == hashlib.sha256(content).hexdigest()
    verified = Verification(where="Orin", when="2026-11-23", median_move=0.01, limit=0.05)
    write_identity(folder, msgspec.structs.replace(found, verified=verified))
    assert load_identity(folder).verified == verified
    assert sorted(path.name for path in folder.iterdir()) == [
        "encoder.engine",
        "features.engine",
        IDENTITY,
    ]


def edit(folder: Path) -> None:
    text = (folder / IDENTITY).read_text().replace("10.3.0", "10.4.0")
    (folder / IDENTITY).write_text(text)


def truncate(folder: Path) -> None:
    content = (folder / "features.engine").read_bytes()
    (folder / "features.engine").write_bytes(content[:-1])


def alter(folder: Path) -> None:
    content = (folder / "features.engine").read_bytes()
    (folder / "features.engine").write_bytes(b"x" + content[1:])


def reseal(folder: Path, change: dict[str, Any]) -> None:
    """Write another identity with the digest that belongs to it."""
    identity = json.loads((folder / IDENTITY).read_text())["identity"] | change
    content = json.dumps(identity)
    digest = hashlib.sha256(content.encode()).hexdigest()
    (folder / IDENTITY).write_text(f'{{"sha256": "{digest}", "identity": {content}}}')


DAMAGE = {
    "missing": (lambda f: (f / IDENTITY).unlink(), "identity.json cannot be read (No such file"),
    "edited": (edit, "identity.json was edited"),
    "not one": (lambda f: (f / IDENTITY).write_text("{}"), "is not an engine's identity: Object"),
    "not JSON": (lambda f: (f / IDENTITY).write_bytes(b"\xff"), "is not an engine's identity"),
    "newer": (lambda f: reseal(f, {"schema_version": 2, "new": 1}), "has schema version 2"),
    "other fields": (lambda f: reseal(f, {"new": 1}), "unknown field `new`"),
    "outside": (
        lambda f: reseal(f, {"engines": {"../features.engine": {"size": 1, "sha256": "0" * 64}}}),
        "Invalid enum value '../features.engine'",
    ),
    "no engine": (lambda f: (f / "features.engine").unlink(), "features.engine is missing"),
    "truncated": (truncate, "features.engine has 1499 bytes instead of 1500"),
    "altered": (alter, "features.engine was altered: its sha256"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_build_is_refused(folder: Path, damage: str) -> None:
    harm, message = DAMAGE[damage]
    harm(folder)
    with pytest.raises(EngineError, match="build") as refused:
        load_identity(folder)
    assert message in str(refused.value)


REBUILD = "rebuild with `vditrack build {root} --target tensorrt`"
REBUILD_RTX = "rebuild with `vditrack build {root} --target tensorrt-rtx --arch {arch}`"
RTX: dict[str, Any] = {"target": "tensorrt-rtx", "version": "1.7.1.116", "gpu": None}
RTX |= {"architectures": ("sm86", "sm89")}
FRAMES = ((1, 96, 128, 3),) * 3
MOVED = (
    "its tracks differ from the bundle's: on Orin the median point moved by {move} pixels; the "
    f"limit is 0.5: {REBUILD}; if that does not help, export the bundle with another --precision"
)


def verdict(move: float) -> Verification:
    return Verification(where="Orin", when="2026-11-23", median_move=move, limit=0.5)


MISMATCHES: dict[str, tuple[dict[str, Any], Machine, list[str]]] = {
    "fits": ({}, ORIN, []),
    "older library": (
        {},
        replace(ORIN, tensorrt="10.16.1"),
        [f"built by TensorRT 10.3.0; this machine has 10.16.1: {REBUILD}"],
    ),
    "later library, version compatible": (
        {"flags": ("version_compatible",)},
        replace(ORIN, tensorrt="10.16.1"),
        [],
    ),
    "earlier library, version compatible": (
        {"flags": ("version_compatible",)},
        replace(ORIN, tensorrt="10.2.0"),
        [f"built by TensorRT 10.3.0; this machine has 10.2.0: {REBUILD}"],
    ),
    "no library": (
        {},
        replace(ORIN, tensorrt=None),
        [
            "built by TensorRT 10.3.0, which is not installed here (`vditrack doctor` shows what "
            f"to install): {REBUILD}"
        ],
    ),
    "another architecture": (
        {"gpu": None},
        replace(ORIN, architecture="sm110"),
        [f"built for SM87; this machine has SM110: {REBUILD}"],
    ),
    "another GPU of the architecture": (
        {"version": "10.16.1.11", "architectures": ("sm89",), "gpu": "NVIDIA L4"},
        DESKTOP,
        [f"built on a NVIDIA L4; this machine has a NVIDIA GeForce RTX 4090: {REBUILD}"],
    ),
    "the same, hardware compatible": (
        {
            "version": "10.16.1.11",
            "architectures": ("sm89",),
            "gpu": "NVIDIA L4",
            "flags": ("same_compute_capability",),
        },
        DESKTOP,
        [],
    ),
    "another architecture, hardware compatible": (
        {
            "version": "10.16.1.11",
            "architectures": ("sm120",),
            "gpu": "NVIDIA GeForce RTX 5090",
            "flags": ("ampere_plus",),
        },
        DESKTOP,
        [],
    ),
    "older than Ampere": (
        {
            "version": "10.16.1.11",
            "architectures": ("sm120",),
            "flags": ("ampere_plus",),
        },
        replace(DESKTOP, architecture="sm75"),
        [f"built for SM120; this machine has SM75: {REBUILD}"],
    ),
    "other graphs": (
        {"graphs": {"encoder.onnx": "0" * 64, "features.onnx": "1" * 64}},
        ORIN,
        [
            "built from a different encoder.onnx and features.onnx than the bundle has now: "
            + REBUILD,
        ],
    ),
    "other frames": (
        {"profiles": {"encoder.onnx": {"frames": FRAMES}}},
        ORIN,
        [f"built for frames [1, 96, 128, 3]; the bundle's are [1, 384, 512, 3]: {REBUILD}"],
    ),
    "no frames": (
        {"profiles": {}},
        ORIN,
        [f"built for frames []; the bundle's are [1, 384, 512, 3]: {REBUILD}"],
    ),
    "frames within a range": (
        {"profiles": {"encoder.onnx": {"frames": (FRAMES[0], FRAMES[0], (1, 480, 832, 3))}}},
        ORIN,
        [],
    ),
    "RTX fits": (RTX, DESKTOP, []),
    "RTX release": (
        RTX,
        replace(DESKTOP, tensorrt_rtx="1.8.0"),
        [
            "built by TensorRT-RTX 1.7.1.116; this machine has 1.8.0: "
            + REBUILD_RTX.replace("{arch}", "sm89")
        ],
    ),
    "RTX architecture": (
        RTX,
        replace(DESKTOP, architecture="sm120"),
        [
            "built for SM86 and SM89; this machine has SM120: "
            + REBUILD_RTX.replace("{arch}", "sm120")
        ],
    ),
    "verified": ({"verified": verdict(0.5)}, ORIN, []),
    "tracks that moved": ({"verified": verdict(0.51)}, ORIN, [MOVED.replace("{move}", "0.51")]),
    "no GPU": (
        RTX,
        NO_GPU,
        [
            "no NVIDIA GPU was found, or its driver does not work: track with ONNX Runtime, or run "
            "`vditrack doctor` to find out why"
        ],
    ),
    "no GPU, and another release": (
        RTX | {"version": "1.6.0"},
        NO_GPU,
        [
            "built by TensorRT-RTX 1.6.0; this machine has 1.7.1.116: "
            + REBUILD_RTX.replace("{arch}", "sm86,sm89"),
            "no NVIDIA GPU was found, or its driver does not work: track with ONNX Runtime, or run "
            "`vditrack doctor` to find out why",
        ],
    ),
}


@pytest.mark.parametrize("kind", MISMATCHES)
def test_mismatches_are_said_in_words(folder: Path, bundle: Bundle, kind: str) -> None:
    changes, machine, wanted = MISMATCHES[kind]
    identity = identity_of(folder, bundle, **changes)
    said = [reason.replace("{root}", str(bundle.root)) for reason in wanted]
    assert mismatches(identity, bundle.with_host_code(), machine) == said


def test_host_code_is_allowed_by_the_user_and_not_by_the_identity(
    folder: Path, bundle: Bundle
) -> None:
    identity = identity_of(folder, bundle, flags=("version_compatible",))
    (reason,) = mismatches(identity, bundle, ORIN)
    assert "--allow-host-code" in reason
    allowed = load_bundle(bundle.root, allow_host_code=True)
    assert mismatches(identity, allowed, ORIN) == []
    assert allowed.appearance.allow_host_code


def test_a_verdict_of_no_number_is_no_pass() -> None:
    assert verdict(0.5).passed
    assert not verdict(0.51).passed
    assert not verdict(float("nan")).passed


def test_what_engines_are_compared_with_is_no_graph(bundle: Bundle) -> None:
    assert bundle.acceptance is not None
    assert graph_digests(bundle).keys() == {"encoder.onnx", "features.onnx"}


def test_unfinished_builds_are_not_listed(tmp_path: Path, bundle: Bundle) -> None:
    elsewhere = Bundle(tmp_path, bundle.manifest)
    assert engine_folders(elsewhere) == []
    for name in ("b", "a", ".c.half"):
        (tmp_path / "engines" / name).mkdir(parents=True)
    (tmp_path / "engines" / "notes.txt").touch()
    assert engine_folders(elsewhere) == [tmp_path / "engines" / name for name in "ab"]


JETPACK = """\
Package: bash
Status: install ok installed
Version: 5.1

Package: nvidia-jetpack
Status: install ok installed
Maintainer: NVIDIA Corporation
Version: 6.2+b77
Depends: nvidia-jetpack-runtime (= 6.2+b77)
"""
TEGRA = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n"
DRIVERS = {
    "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build": "540.4.0",
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC": (
        "550.54.15"
    ),
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build": (
        "580.95.05"
    ),
}


def test_a_jetson_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DPKG_STATUS", "TEGRA_RELEASE", "DRIVER_VERSION"):
        monkeypatch.setattr(machine_facts, name, tmp_path / name)
    assert read_machine().jetpack is None
    (tmp_path / "TEGRA_RELEASE").write_text(TEGRA)
    assert read_machine().jetpack == "L4T R36.4"
    (tmp_path / "DPKG_STATUS").write_text(JETPACK)
    assert read_machine().jetpack == "6.2"


@pytest.mark.parametrize("line", DRIVERS)
def test_the_driver_is_found_without_nvml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    # As on a Jetson.
    monkeypatch.setattr(machine_facts, "_library", lambda *_: None)
    monkeypatch.setattr(machine_facts, "DRIVER_VERSION", tmp_path / "version")
    (tmp_path / "version").write_text(line + "\nGCC version: gcc version 12.3.0\n")
    assert read_machine().driver == DRIVERS[line]


def test_a_library_that_does_not_load_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10: cannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    assert read_machine().tensorrt is None
