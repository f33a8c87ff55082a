"""Zarr folders that a killed `mrcz convert` left behind: removed, and nothing else is."""

from __future__ import annotations

import json
import os
import time

import forked
import numpy as np
import pytest

import mrcz
from mrcz.archive.clean import DAY, clean
from mrcz.cli import main
from mrcz.storage.folders import whole_folder

CODE = """
import os, signal, sys
from mrcz.convert.export import export
def tell(done, total):
    if done > total // 8: os.kill(os.getpid(), signal.SIGKILL)
export(sys.argv[1], sys.argv[2], progress=tell)
"""


@pytest.fixture
def part(tmp_path, rng):
    """What `kill -9` leaves of a convert to Zarr."""
    mrcz.write(tmp_path / "a.mrc", rng.poisson(1, (8, 30, 40)).astype("u1"))
    assert forked.was_killed(forked.start(CODE, tmp_path / "a.mrc", tmp_path / "a.zarr"))
    (left,) = tmp_path.glob(".a.zarr.*.part")
    assert (left / "c").is_dir() and not (tmp_path / "a.zarr").exists()
    return left


def older(top, seconds=3 * DAY):
    when = time.time() - seconds
    for folder, _, names in os.walk(top):
        for name in [folder, *(os.path.join(folder, name) for name in names)]:
            os.utime(name, (when, when))


def what(folder, **options):
    return [(found.status, found.reason) for found in clean(folder, **options)]


def test_a_killed_convert(part, tmp_path, capsys):
    assert what(tmp_path) == [("kept", "is younger")]
    older(part)
    (found,) = clean(tmp_path, dry_run=True)
    assert (found.status, found.destination) == ("planned", str(tmp_path / "a.zarr")) and part.exists()
    assert found.nbytes > 0 and found.age > 2 * DAY
    newest = next(part.glob("c/*/0/0"))
    os.utime(newest)  # one of its files was written to just now
    assert what(tmp_path) == [("kept", "is younger")]
    assert main(["clean", "--older-than", "0s", "--json", str(tmp_path)]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (said["path"], said["status"]) == (str(part), "removed")
    assert sorted(os.listdir(tmp_path)) == ["a.mrc"]


def test_below_only_if_asked_for(part, tmp_path):
    (tmp_path / "deep").mkdir()
    os.rename(part, tmp_path / "deep" / part.name)
    older(tmp_path / "deep" / part.name)
    assert what(tmp_path) == []
    assert what(tmp_path, recursive=True) == [("removed", None)]
    assert os.listdir(tmp_path / "deep") == []


def test_a_living_writer_is_left_alone(tmp_path):
    with whole_folder(tmp_path / "b.zarr") as folder:
        (folder / "zarr.json").write_text("{}")
        older(folder)
        assert what(tmp_path, older_than=0) == [("kept", "is being written")]
    assert what(tmp_path, older_than=0) == [] and (tmp_path / "b.zarr" / "zarr.json").exists()


@pytest.mark.parametrize("kind", ["another file", "a link", "a link below", "a FIFO"])
def test_what_holds_anything_else_is_kept(part, tmp_path, kind):
    (tmp_path / "dear").mkdir()
    (tmp_path / "dear" / "file").write_text("not to be lost")
    if kind == "another file":
        (part / "thesis.tex").write_text("mine")
    elif kind == "a link":
        os.symlink(tmp_path / "dear", part / "d")
    elif kind == "a link below":
        os.symlink(tmp_path / "dear", part / "c" / "99")
    else:
        os.mkfifo(part / "c" / "pipe")
    before = sorted(str(path) for path in part.rglob("*"))
    assert what(tmp_path, older_than=0) == [("kept", "holds what no folder of ours does")]
    assert sorted(str(path) for path in part.rglob("*")) == before and (tmp_path / "dear" / "file").exists()


def test_a_link_to_a_folder_of_that_name_is_nothing(part, tmp_path):
    os.rename(part, tmp_path / "kept")
    os.symlink(tmp_path / "kept", part)
    assert what(tmp_path, older_than=0) == [] and (tmp_path / "kept" / "c").exists()


def test_what_was_set_aside_gets_its_name_back(tmp_path):
    aside = tmp_path / ".a.zarr.0123abcd.orig"
    aside.mkdir()
    (aside / "zarr.json").write_text("{}")
    (tmp_path / "a.zarr").mkdir()
    assert what(tmp_path) == [("kept", "is what was replaced, and a.zarr exists")] and aside.exists()
    (tmp_path / "a.zarr").rmdir()
    assert what(tmp_path, dry_run=True) == [("planned", None)] and aside.exists()
    assert what(tmp_path) == [("put back", None)]
    assert (tmp_path / "a.zarr" / "zarr.json").exists() and not aside.exists()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may remove everything")
def test_what_may_not_be_removed_is_an_error(part, tmp_path):
    os.chmod(part, 0o500)
    try:
        (found,) = clean(tmp_path, older_than=0)
        assert found.status == "failed" and found.error
    finally:
        os.chmod(part, 0o700)


def test_numbers_are_read_whole_before(tmp_path):
    """A finished Zarr is no leftover."""
    mrcz.write(tmp_path / "a.mrc", np.zeros((2, 3, 4), "u1"))
    mrcz.export(tmp_path / "a.mrc", tmp_path / "a.zarr")
    assert what(tmp_path, older_than=0, recursive=True) == []
