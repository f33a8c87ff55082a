"""What was archived comes back: the same bytes, times, permissions, links; and never where it should not."""

import json
import os
import random
import shutil
import signal
import stat
import time

import forked
import numpy as np
import pytest
from made_archive import ODD_NAMES, Made, Shelf, mixed, movie

import mrcz
from mrcz.archive.checking import check
from mrcz.archive.journal import Journal
from mrcz.archive.place import Folder
from mrcz.archive.restoring import restore
from mrcz.errors import MrczError


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def given(made, out, *patterns, place=None, **how):
    return list(restore(place or Folder(made.root), made.journal, out, patterns, **how))


def tree(top):
    """What lies in a tree: kind, bytes or target, permissions, time."""
    found = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        if path.is_symlink():
            found[str(path.relative_to(top))] = ("link", os.readlink(path))
        elif path.is_file():
            mode = stat.S_IMODE(status.st_mode)
            found[str(path.relative_to(top))] = ("file", path.read_bytes(), mode, status.st_mtime_ns)
        else:
            found[str(path.relative_to(top))] = ("folder",)
    return found


def test_the_tree_comes_back(made, out):
    os.chmod(made.source / "s2/notes.txt", 0o640)
    made.add(made.base("s2/notes.txt", "s2/data/notes.txt", "copy"))
    results = given(made, out)
    assert all(one.ok and one.status == "done" for one in results), results
    before, after = tree(made.source), tree(out)
    (_, pixels, _, _), before_pixels = after.pop("s2/stack.npy.mrc"), before.pop("s2/stack.npy")
    assert after == before and before_pixels[0] == "file" and pixels
    assert {one.source for one in results if one.identical is False} == {"s2/stack.npy"}
    np.testing.assert_array_equal(mrcz.read(out / "s2/stack.npy.mrc"), np.load(made.source / "s2/stack.npy"))
    assert os.path.samefile(out / "s1/again.mrc", out / "s1/grid/movie.mrc")
    assert [one.kind for one in results if one.kind != "file"] == ["link", "folder"]


@pytest.mark.parametrize("kind", [Folder, Shelf])
def test_the_very_file_of_another_format(tmp_path, out, rng, kind):
    made = Made(tmp_path)
    record = made.pieces("s/stack.npy", movie(rng, (30, 64, 80), np.uint16))
    assert record.path == "s/data/stack.npy.mrcz" and record.stored_bytes < record.source_bytes
    (one,) = given(made, out, place=kind(made.root))
    assert one.identical and (out / "s/stack.npy").read_bytes() == (made.source / "s/stack.npy").read_bytes()
    (found,) = check(kind(made.root), made.journal, pattern="*.npy")
    assert found.ok and found.decoded
    made.close()


def test_a_second_run_finds_all_there(made, out):
    given(made, out)
    before = tree(out)
    results = given(made, out)
    assert {one.status for one in results} == {"skipped"} and tree(out) == before
    assert all(one.identical for one in results if one.kind == "file" and one.source != "s2/stack.npy")


def test_a_part_by_pattern(made, out):
    assert {one.source for one in given(made, out, "s1/grid/*")} == {"s1/grid/movie.mrc", "s1/grid/second.mrc"}
    assert {one.source for one in given(made, out, "*.txt", "s2/void")} == {"s2/notes.txt", "loose.txt", "s2/void"}
    assert (out / "s2/void").is_dir()


def test_a_second_name_alone_is_the_file(made, out):
    (one,) = given(made, out, "s1/again.mrc")
    assert one.identical and (out / "s1/again.mrc").read_bytes() == (made.source / "s1/grid/movie.mrc").read_bytes()


def test_what_is_there_is_kept_unless_it_may_be_replaced(made, out):
    (out / "s2").mkdir(parents=True)
    (out / "s2/notes.txt").write_bytes(b"mine!\n")  # as long as the original
    (out / "s2/empty").mkdir()
    results = {one.source: one for one in given(made, out)}
    assert results["s2/notes.txt"].status == "refused" and "--overwrite" in results["s2/notes.txt"].error
    assert (out / "s2/notes.txt").read_bytes() == b"mine!\n"
    results = {one.source: one for one in given(made, out, overwrite=True)}
    assert results["s2/notes.txt"].identical and (out / "s2/notes.txt").read_bytes() == b"notes\n"
    assert results["s2/empty"].status == "refused" and "folder" in results["s2/empty"].error


def test_a_dry_run_makes_nothing(made, out):
    results = given(made, out, dry_run=True)
    assert {one.status for one in results} == {"planned"} and len(results) == 10 and not out.exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_nothing_is_written_through_a_link(made, out, tmp_path, overwrite):
    away = tmp_path / "away"
    away.mkdir()
    (away / "victim").write_bytes(b"mine")
    out.mkdir()
    (out / "s1").symlink_to(away)
    (out / "s2").mkdir()
    (out / "s2/notes.txt").symlink_to(away / "victim")
    (out / "s2/empty").symlink_to(away / "new")
    results = {one.source: one for one in given(made, out, overwrite=overwrite)}
    assert sorted(path.name for path in away.iterdir()) == ["victim"] and (away / "victim").read_bytes() == b"mine"
    assert results["s1/grid/movie.mrc"].status == "refused" and "link" in results["s1/grid/movie.mrc"].error
    assert results["s2/notes.txt"].status == ("done" if overwrite else "refused")
    if overwrite:
        assert (out / "s2/notes.txt").read_bytes() == b"notes\n" and not (out / "s2/notes.txt").is_symlink()


def test_a_forged_link_leads_no_file_astray(tmp_path, out):
    """A link of the archive itself, and a file that would lie behind it: links come last."""
    made = Made(tmp_path)
    away = tmp_path / "away"
    away.mkdir()
    made.copy("s/a/file", b"x")
    made.close()
    with open(made.lines, "a") as file:
        file.write(json.dumps({"event": "link", "source": "s/b", "session": "s", "target": str(away)}) + "\n")
        record = json.loads(made.lines.read_text().splitlines()[0])
        file.write(json.dumps({**record, "source": "s/b/file"}) + "\n")
    with Journal(made.root) as journal:
        results = {one.source: one for one in restore(Folder(made.root), journal, out)}
    assert results["s/b"].status == "refused" and (out / "s/b/file").read_bytes() == b"x" and not list(away.iterdir())
    with Journal(made.root) as journal:  # and with the link there already, which somebody made
        (out / "s/b/file").unlink()
        (out / "s/b").rmdir()
        (out / "s/b").symlink_to(away)
        results = {one.source: one for one in restore(Folder(made.root), journal, out, overwrite=True)}
    assert results["s/b/file"].status == "refused" and not list(away.iterdir())


@pytest.mark.parametrize("source", ["../up", "/etc/x", "a//b", "a/../../b", "a/./b", "", "a\0b"])
def test_forged_paths_are_damaged_lines(tmp_path, out, source):
    made = Made(tmp_path)
    made.copy("s/fine", b"x")
    made.close()
    record = json.loads(made.lines.read_text())
    with open(made.lines, "a") as file:
        file.write(json.dumps({**record, "source": source}) + "\n")
        file.write(json.dumps({**record, "source": "s/other", "path": source or "x/.."}) + "\n")
    with Journal(made.root) as journal:
        assert len(journal.damaged) == 2
        list(restore(Folder(made.root), journal, out))
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("fine")} == {
        "src/s/fine",
        "dst/s/data/fine",
        "out/s/fine",
    }


def test_damage_is_never_given_back(made, out):
    for place in ("s1/data/grid/movie.mrcz", "s1/data/counted.mrcz", "s2/data/notes.txt", "s2/data/stack.npy.mrcz"):
        path = made.root / place
        data = bytearray(path.read_bytes())
        data[len(data) * 3 // 4 if len(data) > 10 else 1] ^= 16
        path.write_bytes(data)
    os.unlink(made.root / "s2/data/empty")
    results = {one.source: one for one in given(made, out)}
    for source in ("s1/grid/movie.mrc", "s2/notes.txt", "s2/empty", "s1/again.mrc"):
        assert results[source].status == "failed" and results[source].damaged, source
        assert not (out / source).exists()
    for source in ("s1/counted.mrc", "s2/stack.npy"):  # a bit of the footer may be one that says nothing of pixels
        one = results[source]
        assert one.damaged or one.ok
    assert results["s1/grid/second.mrc"].identical and results["loose.txt"].identical
    assert not [path for path in out.rglob("*.part")]


def test_a_disk_that_is_full(made, out, monkeypatch):
    def full(self, *args):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("mrcz.storage.disk.Disk.fsync", full)
    results = given(made, out, "s2/notes.txt")
    assert results[0].status == "failed" and "full" in results[0].error and not results[0].damaged
    assert not (out / "s2/notes.txt").exists()


def test_where_it_may_not_be_made(made, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for place, what in (
        (tmp_path / "file", "no folder"),
        (made.root / "x", "in the archive"),
        (made.root, "in the archive"),
    ):
        with pytest.raises(MrczError, match=what):
            given(made, place)
    assert not (made.root / "x").exists()
    other = mixed(tmp_path / "other", np.random.default_rng(1))
    other.close()
    with pytest.raises(MrczError, match="archive itself"):
        given(made, other.root)


def test_names_of_any_kind(tmp_path, out):
    made = Made(tmp_path)
    for k, name in enumerate(ODD_NAMES):
        made.copy(f"s {k}\udcff/{name}", b"%d" % k)
    made.journal.close()
    with Journal(made.root) as journal:
        assert all(one.identical for one in restore(Folder(made.root), journal, out))
    assert tree(out) == tree(made.source)


def test_two_names_that_are_one_on_this_disk(tmp_path, out):
    made = Made(tmp_path)
    for name in ("Movie.mrc", "other.mrc"):
        made.copy(f"s/{name}", name.encode())
    path = made.root / "s/data/movie~2.mrc"
    path.write_bytes(b"lower")
    made.file("s/movie.mrc", b"lower")
    made.add(made.base("s/movie.mrc", "s/data/movie~2.mrc", "copy"))
    results = {one.source: one for one in given(made, out, tells_case=False, overwrite=True)}
    assert results["s/movie.mrc"].status == "refused" and "s/Movie.mrc" in results["s/movie.mrc"].error
    assert (out / "s/Movie.mrc").read_bytes() == b"Movie.mrc" and results["s/other.mrc"].ok
    made.close()


def test_an_archive_that_was_archived(tmp_path, out):
    made = Made(tmp_path)
    made.copy("mrcz-archive/journal.jsonl", b"{}")
    made.copy("s/a", b"x")
    for status in ("done", "skipped"):
        assert {one.status for one in given(made, out)} == {status}
    made.close()


def test_holes_stay_holes(tmp_path, out):
    made = Made(tmp_path)
    original = made.file("s/sparse", b"")
    with open(original, "r+b") as file:
        file.write(b"begin")
        file.seek(40 << 20)
        file.write(b"middle")
        file.truncate(60 << 20)
    place = made.root / made.path_of("s/sparse")
    shutil.copyfile(original, place)
    made.add(made.base("s/sparse", "s/data/sparse", "copy"))
    (one,) = given(made, out)
    assert one.identical and one.nbytes == 60 << 20
    status = (out / "s/sparse").stat()
    assert status.st_size == 60 << 20
    if original.stat().st_blocks * 512 < 20 << 20:  # this disk has holes
        assert status.st_blocks * 512 < 20 << 20
    made.close()


def test_permissions_are_given_but_no_rights_of_others(tmp_path, out):
    made = Made(tmp_path)
    path = made.file("s/script", b"#!")
    os.chmod(path, 0o4751)
    place = made.path_of("s/script")
    (made.root / place).write_bytes(b"#!")
    made.add(made.base("s/script", place, "copy"))
    given(made, out)
    assert stat.S_IMODE((out / "s/script").stat().st_mode) == 0o751
    made.close()


def test_times_that_no_file_has(tmp_path, out):
    made = Made(tmp_path)
    made.copy("s/a", b"x")
    made.close()
    record = json.loads(made.lines.read_text())
    made.lines.write_text(json.dumps({**record, "mtime_ns": 2**62, "mode": 2**40}) + "\n")
    with Journal(made.root) as journal:
        assert [one.ok for one in restore(Folder(made.root), journal, out)] == [True]


def test_a_place_that_is_no_folder(made, out):
    assert all(one.ok for one in given(made, out, place=Shelf(made.root)))
    assert (out / "s1/counted.mrc").read_bytes() == (made.source / "s1/counted.mrc").read_bytes()


def test_links_that_lead_out_are_made_and_said(made, out):
    made.link("s2/far", "../../../etc/passwd")
    (one,) = given(made, out, "s2/far")
    assert os.readlink(out / "s2/far") == "../../../etc/passwd" and "outside" in one.notes[0]


_SCRIPT = """
import sys
from mrcz.archive.journal import Journal
from mrcz.archive.place import Folder
from mrcz.archive.restoring import restore
with Journal(sys.argv[1]) as journal:
    open(sys.argv[3], "w").close()
    for one in restore(Folder(sys.argv[1]), journal, sys.argv[2]):
        assert one.ok, one
"""


def test_killed_again_and_again_it_goes_on(tmp_path, rng, out):
    made = Made(tmp_path)
    for k in range(12):
        made.packed(f"s/m{k}.mrc", movie(rng, (20, 64, 64)))
    made.close()
    random.seed(4)
    for k in range(6):
        ready = tmp_path / f"ready {k}"
        process = forked.start(_SCRIPT, made.root, out, ready)
        while not ready.exists() and process.is_alive():
            time.sleep(0.001)
        time.sleep(random.uniform(0.005, 0.06))
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        whole = {path.name for path in out.rglob("*.mrc") if not path.name.startswith(".")}
        assert all((out / "s" / name).read_bytes() == (made.source / "s" / name).read_bytes() for name in whole)
    with Journal(made.root) as journal:
        assert all(one.identical for one in restore(Folder(made.root), journal, out))
    assert {path.name for path in out.rglob("m*.mrc")} == {f"m{k}.mrc" for k in range(12)}


def test_real_files(tmp_path, some_data_dir, out):
    made = Made(tmp_path)
    found = [path for path in sorted(some_data_dir.rglob("*")) if path.is_file() and path.stat().st_size < 200_000][:20]
    for k, path in enumerate(found):
        made.copy(f"s{k % 3}/{path.name}", path.read_bytes())
    results = given(made, out)
    assert len(results) == len({one.source for one in results}) > 5 and all(one.identical for one in results)
    assert tree(out) == tree(made.source)
    made.close()


@pytest.mark.parametrize("later", ["file", "folder"])
def test_a_file_that_became_a_folder_and_the_other_way_round(tmp_path, out, later):
    """The tree is what it was last; the other is there, and is given back if it is asked for."""
    from mrcz.archive.archiving import archive

    src, dst = tmp_path / "source", tmp_path / "archive"
    (src / "s").mkdir(parents=True)
    for turn in ("folder", "file") if later == "file" else ("file", "folder"):
        path = src / "s/x"
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        if turn == "folder":
            path.mkdir()
            path = path / "inside"
        path.write_text(turn)
        (src / "s/y").write_text(f"{turn}s")
        assert archive(src, dst).ok
    with Journal(dst) as journal:
        results = {one.source: one for one in restore(Folder(dst), journal, out)}
        lost = "s/x" if later == "folder" else "s/x/inside"
        assert [name for name, one in results.items() if not one.ok] == [lost]
        assert results[lost].status == "refused" and "by its name, elsewhere" in results[lost].error
        assert tree(out) == tree(src)
        alone = {one.source: one for one in restore(Folder(dst), journal, tmp_path / "other", [lost])}
        assert alone[lost].ok and (tmp_path / "other" / lost).read_text() != later


@pytest.mark.parametrize("name", ["s1", "s1/data", "s1/data/grid"])
def test_nothing_is_given_back_from_behind_a_link(made, out, tmp_path, name):
    shutil.move(made.root / name, tmp_path / "elsewhere")
    (made.root / name).symlink_to(tmp_path / "elsewhere")
    (one,) = given(made, out, "s1/grid/movie.mrc")
    assert (one.status, one.damaged) == ("failed", True) and "symbolic link" in one.error
    assert not (out / "s1/grid/movie.mrc").exists()


@pytest.mark.parametrize("name", ["s1/grid/movie.mrc", "s2/notes.txt", "s2/stack.npy"])
def test_what_was_written_is_read_back(made, out, monkeypatch, name):
    """A disk that keeps other bytes than it was given."""

    def flipped(self, fd):
        os.fsync(fd)
        first = os.pread(fd, 1, 3)
        os.pwrite(fd, bytes([first[0] ^ 1]), 3)

    monkeypatch.setattr("mrcz.storage.disk.Disk.fsync", flipped)
    (one,) = given(made, out, name)
    assert (one.status, one.identical, one.damaged) == ("failed", None, False), one  # the archive is not to blame
    assert "gave back other bytes" in one.error
    assert not [path for path in out.rglob("*") if path.is_file()]


def test_pixels_take_the_name_of_no_other_file(made, out, rng):
    made.copy("s2/stack.npy.mrc", b"a file of its own")
    for overwrite in (True, False):
        results = given(made, out, "s2/*", overwrite=overwrite)
        assert all(one.ok for one in results), results
        assert (out / "s2/stack.npy.mrc").read_bytes() == b"a file of its own"
        np.testing.assert_array_equal(mrcz.read(out / "s2/stack.npy.mrc.mrc"), np.load(made.source / "s2/stack.npy"))


def test_nothing_is_written_into_the_archive_from_above_it(made, tmp_path):
    """`mrcz restore dst .`, of a tree in which a folder was called dst."""
    made.copy("dst/mrcz-archive/journal.jsonl", b"not this one")
    made.copy("dst/s1/data/grid/movie.mrcz", b"nor this")
    made.copy("other", b"fine")
    before = made.lines.read_bytes(), (made.root / "s1/data/grid/movie.mrcz").read_bytes()
    results = given(made, tmp_path, "dst", "other", overwrite=True)
    assert {one.source: one.status for one in results} == {
        "dst/mrcz-archive/journal.jsonl": "refused",
        "dst/s1/data/grid/movie.mrcz": "refused",
        "other": "done",
    }
    assert (made.lines.read_bytes(), (made.root / "s1/data/grid/movie.mrcz").read_bytes()) == before
