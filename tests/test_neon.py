"""The NEON kernels against plain C, by a program of their own, ``simd/compare.c``, where there is no ARM processor.

The tests in test_pixels.py and test_zstd_frame.py compare the variants that the processor under them can run. Those for
another processor are cross-compiled here and run under an emulator, where the machine has both (Debian:
``gcc-aarch64-linux-gnu`` and ``qemu-user``). That shows the bytes to be right; it says nothing of the speed.
"""

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[1] / "src" / "_cmrcz"
PROGRAM = Path(__file__).parent / "simd" / "compare.c"
# as meson.build has them; no contraction, or products and sums would be rounded together
FLAGS = ["-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", "-Wall", "-Werror"]
EMULATORS = ["qemu-aarch64", "qemu-aarch64-static"]


def build(compiler, target, level, sources=SOURCES):
    """Compile the comparing program with plain C and NEON; statically, so that it needs no library of that machine."""
    files = [PROGRAM, *(sources / "simd" / f"{name}.c" for name in ("plain", "neon", "dispatch"))]
    command = [compiler, *FLAGS, level, "-DMZ_HAVE_NEON=1", f"-I{sources}", "-static", "-o", target, *files, "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def run(command):
    """What the program says; the comparisons it made."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    said = re.fullmatch(r"(\w+) is chosen, (\w+) and plain C agree: (\d+) rounds, (\d+) comparisons\n", done.stdout)
    assert said, done.stdout
    assert int(said[4]) >= 50 * int(said[3]) > 0
    return said[1], said[2]


@pytest.fixture(scope="module")
def arm():
    """The compiler for 64-bit ARM, and what runs its programs: nothing, on such a machine."""
    if platform.machine() in ("aarch64", "arm64"):
        compiler, emulator = shutil.which("gcc"), []
    else:
        compiler = shutil.which("aarch64-linux-gnu-gcc")
        emulator = [next((shutil.which(name) for name in EMULATORS if shutil.which(name)), None)]
    if compiler is None:
        pytest.skip("no compiler for 64-bit ARM here (Debian: gcc-aarch64-linux-gnu)")
    if emulator == [None]:
        pytest.skip("no emulator of 64-bit ARM here (Debian: qemu-user)")
    return compiler, emulator


def test_neon_gives_the_bytes_of_plain_c(arm, tmp_path):
    compiler, emulator = arm
    build(compiler, tmp_path / "compare", "-O3")
    assert run([*emulator, tmp_path / "compare", "neon", "5", "1"]) == ("neon", "neon")


# what the processor's own minimum would do with zeros of both signs; counters that overflow
@pytest.mark.parametrize(
    ("right", "wrong", "kernels"),
    [
        ("vbslq_f64(vcltq_f64(a, b), a, b)", "vminq_f64(a, b)", "stats"),
        ("MZ_HISTOGRAM_BLOCK 4064", "MZ_HISTOGRAM_BLOCK 8128", "histogram8|zstd_encode"),
    ],
)
def test_a_difference_is_seen(arm, tmp_path, right, wrong, kernels):
    compiler, emulator = arm
    sources = tmp_path / "_cmrcz"
    shutil.copytree(SOURCES / "simd", sources / "simd")
    shutil.copy(SOURCES / "kernels.h", sources)
    neon = (sources / "simd" / "neon.c").read_text()
    assert neon.count(right) == 1
    (sources / "simd" / "neon.c").write_text(neon.replace(right, wrong))
    build(compiler, tmp_path / "compare", "-O1", sources)
    command = [*emulator, tmp_path / "compare", "neon", "20", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert re.match(f"({kernels}): .* (is|differs)", done.stdout)
