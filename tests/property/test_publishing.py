"""Publishing by many processes at once: a short run of what bench/stress does for long, and races made to happen."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mrcz
from mrcz import cli
from mrcz.storage import whole

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
PROGRAM = Path(__file__).with_name("publishing.py")


@pytest.mark.parametrize("without", ["", "rename", "rename,link"])
def test_nothing_is_lost_and_every_exit_code_is_true(tmp_path, without):
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path), "8", "1", "--without", without],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    report = json.loads(done.stdout)
    counts = {key: sum(kind[key] for kind in report["kinds"].values()) for key in ("looks", "done", "failed")}
    assert report["rounds"] == 8 and counts["looks"] > 16 and counts["done"] and counts["failed"], report


SECOND = {
    # What another process does at the worst instant: after the original was found unchanged, before it is removed.
    "restore": lambda: run_mrcz("decompress", "--force", "--remove", "TS.st.mrcz"),
    "camera": lambda: (write("new", 2), os.replace("new", "TS.st")),
    "gone": lambda: os.unlink("TS.st"),
}


def write(name, number):
    mrcz.write(name, np.full((2, 8, 8), number, np.int16), codec="none")


def run_mrcz(*words):
    # Locks belong to descriptors, not to processes: the same process may well play the other one.
    cli.main([*words, "-q", "-n", "1"])


def pixels(folder):
    found = set()
    for path in folder.iterdir():
        if not path.name.startswith("."):
            found.add(int(mrcz.read(path)[0, 0, 0]))
    return found


@pytest.mark.parametrize("second", sorted(SECOND))
@pytest.mark.parametrize("call", ["unlink", "replace", "rename_new", "sync_folder"])
def test_removing_while_another_comes_between(tmp_path, monkeypatch, second, call):
    monkeypatch.chdir(tmp_path)
    write("TS.st", 1)
    monkeypatch.setattr("mrcz.storage.disk.WAIT", 0.2)  # seconds that the other one waits for us, in vain
    true_call, came = getattr(whole.Disk, call), []

    def interrupted(self, *arguments):
        if not came:
            came.append(call)
            SECOND[second]()
        return true_call(self, *arguments)

    monkeypatch.setattr(whole.Disk, call, interrupted)
    cli.main(["compress", "--remove", "-q", "TS.st"])
    assert pixels(tmp_path) >= ({1, 2} if second == "camera" and came else {1})
