"""The doctor, on this machine and in environments that are broken on purpose."""

import ctypes.util
import hashlib
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib import metadata, util
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper

from vditrack.bundle.folder import bundled_model
from vditrack.doctor import bundled, child, examination, robot
from vditrack.doctor.child import run_probe
from vditrack.doctor.finding import Finding
from vditrack.doctor.hardware import has_nvidia_gpu, is_jetson
from vditrack.doctor.onnx_runtime import check_providers
from vditrack.doctor.product import SIDE, encode_product_graph
from vditrack.doctor.software import PACKAGES, check_requirements
from vditrack.errors import install_command

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[3]
SITE = Path(sysconfig.get_path("purelib"))
PLUG_IN = "onnxruntime_ep_nv_tensorrt_rtx"


def examine(*arguments, python=sys.executable, cwd=None, **variables):
    """Exit code, findings by name, and stderr of the doctor in a process of its own."""
    done = subprocess.run(
        [str(python), "-m", "vditrack.doctor", "--json", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    printed = json.loads(done.stdout) if done.stdout else {"broken": [], "findings": []}
    findings = {finding["name"]: Finding(**finding) for finding in printed["findings"]}
    assert len(findings) == len(printed["findings"])
    assert printed["broken"] == [name for name, it in findings.items() if it.state == "broken"]
    return done.returncode, findings, done.stderr


def broken(findings) -> set[str]:
    return {name for name, finding in findings.items() if finding.state == "broken"}


def environment(folder: Path, without: str | None = None) -> tuple[Path, Path]:
    """Python and site-packages of a new environment: the packages of this one, less one wheel."""
    venv.create(folder, with_pip=False, symlinks=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    files = (metadata.files(without) or []) if without else []
    left_out = {file.parts[0] for file in files}
    for entry in SITE.iterdir():
        if entry.name not in left_out:
            (packages / entry.name).symlink_to(entry)
    return folder / "bin" / "python", packages


def own_copy(package: Path) -> Path:
    """Put a folder of links to its files in the place of a link to a package."""
    source = package.resolve()
    package.unlink()
    for path in source.rglob("*"):
        if path.is_file():
            place = package / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(path)
    return package


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return examine(cwd=tmp_path_factory.mktemp("here"))


@pytest.mark.slow
def test_nothing_is_broken_here(here):
    code, findings, _ = here
    assert (code, broken(findings)) == (0, set())


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("Python", platform.python_version()),
        ("vditrack", metadata.version("vditrack")),
        ("NumPy", np.__version__),
        ("ONNX Runtime", f"onnxruntime {metadata.version('onnxruntime')}"),
        ("cryptography (signatures)", metadata.version("cryptography")),
        *((it.title, metadata.version(it.wheel)) for it in PACKAGES if it.title != "OpenCV"),
    ],
)
def test_versions(here, name, version):
    finding = here[1][name]
    assert finding.state == "works"
    assert finding.found.startswith(version)


def test_opencv_and_providers(here):
    opencv = here[1]["OpenCV"]
    assert metadata.version("opencv-python-headless").startswith(opencv.found)
    assert here[1]["ONNX Runtime on CPU"].state == "works"
    assert "ONNX Runtime on Azure" not in here[1]


def test_nvidia_and_tensorrt(here):
    findings = here[1]
    has_driver = ctypes.util.find_library("cuda") is not None
    assert (findings["NVIDIA driver"].state == "works") == has_driver
    assert ("GPU" in findings) == has_driver
    listed = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=False).stdout
    for name, library, package in (
        ("CUDA runtime", r"libcudart\.so\.1[23] .* => (\S+)", "nvidia.cuda_runtime"),
        ("cuDNN", r"libcudnn\.so\.9 .* => (\S+)", "nvidia.cudnn"),
    ):
        if (found := re.search(library, listed)) is not None:
            assert findings[name].state == "works"
            # The toolkit's folder is named by the version, as in cuda-13.0.
            folder = re.search(r"cuda-([\d.]+)", found[1])
            assert folder is None or findings[name].found.startswith(folder[1])
        elif util.find_spec("nvidia") is None or util.find_spec(package) is None:
            assert findings[name].state == "missing"
    for name, module in (("TensorRT", "tensorrt"), ("TensorRT-RTX", "tensorrt_rtx")):
        if util.find_spec(module) is None:
            assert findings[name].found == "not installed"
            assert findings[name].state == "missing"
        else:
            version = metadata.version(module)
            assert findings[name].found.startswith(version)
            assert findings[name].state == "works"


def test_board_and_ros(here):
    is_board = Path("/etc/nv_tegra_release").exists()
    assert (here[1]["Jetson"].state == "works") == is_board
    assert (here[1]["power mode"].state == "works") == is_board
    assert (here[1]["ROS 2"].state == "works") == (util.find_spec("rclpy") is not None)


def test_memory_and_disk(here):
    found = {name: here[1][name].found for name in ("memory", "disk")}
    free, total = re.match(r"([\d.]+) GiB free of ([\d.]+)", found["memory"]).groups()
    memory = psutil.virtual_memory()
    assert float(total) == pytest.approx(memory.total / 2**30, abs=0.06)
    assert float(free) == pytest.approx(memory.available / 2**30, rel=0.5)
    disk = psutil.disk_usage(found["disk"].partition(" in ")[2]).free / 2**30
    assert float(found["disk"].split()[0]) == pytest.approx(disk, rel=0.1)


def test_model_and_track(here):
    assert here[1]["bundled model"].found == "tiny, 5 files unaltered"
    manifest = json.loads((bundled_model() / "bundle.json").read_text())
    for name, record in manifest["files"].items():
        content = (bundled_model() / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == record["sha256"]
    track = here[1]["one track"]
    assert track.state == "works"
    assert float(re.search(r"off by ([\d.]+) pixels", track.found)[1]) < 0.2
    if not has_nvidia_gpu():
        assert here[1]["backend"].found.split(";")[0] in {"cpu-int8", "cpu"}


@pytest.mark.slow
def test_without_opencv(tmp_path):
    python, _ = environment(tmp_path / "environment", without="opencv-python-headless")
    code, findings, _ = examine(python=python, cwd=tmp_path)
    assert code == 1
    assert broken(findings) == {"OpenCV", "one track"}
    assert findings["OpenCV"].found == "not installed"
    assert findings["OpenCV"].remedy == "pip install 'opencv-python-headless>=4.10'"
    assert findings["bundled model"].state == "works"
    assert findings["ONNX Runtime on CPU"].state == "works"
    # The command itself: its doctor runs, and its other verbs point to it.
    command = [python, "-m", "vditrack"]
    helped = subprocess.run([*command, "doctor", "--help"], capture_output=True, check=False)
    assert helped.returncode == 0
    refused = subprocess.run([*command, "demo"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "No module named 'cv2'. `vditrack doctor` says how to fix it." in refused.stderr


def test_both_wheels_of_onnx_runtime(tmp_path):
    """The GPU wheel's metadata and one library stand for what the CPU wheel leaves of it."""
    python, packages = environment(tmp_path / "environment")
    gpu = packages / "onnxruntime_gpu-1.31.1.dist-info"
    gpu.mkdir()
    (gpu / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.31.1\n")
    (gpu / "top_level.txt").write_text("onnxruntime\n")
    library = own_copy(packages / "onnxruntime") / "capi" / "libonnxruntime_providers_cuda.so"
    library.write_bytes(b"\x7fELF")
    code, findings, _ = examine(python=python, cwd=tmp_path)
    assert code == 1
    assert broken(findings) == {"ONNX Runtime", "ONNX Runtime on CUDA"}
    wheels = findings["ONNX Runtime"]
    assert "and onnxruntime-gpu 1.31.1 are both installed" in wheels.found
    remedy = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
    assert wheels.remedy == remedy
    assert library.name in findings["ONNX Runtime on CUDA"].found
    assert findings["one track"].state == "works"


def test_an_old_package_and_one_that_does_not_load(tmp_path, monkeypatch):
    """Modules written here stand for an old NumPy and an OpenCV without its libraries."""
    (tmp_path / "numpy.py").write_text("__version__ = '1.24.4'\n")
    (tmp_path / "cv2.py").write_text(
        "try:\n    raise OSError('libGL.so.1: cannot open shared object file')\n"
        "except OSError as error:\n    raise ImportError('an essay') from error\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    findings = {finding.name: finding for finding in check_requirements()}
    assert broken(findings) == {"NumPy", "OpenCV"}
    assert findings["NumPy"].found == "1.24.4; vditrack needs 1.26 or newer"
    assert findings["NumPy"].remedy == "pip install 'numpy>=1.26'"
    found = "does not load: OSError: libGL.so.1: cannot open shared object file"
    assert findings["OpenCV"].found == found
    assert "--force-reinstall 'opencv-python-headless" in findings["OpenCV"].remedy


def test_an_altered_model(tmp_path, monkeypatch):
    """A copy of the bundled model with its last byte changed takes its place in the child."""
    copy = tmp_path / "tiny"
    shutil.copytree(bundled_model(), copy)
    content = (copy / "features.onnx").read_bytes()
    (copy / "features.onnx").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (tmp_path / "sitecustomize.py").write_text(
        "import pathlib, vditrack.bundle.folder\n"
        f"vditrack.bundle.folder.bundled_model = lambda: pathlib.Path({str(copy)!r})\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    (finding,) = bundled.check_files()
    assert finding.state == "broken"
    assert "features.onnx was altered or cut short" in finding.found
    assert finding.remedy == install_command(options="--force-reinstall --no-deps")


def test_onnx_runtime_cut_short(tmp_path):
    python, packages = environment(tmp_path / "environment")
    (library,) = own_copy(packages / "onnxruntime").glob("capi/onnxruntime_pybind11_state*.so")
    start = library.read_bytes()[:1000]
    library.unlink()
    library.write_bytes(start)
    code, findings, _ = examine(python=python, cwd=tmp_path)
    assert code == 1
    assert broken(findings) == {"ONNX Runtime", "ONNX Runtime's providers", "one track"}
    why = r"onnxruntime \S+ does not load: (crashes with SIG|.*file too short)"
    assert re.match(why, findings["ONNX Runtime"].found)
    assert "&& pip install onnxruntime" in findings["ONNX Runtime"].remedy
    assert findings["bundled model"].state == "works"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kept", "reason"), [(10, "file too short"), (4096, r"crashes with SIG(BUS|SEGV)")]
)
def test_a_provider_library_cut_short(tmp_path, monkeypatch, kept, reason):
    """A plug-in as NVIDIA's wheel lays it out; the library stands for its own, and is cut short."""
    import onnxruntime  # noqa: PLC0415

    package = tmp_path / PLUG_IN
    package.mkdir()
    whole = next(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*"))
    (package / "provider.so").write_bytes(whole.read_bytes()[:kept])
    (package / "__init__.py").write_text(
        "from pathlib import Path\n"
        "def get_ep_name(): return 'NvTensorRTRTXExecutionProvider'\n"
        "def get_library_path(): return str(Path(__file__).with_name('provider.so'))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    findings = {finding.name: finding for finding in check_providers()}
    plug_in = findings[f"ONNX Runtime plug-in {PLUG_IN}"]
    assert plug_in.state == "broken"
    assert re.search(reason, plug_in.found)
    assert plug_in.remedy == f"pip install --force-reinstall {PLUG_IN.replace('_', '-')}"
    assert findings["ONNX Runtime on CPU"].state == "works"


@pytest.mark.skipif(has_nvidia_gpu(), reason="needs a machine without an NVIDIA GPU")
def test_a_fallback_is_noticed():
    """ONNX Runtime itself takes the CPU in the place of a provider it does not have."""
    reply = run_probe("provider", "CUDAExecutionProvider")
    assert "CPU" in reply.error
    assert run_probe("provider", "CPUExecutionProvider").error is None


def test_the_product_is_the_graph_it_says():
    model = onnx.load_from_string(encode_product_graph())
    onnx.checker.check_model(model, full_check=True)
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [SIDE, SIDE]) for n in "xy")
    node = helper.make_node("MatMul", ["x", "x"], ["y"])
    assert model.graph == helper.make_graph([node], "product", [x], [y])


def test_no_answer(monkeypatch):
    monkeypatch.setattr(child, "TIMEOUT", 0.01)
    assert run_probe("track").error == "gives no answer within 0 s"


def test_a_check_that_fails_stops_no_other(monkeypatch):
    def unforeseen():
        yield Finding("first", "works", "as it should")
        raise RuntimeError("the moon is full")

    monkeypatch.setattr(examination, "CHECKS", (unforeseen, robot.check_disk))
    first, failed, disk = examination.run_checks()
    assert first.name == "first"
    assert (failed.name, failed.state) == ("unforeseen", "broken")
    assert "RuntimeError: the moon is full" in failed.found
    assert disk.name == "disk"


def test_ros_that_is_sourced_and_does_not_load(monkeypatch):
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    monkeypatch.setenv("RMW_IMPLEMENTATION", "rmw_cyclonedds_cpp")
    (finding,) = robot.check_ros()
    if util.find_spec("rclpy") is None:
        assert finding.state == "broken"
        assert "jazzy with rmw_cyclonedds_cpp is sourced" in finding.found
        assert "ros-jazzy-rclpy ros-jazzy-rmw-cyclonedds-cpp" in finding.remedy


def test_boards_and_cards(tmp_path):
    """Files as the kernel lays them out stand for the hardware that is not here."""
    assert not has_nvidia_gpu(tmp_path)
    card = tmp_path / "sys/bus/pci/devices/0000:01:00.0"
    card.mkdir(parents=True)
    (card / "vendor").write_text("0x10de\n")
    (card / "class").write_text("0x040300\n")
    assert not has_nvidia_gpu(tmp_path)  # Its sound device.
    (card / "class").write_text("0x030000\n")
    assert has_nvidia_gpu(tmp_path)
    tree = tmp_path / "board" / "proc/device-tree"
    tree.mkdir(parents=True)
    (tree / "compatible").write_bytes(b"nvidia,p3737-0000+p3701-0005\0nvidia,tegra234\0")
    assert is_jetson(tmp_path / "board")
    assert has_nvidia_gpu(tmp_path / "board")
    assert not is_jetson(tmp_path)


def test_power_mode(tmp_path, monkeypatch):
    """A script that answers as nvpmodel does stands for it."""
    nvpmodel = tmp_path / "nvpmodel"
    nvpmodel.write_text("#!/bin/sh\n[ $1 = -q ] && printf 'NV Power Mode: MODE_30W\\n2\\n'\n")
    nvpmodel.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(robot, "is_jetson", lambda: True)
    (finding,) = robot.check_power_mode()
    assert finding.found.startswith("MODE_30W")


@pytest.mark.slow
def test_report_holds_no_secrets(tmp_path):
    home = tmp_path / "home" / "alice"
    home.mkdir(parents=True)
    planted = {
        "GITHUB_TOKEN": "ghp_planted0123456789",
        "AWS_SECRET_ACCESS_KEY": "planted/aws+secret",
        "CUDA_API_KEY": 'planted "quoted" \\secret',
        "PIP_INDEX_URL": "https://alice:plantedlogin@index.example/simple",
        "DATABASE": "planted-in-a-plain-name",
    }
    allowed = {
        "HOME": str(home),
        "LOGNAME": "alice",
        "ROS_DISTRO": "jazzy",
        # A message quotes it, and so may any other: it holds a secret, a login and a host.
        "RMW_IMPLEMENTATION": f"{planted['CUDA_API_KEY']} {planted['PIP_INDEX_URL']}",
        "LD_LIBRARY_PATH": f"{home}/lib:/data/alice/{planted['GITHUB_TOKEN']}:/home/bob/lib",
        "OMP_NUM_THREADS": "1",
        "VIRTUAL_ENV": f"/net/{socket.gethostname()}/venv",
    }
    report = tmp_path / "report.zip"
    code, findings, stderr = examine("--report", report, cwd=home, **planted, **allowed)
    assert code == (1 if broken(findings) else 0)
    assert "ROS 2" in findings
    assert str(report) in stderr
    with zipfile.ZipFile(report) as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
    assert sorted(texts) == ["bundle.json", "doctor.json", "environment.json", "packages.txt"]
    for text in texts.values():
        assert "planted" not in text
        assert "alice" not in text
        assert "bob" not in text
        assert str(tmp_path) not in text
        assert re.search(rf"(?<![\w.-]){re.escape(socket.gethostname())}(?![\w-])", text) is None
    variables = json.loads(texts["environment.json"])
    assert variables["ROS_DISTRO"] == "jazzy"
    assert variables["LD_LIBRARY_PATH"] == "~/lib:/data/<user>/<secret>:~/lib"
    assert variables["VIRTUAL_ENV"] == "/net/<host>/venv"
    assert not set(variables) & {*planted, "HOME", "LOGNAME", "PATH"}
    assert f"numpy=={np.__version__}" in texts["packages.txt"].splitlines()
    assert {finding["name"] for finding in json.loads(texts["doctor.json"])} == set(findings)
    assert json.loads(texts["bundle.json"])["name"] == "tiny"


def test_a_report_that_cannot_be_written(tmp_path):
    code, findings, stderr = examine("--report", "report.tar", cwd=tmp_path)
    assert (code, findings) == (2, {})
    assert stderr == "vditrack: --report report.tar is not the name of a .zip file.\n"


def test_the_doctor_needs_the_standard_library_alone():
    code = "import sys; before = set(sys.modules); import vditrack.__main__\n"
    code += "print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded - set(sys.stdlib_module_names) <= {"vditrack"}


def test_packages_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [line for line in project["dependencies"] if ";" not in line]
    assert sorted(wanted) == sorted(f"{it.wheel}>={it.oldest}" for it in PACKAGES)
