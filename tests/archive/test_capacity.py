"""Processors and memory of a container or a batch job, from control groups as kernels show them."""

import os

import pytest

from mrcz.archive.capacity import free_memory, usable_cores
from mrcz.threads import default_threads

many = pytest.mark.skipif(default_threads() < 2, reason="needs two processors")


@pytest.fixture
def system(tmp_path):
    """Writes files below a made-up /proc and /sys/fs/cgroup, and gives both."""

    def make(**files):
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return {"proc": tmp_path / "proc", "groups": tmp_path / "groups"}

    def build(files):
        return make(**{name.replace("/", "__"): text for name, text in files.items()})

    return build


def test_this_machine_answers():
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
    assert 1 << 20 < free_memory() < 1 << 50


@many
def test_a_quota_of_cgroup_2_is_rounded_up_to_whole_cores(system):
    roots = system({"proc/self/cgroup": "0::/job/step\n", "groups/job/cpu.max": "150000 100000\n"})
    assert usable_cores(**roots) == 2
    roots = system({"groups/job/step/cpu.max": "50000 100000\n"})
    assert usable_cores(**roots) == 1
    roots = system({"groups/job/step/cpu.max": "max 100000\n", "groups/job/cpu.max": "max 100000\n"})
    assert usable_cores(**roots) == default_threads()


@many
def test_a_quota_of_cgroup_1(system):
    roots = system(
        {
            "proc/self/cgroup": "5:cpu,cpuacct:/a\n2:memory:/b\n",
            "groups/cpu,cpuacct/a/cpu.cfs_quota_us": "100000\n",
            "groups/cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
        }
    )
    assert usable_cores(**roots) == 1


@many
def test_in_a_container_the_group_is_the_root(system):
    # The name is the one outside, and the folder of that name is not there.
    roots = system({"proc/self/cgroup": "0::/docker/0123\n", "groups/cpu.max": "100000 100000\n"})
    assert usable_cores(**roots) == 1


def test_memory_is_the_least_of_machine_and_groups(system):
    roots = system({"proc/meminfo": "MemTotal: 9000000 kB\nMemAvailable: 4000000 kB\n"})
    assert free_memory(**roots) == 4_096_000_000
    files = {
        "proc/self/cgroup": "0::/job\n",
        "groups/job/memory.max": "3000000000\n",
        "groups/job/memory.current": "2500000000\n",
    }
    roots = system(files)
    assert free_memory(**roots) == 500_000_000
    roots = system({"groups/job/memory.stat": "anon 7\ninactive_file 2000000000\nfile 9\n"})
    assert free_memory(**roots) == 2_500_000_000
    roots = system({"groups/job/memory.current": "6000000000\n"})
    assert free_memory(**roots) == 0
    roots = system({"groups/job/memory.max": "max\n"})
    assert free_memory(**roots) == 4_096_000_000


def test_memory_of_cgroup_1_and_its_no_limit(system):
    roots = system(
        {
            "proc/meminfo": "MemAvailable: 4000000 kB\n",
            "proc/self/cgroup": "4:memory:/\n",
            "groups/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "groups/memory/memory.usage_in_bytes": "4096\n",
        }
    )
    assert free_memory(**roots) == 4_096_000_000
    system({"groups/memory/memory.limit_in_bytes": "1000004096\n"})
    assert free_memory(**roots) == 1_000_000_000


def test_nonsense_says_nothing(system):
    roots = system(
        {
            "proc/meminfo": "MemAvailable: some\n",
            "proc/self/cgroup": "x\n0::/../../etc\n\n::\n",
            "groups/etc/cpu.max": "-5 0\n",
            "groups/cpu.max": "lots\n",
            "groups/memory.max": "?\n",
        }
    )
    assert usable_cores(**roots) == default_threads()
    assert free_memory(**roots) > 1 << 20
