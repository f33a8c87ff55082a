"""Random lives of a file: opened, appended to, flushed, closed, aborted, killed at any call to the disk, recovered.

Run by test_lives.py. A program of its own because it forks: a life that may be killed is lived by a child process.
"""

import json
import os
import shutil
import signal
import struct
import tempfile
import traceback
import warnings
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mrcz
from mrcz.check.recover import recover
from mrcz.check.verify import verify
from mrcz.file import growing as growth
from mrcz.file.growing import GrowingFile
from mrcz.storage.disk import Disk

# An append leaves a gap for a few frames only, so that it is used up again and again.
growth._GAP = 12000
FRAMES = [np.random.default_rng(k).poisson(1.0, (24, 400)).astype(np.uint8) for k in range(80)]


class Deadly(Disk):
    """Kills this process at the call of that number; a write is then half done."""

    def __init__(self, left):
        self.left = left

    def dies(self):
        self.left -= 1
        return self.left == 0

    def pwrite(self, fd, data, offset):
        if self.dies():
            super().pwrite(fd, data[: len(data) // 2], offset)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().pwrite(fd, data, offset)


def deadly(name):
    def call(self, *args):
        if self.dies():
            os.kill(os.getpid(), signal.SIGKILL)
        return getattr(Disk, name)(self, *args)

    return call


CALLS = "open_new open_existing fsync truncate rename_new link replace unlink sync_folder"
for name in CALLS.split():
    setattr(Deadly, name, deadly(name))


def live(path, first, actions, end, report):
    """The child: returns only where it is not killed."""
    if isinstance(end, int):
        GrowingFile.disk = Deadly(end)
    try:
        with mrcz.open(path, "a" if first else "w", n_threads=1, codec="lz4") as writer:
            k = len(writer)  # where the last life was killed, frames may have been found that nobody knew of
            assert k >= first
            os.write(report, struct.pack("<i", k))
            for action in actions:
                if action == "flush":
                    writer.flush()
                    os.write(report, struct.pack("<i", k))
                else:
                    writer.extend(np.stack(FRAMES[k : k + action]))
                    k += action
            if end == "abort":
                raise KeyError
    except KeyError:
        return
    os.write(report, struct.pack("<i", k))


def in_a_child(path, first, actions, end):
    """Frames the child found and had flushed, and how it ended: 0, or negative if it was killed."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(read_end)
            live(path, first, actions, end, write_end)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(write_end)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL), "the child failed: see above"
    told = b""
    while part := os.read(read_end, 4096):
        told += part
    os.close(read_end)
    counts = [n for (n,) in struct.iter_unpack("<i", told)]
    return counts[0] if counts else first, max([first, *counts]), code


def opened(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mrcz.FormatWarning)
        with mrcz.open(path) as reader:
            return reader.read()


def check(path, flushed, written):
    """How many frames the file has: those flushed at least, and each of them right."""
    got = opened(path)
    assert flushed <= len(got) <= written, (flushed, len(got), written)
    assert np.array_equal(got, np.stack(FRAMES[: len(got)]))
    return len(got)


action = st.one_of(st.just("flush"), st.integers(1, 4))
life = st.tuples(
    st.tuples(st.integers(1, 4), st.lists(action, max_size=6)).map(lambda pair: [pair[0], *pair[1]]),
    st.one_of(st.sampled_from(["close", "abort"]), st.integers(1, 40)),
    st.booleans(),
)
deaths = {"killed": 0, "lives": 0, "found": 0, "salvaged": 0}


@settings(max_examples=100, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(lives=st.lists(life, min_size=1, max_size=5))
def lives_of_a_file(lives):
    folder = Path(tempfile.mkdtemp())
    path, new = folder / "a.mrcz", folder / "b.mrcz"
    try:
        frames, written = 0, 0
        for actions, end, recovering in lives:
            if frames > 50:
                break
            found, flushed, code = in_a_child(path, frames, actions, end)
            assert frames <= found <= max(frames, written)
            deaths["found"] += found - frames
            written = max(found, written if code else 0) + sum(a for a in actions if a != "flush")
            killed = code < 0
            deaths["killed"] += killed
            deaths["lives"] += 1
            unfinished = list(folder.glob(".*.part"))
            assert killed or not unfinished
            if not path.exists():
                assert flushed == 0
            for part in unfinished:
                try:
                    recover(part, new)
                    deaths["salvaged"] += check(new, 0, written)
                    new.unlink()
                except mrcz.MrczError:
                    pass  # not one whole frame
                part.unlink()
            if path.exists():
                frames = check(path, flushed, written)
                if recovering and frames:
                    recover(path, new)
                    recovered = check(new, frames, len(FRAMES))
                    assert verify(new).ok
                    deaths["salvaged"] += recovered - frames
                    os.replace(new, path)
                    frames = recovered
            if code == 0 and end == "close":
                assert frames == written and verify(path).ok
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    lives_of_a_file()
    print(json.dumps(deaths))
