"""Installation by colcon; pip installs the same package with the rest of vditrack."""

from pathlib import Path

from setuptools import find_packages, setup

NAME = "vditrack_ros"
SHARED = {
    "launch": sorted(map(str, Path("launch").glob("*.launch.py"))),
    "config": ["config/tracker.yaml", f"{NAME}/transport/fastdds.xml"],
    "rviz": ["rviz/vditrack.rviz"],
    "foxglove": ["foxglove/vditrack.json"],
}

setup(
    name=NAME,
    version="0.1.0",
    description="Track any point in a camera stream with a video diffusion transformer.",
    maintainer="The vditrack developers",
    maintainer_email="vditrack@users.noreply.github.com",
    license="Apache-2.0",
    packages=find_packages(include=[f"{NAME}*"]),
    package_data={NAME: ["py.typed", "transport/fastdds.xml"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        *((f"share/{NAME}/{folder}", files) for folder, files in SHARED.items()),
    ],
    install_requires=["setuptools"],
    extras_require={"test": ["pytest"]},
    zip_safe=True,
    entry_points={"console_scripts": ["vditrack-node = vditrack_ros.main:main"]},
)
