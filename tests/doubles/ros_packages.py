"""Builds ROS packages of messages with CMake, as colcon does, from the wheels of ament_cmake."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import numpy as np

_WHEELS = (
    *("ament_cmake", "ament_cmake_export_interfaces", "ament_cmake_ros_core"),
    *("rosidl_default_generators", "rosidl_core_generators"),
)


_SKIPPED = (
    *("rosidl_typesupport_introspection_c", "rosidl_typesupport_introspection_cpp"),
    *("rosidl_typesupport_cpp", "rosidl_typesupport_fastrtps_cpp", "rosidl_generator_cpp"),
)
"""Generators that are left out, because nodes in Python do not need them: half of the build."""


def missing_tools() -> str:
    """What the build lacks on this machine; empty if nothing."""
    programs = [name for name in ("cmake", "ninja", "g++") if shutil.which(name) is None]
    wheels = [name for name in _WHEELS if not (Path(sys.prefix) / "share" / name).exists()]
    modules = [name for name in ("ament_package", "catkin_pkg") if find_spec(name) is None]
    return ", ".join([*programs, *wheels, *modules])


def build_package(source: Path, folder: Path) -> dict[str, str]:
    """Build a package and install it into a prefix; the environment in which it is found.

    Args:
        source: folder of the package.
        folder: an existing folder, for the build and the prefix; several packages may share it.

    """
    ros, prefix, build = folder / "ros", folder / "prefix", folder / f"build_{source.name}"
    if not ros.exists():
        _copy_wheels(ros)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {
        **os.environ,
        "AMENT_PREFIX_PATH": f"{prefix}:{ros}",
        "PATH": path,
        # The middleware of the tests needs no others.
        "STATIC_ROSIDL_TYPESUPPORT_C": "rosidl_typesupport_fastrtps_c",
        "STATIC_ROSIDL_TYPESUPPORT_CPP": "rosidl_typesupport_fastrtps_cpp",
    }
    options = {
        "CMAKE_PREFIX_PATH": f"{prefix};{ros}",
        "CMAKE_INSTALL_PREFIX": prefix,
        "Python3_EXECUTABLE": sys.executable,
        "BUILD_TESTING": "OFF",
        # Speed of the compiler, not of the program.
        "CMAKE_C_FLAGS": "-O0",
        "CMAKE_CXX_FLAGS": "-O0",
    }
    given = [f"-D{name}={value}" for name, value in options.items()]
    for command in (
        ["cmake", "-G", "Ninja", "-S", source, "-B", build, *given],
        ["ninja", "-C", build, "install"],
    ):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    purelib = Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    return {
        "PYTHONPATH": str(prefix / purelib),
        "LD_LIBRARY_PATH": f"{prefix / 'lib'}:{Path(sys.prefix) / 'lib'}",
        "AMENT_PREFIX_PATH": f"{prefix}:{sys.prefix}",
        # The wheels' own start-up would otherwise keep the paths of this process.
        "_ROS_WHEELS_BOOTSTRAP_COMPLETE": "",
    }


def _copy_wheels(ros: Path) -> None:
    """Copy the CMake files of the wheels, which name the paths of the machine that built them."""
    prefix = Path(sys.prefix)
    shutil.copytree(prefix / "share", ros / "share", symlinks=False)
    for name in ("lib", "include", "bin"):
        (ros / name).symlink_to(prefix / name)
    python = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    built = f"/opt/python/{tag}-{tag}"
    for name in _SKIPPED:
        for file in (ros / "share/ament_index/resource_index").glob(f"rosidl_typesupport_c/{name}"):
            file.unlink()
        for file in (ros / "share" / name / "cmake").glob("*.cmake"):
            file.write_text(re.sub(r"ament_register_extension\([^)]*\)", "", file.read_text()))
    for file in (ros / "share").rglob("*.cmake"):
        text = file.read_text()
        if built in text:
            text = text.replace(
                f"{built}/lib/{python}/site-packages/numpy/_core/include", np.get_include()
            )
            text = text.replace(f"{built}/include/{python}", sysconfig.get_path("include"))
            file.write_text(text)
