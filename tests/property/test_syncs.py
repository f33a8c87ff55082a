"""Every promise to be on disk is one: on the model disk, without any one of the fsyncs behind it, something is lost.

`tests/mutation/mutate.py --matching 'fsync|sync_folder|_barrier'` takes each of them away in turn.
"""

import contextlib
import os
import random

import numpy as np
import pytest

import mrcz
from mrcz.file import growing
from mrcz.legacy.sections import insert
from mrcz.storage import whole

from .model_disk import Ledger

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
FRAMES = np.random.default_rng(1).poisson(1.0, (12, 6, 40)).astype(np.uint8)


@pytest.fixture
def disk(monkeypatch):
    """Put a model disk in place."""

    def put(existing=(), names="rename"):
        ledger = Ledger(existing, names=names)
        monkeypatch.setattr(growing, "_GAP", 2000)  # bytes, so that it is used up now and then
        monkeypatch.setattr(growing.GrowingFile, "disk", ledger)
        monkeypatch.setattr(whole.NewFile, "disk", ledger)
        return ledger

    return put


def test_the_seam_reaches_the_system(tmp_path, monkeypatch):
    """`Disk` itself, which the model takes the place of everywhere else."""
    synced, fsync = [], os.fsync

    def watched(fd):
        synced.append(os.fstat(fd))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", watched)
    fd = whole.Disk().open_new(tmp_path / "a", 0o600)
    try:
        whole.Disk().fsync(fd)
    finally:
        os.close(fd)
    whole.Disk().sync_folder(tmp_path)
    assert [(about.st_dev, about.st_ino) for about in synced] == [
        (about.st_dev, about.st_ino) for about in (os.stat(tmp_path / "a"), os.stat(tmp_path))
    ]


@pytest.mark.parametrize("names", ["rename", "link", "neither"])
@pytest.mark.parametrize("before", [None, b"as it was " * 100])
def test_a_whole_file_is_whole_or_absent(tmp_path, disk, names, before):
    """Under its name there is the old content or the new, and once the block has ended the new."""
    path, after = tmp_path / "a.txt", b"and as it is now " * 200
    if before is not None:
        path.write_bytes(before)
    ledger = disk([path] if before is not None else [], names)
    with whole.whole_file(path, overwrite=before is not None) as file:
        file.write(after)
    ledger.promise("there")
    seen = set()
    for promised, outcome in ledger.after_power_loss(random.Random(1), 200):
        found = outcome.get(str(path))
        # Where names can be neither renamed nor linked an empty file reserves one.
        empty = found == b"" and before is None and names == "neither"
        assert found == after or (promised is None and (found == before or empty)), (promised, found)
        seen.add(found)
    assert seen >= {before, after}


ENDS = {
    "one": [1],
    "some after a flush": [1, "flush", 3],
    "none after a flush": [2, "flush"],
    "more than the gap": ["flush", 8],
}


@pytest.mark.parametrize("suffix", [".mrcz", ".mrc"])
@pytest.mark.parametrize("mode", ["w", "a"])
@pytest.mark.parametrize("actions", sorted(ENDS))
def test_what_was_closed_is_on_disk_to_the_byte(tmp_path, disk, suffix, mode, actions):
    """Frames, header, footer and size: not only what a reader that walks and searches would find all the same."""
    path = tmp_path / f"a{suffix}"
    if mode == "a":
        mrcz.write(path, FRAMES[:3])
    ledger, k = disk([path] if mode == "a" else []), 3 if mode == "a" else 0
    with mrcz.open(path, mode, n_threads=1) as writer:
        for action in ENDS[actions]:
            if action != "flush":
                writer.extend(FRAMES[k : k + action])
                k += action
            elif k:
                writer.flush()
    ledger.promise("closed")
    wanted, last = path.read_bytes(), None
    for promised, outcome in ledger.after_power_loss(random.Random(1), 100):
        if promised:
            assert outcome[str(path)] == wanted
            last = outcome
    assert last is not None


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="memory cannot be told to forget a file")
@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("back", [False, True])
def test_a_copy_is_synced_once_before_its_name_and_once_more_to_be_read_back(tmp_path, monkeypatch, check, back):
    """What is compared has gone to the disk, and memory has forgotten it; without a check one fsync is enough."""
    mrcz.write(tmp_path / "a.mrc", FRAMES)
    os.utime(tmp_path / "a.mrc", (1e9, 1e9))  # so old that nobody can have written to it since
    source, new, convert = "a.mrc", "b.mrcz", mrcz.compress
    if back:
        mrcz.compress(tmp_path / source, tmp_path / "b.mrcz")
        source, new, convert = "b.mrcz", "c.mrc", mrcz.decompress
    done, fsync, forget = [], whole.Disk.fsync, os.posix_fadvise
    monkeypatch.setattr(whole.Disk, "fsync", lambda disk, fd: (done.append("sync"), fsync(disk, fd)))
    monkeypatch.setattr(os, "posix_fadvise", lambda *given: (done.append("forget"), forget(*given)))
    for name in ("rename_new", "sync_folder"):
        call = getattr(whole.Disk, name)
        monkeypatch.setattr(
            whole.Disk, name, lambda disk, *given, name=name, call=call: (done.append(name), call(disk, *given))[1]
        )
    convert(tmp_path / source, tmp_path / new, check=check)
    # The folder is synced by an fsync too.
    assert done == ["sync", "forget"] * check + ["sync", "rename_new", "sync_folder", "sync"]


def test_what_was_edited_is_on_disk_to_the_byte(tmp_path, disk):
    for suffix in (".mrc", ".mrcz"):
        path = tmp_path / f"a{suffix}"
        mrcz.write(path, FRAMES[:3], pixel_size=1.0)
        ledger = disk([path])
        mrcz.edit_header(path, pixel_size=2.0)
        ledger.promise("edited")
        wanted = path.read_bytes()
        assert {o[str(path)] for p, o in ledger.after_power_loss(random.Random(1), 100) if p} == {wanted}


def test_sections_added_in_place(tmp_path):
    """The old surface's: the old sections or all of the new ones at every instant, and in the end the new ones."""
    path = tmp_path / "a.mrc"
    mrcz.write(path, FRAMES[:2].astype("f4"))
    before = path.read_bytes()
    ledger = Ledger([path])
    insert(path, FRAMES[2:5].astype("f4"), 2, dtype=np.dtype("f4"), disk=ledger)
    ledger.promise("added")
    wanted, seen = path.read_bytes(), set()
    for promised, outcome in ledger.after_power_loss(random.Random(1), 200):
        data = outcome[str(path)]
        if promised:
            assert data == wanted
        elif data[:1024] == wanted[:1024]:
            assert data == wanted
        else:
            assert data[: len(before)] == before
        seen.add(data[:1024])
    assert seen == {before[:1024], wanted[:1024]}


@pytest.mark.parametrize("fail_at", range(1, 8))  # three sections, their fsync, the header, its fsync; none
def test_sections_that_the_disk_refuses_and_then_the_power(tmp_path, fail_at):
    path, frames = tmp_path / "a.mrc", FRAMES.astype("f4")
    mrcz.write(path, frames[:2])
    before = path.read_bytes()
    ledger = Ledger([path])
    ledger.fail_at = fail_at
    with pytest.raises(OSError, match="Input/output") if fail_at < 7 else contextlib.nullcontext():
        insert(path, frames[2:5], 2, dtype=frames.dtype, disk=ledger)
    for _, outcome in ledger.after_power_loss(random.Random(fail_at), 100):
        data = outcome[str(path)]
        nz = int.from_bytes(data[8:12], "little")
        assert nz in (2, 5) and data[: len(before)][1024:] == before[1024:]
        assert nz == 2 or data[len(before) :] == frames[2:5].tobytes()
