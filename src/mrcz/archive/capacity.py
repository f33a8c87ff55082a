"""What this process may use of its machine: processors and memory, as system, container or batch job give them.

A job of a cluster and a container see all processors and the memory of the whole machine, and may use a part of them.
The kernel says which part in the affinity of the process and in its control groups (Linux: cgroup v1 and v2).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from math import ceil
from pathlib import Path

from mrcz.threads import default_threads

__all__ = ["free_memory", "usable_cores"]

_PROC = Path("/proc")
_GROUPS = Path("/sys/fs/cgroup")
_UNKNOWN = 2 << 30  # bytes of memory that any machine has that archives movies


def usable_cores(*, proc: Path = _PROC, groups: Path = _GROUPS) -> int:
    """Processors that this process may keep busy: its affinity, and the time its control groups give it, rounded up."""
    cores = default_threads()
    for folder in _folders("cpu", proc, groups):
        quota, period = -1, 100_000
        with contextlib.suppress(OSError, ValueError):
            quota = int((folder / "cpu.cfs_quota_us").read_text())
            period = int((folder / "cpu.cfs_period_us").read_text())
        with contextlib.suppress(OSError, ValueError):
            first, second = (folder / "cpu.max").read_text().split()
            quota, period = (-1 if first == "max" else int(first)), int(second)
        if quota > 0 and period > 0:
            cores = min(cores, max(1, ceil(quota / period)))
    return cores


def free_memory(*, proc: Path = _PROC, groups: Path = _GROUPS) -> int:
    """Bytes of memory that could be taken now without swapping, in this machine and in this process's control groups.

    What a group holds as cache of files that are read no more counts as free: the kernel gives it back.
    """
    free = _free_of_machine(proc)
    for folder in _folders("memory", proc, groups):
        for most, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            with contextlib.suppress(OSError, ValueError):  # "max": no limit
                limit = int((folder / most).read_text())
                free = min(free, max(0, limit - int((folder / used).read_text()) + _cached(folder)))
    return free


def _free_of_machine(proc: Path) -> int:
    with contextlib.suppress(OSError, ValueError, StopIteration), open(proc / "meminfo", "rb") as file:
        return int(next(line for line in file if line.startswith(b"MemAvailable:")).split()[1]) * 1024
    with contextlib.suppress(
        OSError, ValueError, AttributeError
    ):  # macOS says how much there is, and not how much is free
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return _UNKNOWN


def _cached(folder: Path) -> int:
    """Bytes of files that the kernel would drop first."""
    with contextlib.suppress(OSError, ValueError):
        words = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines() if " " in line)
        return int(words.get("total_inactive_file", words.get("inactive_file", "0")))
    return 0


def _folders(controller: str, proc: Path, groups: Path) -> Iterator[Path]:
    """The control groups of this process for a controller: its own, those around it, and the outermost.

    Inside of a container the names are those outside, and what is mounted is the container's own group alone; a folder
    that is not there says nothing.
    """
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if names and controller not in names.split(","):
            continue
        top = groups / names if names else groups
        if names and not top.is_dir():
            top = groups / controller
        parts = [part for part in path.split("/") if part not in ("", ".", "..")]
        for depth in range(len(parts), -1, -1):
            yield top.joinpath(*parts[:depth])
