"""`mrcz clean`: what it removes, and above all what it does not."""

import json
import os
import time

import forked
import numpy as np
import pytest

import mrcz
from mrcz import cli
from mrcz.archive.clean import DAY, clean
from mrcz.storage import whole

OLD = 3 * DAY


def age(path, seconds=OLD):
    when = time.time() - seconds
    os.utime(path, (when, when))
    return path


@pytest.fixture
def part(tmp_path, rng):
    """What a writer of eight frames that was killed leaves behind."""
    code = (
        "import numpy as np, mrcz, os, signal, sys\n"
        "w = mrcz.Writer(sys.argv[1])\n"
        "for i in range(8): w.append(np.full((16, 16), i, 'i2'))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert forked.was_killed(forked.start(code, tmp_path / "movie.mrcz"))
    (left,) = tmp_path.glob(".movie.mrcz.*.part")
    return age(left)


def what(folder, **options):
    return [(found.status, found.reason) for found in clean(folder, **options)]


def test_frames_that_may_be_nowhere_else_are_kept(part, tmp_path):
    (found,) = clean(tmp_path)
    assert found.status == "kept" and "nowhere else" in found.reason and found.n_frames and part.exists()
    mrcz.write(tmp_path / "movie.mrcz", np.zeros((1, 8, 8), "i1"))  # made since, of other frames
    (found,) = clean(tmp_path)
    assert found.status == "kept" and found.n_frames == 8 and part.exists()
    frames = np.stack([np.full((16, 16), i, "i2") for i in range(8)])
    mrcz.write(tmp_path / "movie.mrcz", frames[:7], overwrite=True)
    (found,) = clean(tmp_path)
    assert found.status == "kept" and found.n_frames == 1 and part.exists()
    mrcz.write(tmp_path / "movie.mrcz", frames, overwrite=True)
    assert what(tmp_path, dry_run=True) == [("planned", None)] and part.exists()
    assert what(tmp_path) == [("removed", None)] and not part.exists()
    assert (tmp_path / "movie.mrcz").exists()


def test_what_stood_there_before_is_not_what_was_being_written(part, tmp_path):
    """A writer with ``overwrite=True`` that was killed: the file of that name is the old one, edited or not since."""
    mrcz.write(tmp_path / "movie.mrcz", np.zeros((1, 8, 8), "i1"))
    mrcz.edit_header(tmp_path / "movie.mrcz", label="edited")
    assert what(tmp_path, older_than=-120)[0][0] == "kept"
    assert what(tmp_path, older_than=-120, unsaved=True) == [("removed", None)]


def test_plain_frames_are_compared_by_their_bytes(tmp_path, rng):
    frames = rng.integers(0, 99, (4, 16, 16)).astype("i2")
    mrcz.write(tmp_path / "whole.mrc", frames)
    left = tmp_path / ".movie.mrc.0123abcd.part"
    left.write_bytes((tmp_path / "whole.mrc").read_bytes()[: 1024 + 3 * 512 + 100])
    age(left)
    mrcz.write(tmp_path / "movie.mrc", frames[:2])
    (found,) = clean(tmp_path)
    assert found.status == "kept" and found.n_frames == 1
    mrcz.write(tmp_path / "movie.mrc", frames, overwrite=True)
    assert what(tmp_path) == [("removed", None)]


def test_only_what_is_old(part, tmp_path):
    age(part, DAY - 60)
    assert what(tmp_path, unsaved=True) == [("kept", "is younger")]
    assert what(tmp_path, unsaved=True, older_than=3600) == [("removed", None)]


def test_what_holds_no_frame_goes(tmp_path):
    for name in (".a.mrcz.0123abcd.part", ".gain.tif.0123abcd.part", ".b.mrcz.0123abcd.tmp"):
        age_of = tmp_path / name
        age_of.write_bytes(b"" if name.startswith(".a") else b"half of something")
        age(age_of)
    assert what(tmp_path) == [("removed", None)] * 3 and list(tmp_path.iterdir()) == []


def test_nothing_else_is_touched(part, tmp_path):
    part.rename(tmp_path / "keep.me")
    others = [".movie.mrcz.part", "movie.mrcz.0123abcd.part", ".movie.0123abcd.part.mrcz", ".x.0123ABCD.part"]
    for name in others:
        (tmp_path / name).write_bytes(b"")
        age(tmp_path / name)
    (tmp_path / ".dir.mrcz.0123abcd.part" / "mine").mkdir(parents=True)
    os.mkfifo(tmp_path / ".fifo.mrcz.0123abcd.part")
    (tmp_path / ".link.mrcz.0123abcd.part").symlink_to(tmp_path / "keep.me")
    before = sorted(os.listdir(tmp_path))
    found = what(tmp_path, recursive=True, unsaved=True, older_than=0)
    assert found == [("kept", "holds what no folder of ours does")]
    assert sorted(os.listdir(tmp_path)) == before


def test_a_live_writer_keeps_its_file(tmp_path):
    with mrcz.Writer(tmp_path / "movie.mrcz") as writer:
        writer.append(np.zeros((16, 16), "i2"))
        (left,) = tmp_path.glob(".movie.mrcz.*.part")
        age(left)
        assert what(tmp_path, unsaved=True) == [("kept", "is being written")] and left.exists()
    assert what(tmp_path) == [] and len(mrcz.read(tmp_path / "movie.mrcz")) == 1


def test_a_second_name_of_a_finished_file_goes(tmp_path):
    """Where a name is taken by a link, a kill between link and unlink leaves both."""
    mrcz.write(tmp_path / "movie.mrcz", np.zeros((1, 8, 8), "i1"))
    os.link(tmp_path / "movie.mrcz", tmp_path / ".movie.mrcz.0123abcd.part")
    age(tmp_path / "movie.mrcz")
    assert what(tmp_path) == [("removed", None)] and len(mrcz.read(tmp_path / "movie.mrcz")) == 1


def test_a_file_that_is_exchanged_meanwhile_stays(part, tmp_path, monkeypatch):
    """Between the look at it and the removal, another file takes the name."""
    real = os.lstat

    def lstat(path, **options):
        if os.fspath(path) == str(part):
            monkeypatch.setattr(os, "lstat", real)
            part.unlink()
            part.write_bytes(b"another")
        return real(path, **options)

    monkeypatch.setattr(os, "lstat", lstat)
    assert what(tmp_path, unsaved=True) == [("kept", "has changed meanwhile")]
    assert part.read_bytes() == b"another"


def test_without_locks_nothing_is_removed(part, tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def flock(fd, how):
        raise OSError(38, os.strerror(38))

    monkeypatch.setattr(fcntl, "flock", flock)
    ((status, reason),) = what(tmp_path, unsaved=True)
    assert status == "kept" and "no locks" in reason and part.exists()


# --- the command --------------------------------------------------------------------------------------------------


def run(capsys, *args):
    code = cli.main([str(arg) for arg in args])
    out, err = capsys.readouterr()
    return code, out, err


def test_command(capsys, part, tmp_path, monkeypatch):
    below = tmp_path / "below"
    below.mkdir()
    (below / ".x.mrcz.0123abcd.part").touch()
    age(below / ".x.mrcz.0123abcd.part")
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, "clean")
    assert code == 0 and "3 days old, " in out and "whole frames  kept: holds frames that may be nowhere else" in out
    assert "mrcz recover saves them; --unsaved removes them" in out and "0 files removed, 0 B; 1 kept" in err
    code, out, err = run(capsys, "clean", "-r", "--dry-run")
    assert code == 0 and "would be removed" in out and "1 file would be removed" in err
    code, out, err = run(capsys, "clean", "-r", "--json", tmp_path)
    *records, summary = map(json.loads, out.splitlines())
    assert [r["status"] for r in records] == ["kept", "removed"] and summary["removed"] == 1 == summary["kept"]
    assert os.listdir(below) == []
    code, out, _ = run(capsys, "recover", part)
    assert code in (0, 3) and len(mrcz.read(tmp_path / "movie.recovered.mrcz")) > 0
    code, out, _ = run(capsys, "clean", "--unsaved", "--older-than", "2d")
    assert code == 0 and "removed" in out and not part.exists()


def test_command_says_what_is_wrong(capsys, tmp_path):
    assert run(capsys, "clean", tmp_path / "none")[::2] == (
        1,
        f"mrcz: {tmp_path / 'none'}: No such file or directory\nmrcz: 0 files removed, 0 B; 0 kept\n",
    )
    code, _, err = run(capsys, "clean", "--older-than", "yesterday")
    assert code == 2 and "90s, 30m, 12h, 2d and 1w" in err


def test_an_original_that_was_set_aside_gets_its_name_back(capsys, tmp_path):
    aside, name = tmp_path / ".movie.mrc.1f2e3d4c.orig", tmp_path / "movie.mrc"
    mrcz.write(name, np.zeros((2, 8, 8), "i2"))
    aside.write_bytes(b"the original")
    (found,) = clean(tmp_path)
    assert found.status == "kept" and "exists" in found.reason and aside.exists()
    name.unlink()
    (found,) = clean(tmp_path, dry_run=True)
    assert found.status == "planned" and not name.exists()
    with whole.standing(aside):
        (found,) = clean(tmp_path)
        assert found.status == "kept" and "being written" in found.reason
    assert cli.main(["clean", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "put back as" in out and "1 put back" in err
    assert name.read_bytes() == b"the original" and not aside.exists()


def test_originals_set_aside_are_noticed(capsys, tmp_path):
    mrcz.write(tmp_path / "a.mrc", np.zeros((2, 8, 8), "i2"))
    (tmp_path / ".movie.mrc.1f2e3d4c.orig").write_bytes(b"the original")
    for command in (["verify", "--each", "-r"], ["compress", "-r"]):
        assert cli.main([*command, str(tmp_path)]) == 0
        err = capsys.readouterr().err
        assert "movie.mrc.1f2e3d4c.orig: an original set aside" in err and "mrcz clean" in err
