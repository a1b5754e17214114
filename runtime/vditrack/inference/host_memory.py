"""The memory of this machine that this process may use, with the limits of its container."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

_LIMITS = {"cgroup": ("memory.limit_in_bytes",), "cgroup2": ("memory.max", "memory.high")}
"""Files with the limits of a control group, by the type of its file system (version 1 and 2)."""
_USAGE = {"cgroup": "memory.usage_in_bytes", "cgroup2": "memory.current"}
_FILE_CACHE = {"cgroup": "total_inactive_file", "cgroup2": "inactive_file"}
"""Entry of ``memory.stat`` for the file cache that the kernel frees before it kills a process."""


class HostMemory(NamedTuple):
    """Memory in bytes."""

    available: int
    total: int
    limited: bool
    """Whether a control group (a container, a systemd slice) limits this process, not only the
    machine."""


class _Hierarchy(NamedTuple):
    """A mounted hierarchy of control groups."""

    kind: str
    """"cgroup" for version 1, "cgroup2" for version 2."""
    mount_point: Path
    root: PurePosixPath
    """The control group that is mounted there."""


def read_host_memory(root: Path = Path("/")) -> HostMemory | None:
    """Return the memory that this process may use; None where the system does not report it.

    The memory is that of the machine, or what the control groups of this process leave of it
    (version 1 and 2, and every group above).

    Args:
        root: Folder that has ``proc`` and ``sys``; a test gives another.

    """
    amounts = _read_table(root / "proc/meminfo", ":")
    if "MemAvailable" not in amounts:
        return None
    available, total = (amounts[name] * 1024 for name in ("MemAvailable", "MemTotal"))
    memory = HostMemory(available, total, limited=False)
    for limit, free in _read_limits(root):
        if limit < memory.total:
            memory = HostMemory(memory.available, limit, limited=True)
        memory = memory._replace(available=min(memory.available, max(free, 0)))
    return memory


def available_bytes() -> float:
    """Return the bytes that this process may still use; infinity where that is not known."""
    memory = read_host_memory()
    return float("inf") if memory is None else float(memory.available)


def _read_limits(root: Path) -> Iterator[tuple[int, int]]:
    """Yield the limit and the free memory, in bytes, of each limited group of this process."""
    for hierarchy, group in _find_groups(root):
        for folder in (group, *group.parents):
            if not folder.is_relative_to(hierarchy.mount_point):
                break
            limits = [_read_number(folder / name) for name in _LIMITS[hierarchy.kind]]
            limit = min((size for size in limits if size is not None), default=None)
            usage = _read_number(folder / _USAGE[hierarchy.kind])
            if limit is not None and usage is not None:
                statistics = _read_table(folder / "memory.stat", " ")
                yield limit, limit - usage + statistics.get(_FILE_CACHE[hierarchy.kind], 0)


def _find_groups(root: Path) -> Iterator[tuple[_Hierarchy, Path]]:
    """Yield the hierarchies that control memory, each with the folder of this process's group."""
    groups = {}
    for line in _read_lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers or "memory" in controllers.split(","):
            groups["cgroup" if controllers else "cgroup2"] = PurePosixPath(path)
    for hierarchy in _find_hierarchies(root):
        group = groups.get(hierarchy.kind)
        if group is None:
            continue
        # In a container the mount shows the container's own group, or the whole tree.
        inside = group.is_relative_to(hierarchy.root)
        below = group.relative_to(hierarchy.root) if inside else PurePosixPath()
        folder = hierarchy.mount_point / below
        yield hierarchy, folder if folder.is_dir() else hierarchy.mount_point


def _find_hierarchies(root: Path) -> Iterator[_Hierarchy]:
    """Yield the mounts of control groups that may limit memory (proc_pid_mountinfo(5))."""
    for line in _read_lines(root / "proc/self/mountinfo"):
        mount, _, file_system = line.partition(" - ")
        mount_fields, kinds = mount.split(), file_system.split()
        if len(mount_fields) < 5 or len(kinds) < 3 or kinds[0] not in _LIMITS:
            continue
        if kinds[0] == "cgroup" and "memory" not in kinds[-1].split(","):
            continue
        mount_point = root / mount_fields[4].lstrip("/")
        yield _Hierarchy(kinds[0], mount_point, PurePosixPath(mount_fields[3]))


def _read_number(path: Path) -> int | None:
    """Return the number in a file; None if it has none, as in "max", or cannot be read."""
    text = "".join(_read_lines(path)).strip()
    return int(text) if text.isdigit() else None


def _read_table(path: Path, separator: str) -> dict[str, int]:
    """Return the numbers of a file of names and numbers; empty if it cannot be read."""
    pairs = (line.partition(separator)[::2] for line in _read_lines(path))
    return {
        name: int(value.split()[0])
        for name, value in pairs
        if value.split() and value.split()[0].isdigit()
    }


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
