"""Free memory under the limits of control groups, read from trees of files as kernels show them."""

from pathlib import Path

import pytest

from vditrack.inference.host_memory import HostMemory, available_bytes, read_host_memory

GIB = 1 << 30
MEMINFO = f"MemTotal: {16 * GIB >> 10} kB\nMemFree: 1000 kB\nMemAvailable: {8 * GIB >> 10} kB\n"
V2_MOUNT = "30 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup rw,nsdelegate"
UNLIMITED_V1 = 9223372036854771712


def machine(root: Path, files: dict[str, object]) -> Path:
    for name, content in {"proc/meminfo": MEMINFO, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def test_without_limits_it_is_that_of_the_machine(tmp_path):
    files = {
        "proc/self/cgroup": "0::/user.slice",
        "proc/self/mountinfo": V2_MOUNT,
        "sys/fs/cgroup/user.slice/memory.max": "max",
        "sys/fs/cgroup/user.slice/memory.high": "max",
        "sys/fs/cgroup/user.slice/memory.current": 5 * GIB,
    }
    found = read_host_memory(machine(tmp_path, files))
    assert found == HostMemory(8 * GIB, 16 * GIB, limited=False)


def test_a_container_of_version_2(tmp_path):
    files = {
        "proc/self/cgroup": "0::/",
        "proc/self/mountinfo": V2_MOUNT,
        "sys/fs/cgroup/memory.max": 2 * GIB,
        "sys/fs/cgroup/memory.current": GIB,
        # The kernel frees file cache before it kills.
        "sys/fs/cgroup/memory.stat": f"anon 1\ninactive_file {GIB // 4}\nactive_file 99",
    }
    found = read_host_memory(machine(tmp_path, files))
    assert found == HostMemory(GIB + GIB // 4, 2 * GIB, limited=True)


@pytest.mark.parametrize("limit", ["memory.max", "memory.high"])
def test_the_limit_of_a_group_above_counts(tmp_path, limit):
    files = {
        "proc/self/cgroup": "0::/robot.slice/track.service",
        "proc/self/mountinfo": V2_MOUNT,
        "sys/fs/cgroup/robot.slice/track.service/memory.max": 6 * GIB,
        "sys/fs/cgroup/robot.slice/track.service/memory.current": GIB,
        f"sys/fs/cgroup/robot.slice/{limit}": 4 * GIB,
        "sys/fs/cgroup/robot.slice/memory.current": 3 * GIB,
    }
    found = read_host_memory(machine(tmp_path, files))
    assert found == HostMemory(GIB, 4 * GIB, limited=True)


def test_a_container_of_version_1_that_sees_the_path_of_its_host(tmp_path):
    group = "sys/fs/cgroup/memory"
    files = {
        "proc/self/cgroup": "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/",
        "proc/self/mountinfo": "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro master:11 - cgroup "
        "cgroup rw,memory\n34 31 0:31 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu",
        f"{group}/memory.limit_in_bytes": 3 * GIB,
        f"{group}/memory.usage_in_bytes": 2 * GIB,
        f"{group}/memory.stat": f"inactive_file 7\ntotal_inactive_file {GIB}",
    }
    found = read_host_memory(machine(tmp_path, files))
    assert found == HostMemory(2 * GIB, 3 * GIB, limited=True)


def test_version_1_without_a_limit(tmp_path):
    files = {
        "proc/self/cgroup": "4:memory:/user.slice",
        "proc/self/mountinfo": "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory",
        "sys/fs/cgroup/memory/user.slice/memory.limit_in_bytes": UNLIMITED_V1,
        "sys/fs/cgroup/memory/user.slice/memory.usage_in_bytes": GIB,
    }
    found = read_host_memory(machine(tmp_path, files))
    assert found == HostMemory(8 * GIB, 16 * GIB, limited=False)


def test_a_group_that_is_over_its_limit_has_nothing_left(tmp_path):
    files = {
        "proc/self/cgroup": "0::/",
        "proc/self/mountinfo": V2_MOUNT,
        "sys/fs/cgroup/memory.high": GIB,
        "sys/fs/cgroup/memory.current": 2 * GIB,
    }
    found = read_host_memory(machine(tmp_path, files))
    assert found == HostMemory(0, GIB, limited=True)


def test_another_system(tmp_path):
    assert read_host_memory(tmp_path) is None
    assert available_bytes() > 0
