"""Shared fixtures."""

import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import numpy as np
import pytest

# The same examples in every run: what a change broke is told at once, and no run fails by chance. Others are tried with
# MRCZ_EXAMPLES=random, best with --hypothesis-seed, after a change of what they are about.
hypothesis.settings.register_profile("steady", derandomize=True)
hypothesis.settings.register_profile("random", derandomize=False)
hypothesis.settings.load_profile("random" if os.environ.get("MRCZ_EXAMPLES") == "random" else "steady")

ROOT = Path(__file__).resolve().parent
COLLECTION = Path(os.environ.get("MRCZ_TEST_DATA", ROOT.parent.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of all real files from other instruments and programs (MRCZ_TEST_DATA)."""
    if not COLLECTION.is_dir():
        pytest.skip(f"no real files at {COLLECTION}; set MRCZ_TEST_DATA")
    return COLLECTION


@pytest.fixture(scope="session")
def some_data_dir() -> Path:
    """The same, or the part of them that comes with the tests."""
    return COLLECTION if COLLECTION.is_dir() else ROOT / "data"


def _no_flush(fd) -> None:
    """In the place of `os.fsync`: what cannot be flushed is an error as ever, and nobody waits for a disk."""
    os.fstat(fd if isinstance(fd, int) else fd.fileno())


@pytest.fixture(scope="session", autouse=True)
def fsync():
    """The true `os.fsync`. While tests run, nothing that they write in this process waits until the disk has it: no
    test could see whether it does, and thousands of files would take 3 ms each. What is flushed when, and what is lost
    without, is tested on a model disk (`property`). Programs that tests start flush as ever, and so do the folders of
    tests that are about disks (`storage`, `property`)."""
    true = os.fsync
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", _no_flush)
        yield true


@pytest.fixture
def still(monkeypatch) -> None:
    """Files of this test do not change while they are opened: no need to look at thousands of damaged ones twice."""
    monkeypatch.setattr("mrcz.file.opening._PAUSES", ())


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded generator: a test that fails, fails again."""
    return np.random.default_rng(20260101)


# Waits for the end of its standard input, which comes with the end of the process that runs the tests, however that
# ends; then unmounts what is mounted below a folder, and looks for some seconds more: a mount may just be under way.
_JANITOR = """
import os, subprocess, sys, time
folder = os.path.realpath(sys.argv[1])
print("ready", flush=True)
patience = 0 if sys.stdin.read() == "all is well" else 5
begun = time.monotonic()
while True:
    with open("/proc/self/mounts", encoding="latin-1") as mounts:
        points = [line.split()[1].encode("latin-1").decode("unicode_escape") for line in mounts if " fuse" in line]
    ours = [point for point in points if point.startswith(folder + "/")]
    for point in ours:
        subprocess.run(["fusermount3", "-u", "-z", "-q", point], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if time.monotonic() - begun > patience and (not ours or time.monotonic() - begun > 60):
        break
    time.sleep(0.1)
"""


@pytest.fixture(scope="session")
def janitor(tmp_path_factory):
    """A process that unmounts everything below the tests' folders once this one has ended, be it by SIGKILL."""
    # In a session of its own: Ctrl-C goes to all of this one.
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _JANITOR, str(tmp_path_factory.getbasetemp())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        cwd="/",
    )
    assert process.stdout.readline() == b"ready\n"
    yield
    process.communicate(b"all is well", timeout=90)
