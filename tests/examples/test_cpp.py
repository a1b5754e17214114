"""The C++ example: its reader is compiled and reads clouds of the layout that the node publishes.

rclcpp and PCL are not on PyPI, so the node and the struct for PCL are not compiled here.
"""

import re
import shutil
import subprocess
from array import array
from pathlib import Path

import numpy as np
import pytest
import sensor_msgs
from sensor_msgs.msg import PointCloud2, PointField

from vditrack.ros_messages.track_cloud import POINT_FIELDS, TRACK_FIELDS, describe_track_rows

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "cpp"
PAGE = ROOT / "docs" / "ros-cpp.md"
LATER = ("requested", "scale")
"""Columns that recordings of older nodes lack."""

HARNESS = """
#include <fstream>
#include <iostream>
#include <iterator>
#include <limits>

#include "tracks.hpp"

// Arguments: a file with width, point_step and the fields, and a file with the rows.
int main(int, char ** argv)
{
  sensor_msgs::msg::PointCloud2 cloud;
  std::ifstream layout(argv[1]), rows(argv[2], std::ios::binary);
  layout >> cloud.width >> cloud.point_step;
  cloud.height = 1;
  cloud.row_step = cloud.width * cloud.point_step;
  sensor_msgs::msg::PointField field;
  field.count = 1;
  for (int datatype; layout >> field.name >> field.offset >> datatype; ) {
    field.datatype = static_cast<std::uint8_t>(datatype);
    cloud.fields.push_back(field);
  }
  cloud.data.assign(std::istreambuf_iterator<char>(rows), std::istreambuf_iterator<char>());
  std::cout.precision(std::numeric_limits<float>::max_digits10);
  try {
    for (const auto & t : read_tracks(cloud)) {
      std::cout << t.x << ' ' << t.y << ' ' << t.z << ' ' << t.u << ' ' << t.v << ' ' << t.id;
      for (int value : {t.visible, t.object_id, t.requested, t.scale}) {
        std::cout << ' ' << value;
      }
      std::cout << ' ' << t.confidence << ' ' << t.forward_backward_error << ' ' <<
        t.seconds_since_model << '\\n';
    }
    std::cout << "visible " << count_visible(cloud) << '\\n';
  } catch (const std::runtime_error & error) {
    std::cout << "error " << error.what() << '\\n';
  }
}
"""


def find_include() -> Path:
    """The folder of the message headers: beside the wheels, or of a distribution."""
    for folder in Path(sensor_msgs.__file__).resolve().parents:
        if (folder / "include" / "sensor_msgs" / "sensor_msgs").is_dir():
            return folder / "include"
    pytest.skip("the C++ headers of sensor_msgs are not installed")


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> Path:
    """The compiled harness."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    folder = tmp_path_factory.mktemp("cpp")
    (folder / "harness.cpp").write_text(HARNESS)
    includes = [f"-isystem{path}" for path in find_include().iterdir()]
    warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"]
    command = [compiler, "-std=c++17", *warnings, f"-I{EXAMPLE}", *includes]
    output = folder / "harness"
    done = subprocess.run(
        [*command, folder / "harness.cpp", "-o", output],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return output


def make_cloud(count: int):
    """A cloud with the layout that the node publishes, and its rows."""
    rng = np.random.default_rng(3)
    rows = np.zeros(count, TRACK_FIELDS)
    for name in TRACK_FIELDS.names:
        kind = TRACK_FIELDS[name].kind
        values = rng.normal(size=count) if kind == "f" else rng.integers(0, 2**7, count)
        rows[name] = values
    rows["id"] += 2**30
    rows["x"][::4] = np.nan
    rows["forward_backward_error"][::3] = np.inf
    rows["confidence"] = rng.uniform(0, 1, count)
    rows["visible"] = rows["confidence"] >= 0.5
    fields = [PointField(name=n, offset=o, datatype=d, count=1) for n, o, d in POINT_FIELDS]
    data = array("B", rows.tobytes())
    return PointCloud2(fields=fields, data=data, **describe_track_rows(rows)), rows


def read(reader: Path, folder: Path, cloud, **changes) -> list[list[str]]:
    """Words of each line that the harness prints."""
    described = {"width": cloud.width, "point_step": cloud.point_step, **changes}
    fields = described.get("fields") or [(f.name, f.offset, f.datatype) for f in cloud.fields]
    lines = [f"{described['width']} {described['point_step']}"]
    lines += [" ".join(map(str, field)) for field in fields]
    (folder / "layout").write_text("\n".join(lines))
    (folder / "rows").write_bytes(bytes(cloud.data))
    done = subprocess.run(
        [reader, folder / "layout", folder / "rows"], capture_output=True, text=True, check=True
    )
    return [line.split() for line in done.stdout.splitlines()]


def test_the_reader_reads_what_the_node_publishes(reader, tmp_path):
    cloud, rows = make_cloud(11)
    *printed, count = read(reader, tmp_path, cloud)
    names = [name for name in TRACK_FIELDS.names if name not in LATER]
    at = [*names[: names.index("object_id") + 1], *LATER, *names[names.index("object_id") + 1 :]]
    assert len(printed) == len(rows)
    for words, row in zip(printed, rows, strict=True):
        for name, word in zip(at, words, strict=True):
            expected = row[name] if name in TRACK_FIELDS.names else 0
            np.testing.assert_equal(np.float32(word), np.float32(expected), err_msg=name)
    assert count == ["visible", str(int(rows["visible"].sum()))]
    assert read(reader, tmp_path, make_cloud(0)[0]) == [["visible", "0"]]


def test_the_reader_refuses_other_clouds(reader, tmp_path):
    cloud, _ = make_cloud(3)
    fields = [(field.name, field.offset, field.datatype) for field in cloud.fields]
    moved = [(name, offset + (name == "id"), datatype) for name, offset, datatype in fields]
    lacking = [field for field in fields if field[0] != "confidence"]
    other_type = [(name, at, 7 if name == "visible" else kind) for name, at, kind in fields]
    for changes, word in (
        ({"fields": moved}, "id"),
        ({"fields": lacking}, "confidence"),
        ({"fields": other_type}, "visible"),
        ({"width": 2}, "size"),
        ({"point_step": 44}, "size"),
    ):
        ((first, *words),) = read(reader, tmp_path, cloud, **changes)
        assert first == "error"
        assert word in words
    older = [field for field in fields if field[0] not in LATER]
    assert len(read(reader, tmp_path, cloud, fields=older)) == 4


def test_structs_name_the_columns_of_the_cloud():
    for name in ("tracks.hpp", "pcl_track.hpp"):
        text = (EXAMPLE / name).read_text()
        for column in TRACK_FIELDS.names:
            assert re.search(rf"\b{column}\b", text), (name, column)


def test_the_page_shows_the_files():
    page = PAGE.read_text()
    for path in sorted(EXAMPLE.iterdir()):
        if path.name != "package.xml":
            assert path.read_text() in page, f"docs/ros-cpp.md differs from {path.name}"
