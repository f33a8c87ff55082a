"""What is wrong with an archive is found and named; what is whole is said to be."""

import errno
import json
import os
import shutil
import threading

import numpy as np
import pytest
from made_archive import Made, Shelf, mixed, movie, sha256

from mrcz.archive.bag import write_bag
from mrcz.archive.checking import check
from mrcz.archive.journal import Journal
from mrcz.archive.place import Folder


@pytest.fixture
def made(tmp_path, rng):
    archive = mixed(tmp_path, rng)
    for session in archive.journal.state.sessions():
        write_bag(Folder(archive.root), archive.journal, session)
    yield archive
    archive.close()


def checked(made, place=None, **how):
    return list(check(place or Folder(made.root), made.journal, **how))


def wrong(made, **how):
    return {(one.path, one.finding) for one in checked(made, **how) if not one.ok}


def test_all_is_whole_and_decoded(made):
    found = checked(made)
    assert all(one.ok for one in found), [one for one in found if not one.ok]
    assert {one.source for one in found if one.form} == {
        "s1/grid/movie.mrc",
        "s1/grid/second.mrc",
        "s1/counted.mrc",
        "s1/again.mrc",
        "s2/stack.npy",
        "s2/notes.txt",
        "s2/empty",
        "loose.txt",
    }
    assert all(one.decoded for one in found if one.form not in ("", "same"))
    assert sum("mrcz-gains" in one.path for one in found) == 1


def test_fast_decodes_nothing(made, monkeypatch):
    def never(*args, **keywords):
        raise AssertionError("decoded")

    monkeypatch.setattr("mrcz.archive.checking.pieces", never)
    found = checked(made, fast=True)
    assert all(one.ok for one in found)
    assert {one.form for one in found if one.decoded} == {"copy"}  # whose checksum is its original's


@pytest.mark.parametrize("place", ["s1/data/grid/movie.mrcz", "s1/data/counted.mrcz", "s2/data/stack.npy.mrcz"])
@pytest.mark.parametrize("fast", [True, False])
def test_one_bit_is_noticed(made, place, fast):
    path = made.root / place
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    assert wrong(made, fast=fast) == {(place, "changed")}
    (one,) = [one for one in checked(made, fast=fast) if not one.ok]
    assert one.found == sha256(bytes(data)) and len(one.expected) == 64 and one.damaged


def test_missing_shorter_and_extra_files_are_named(made):
    os.unlink(made.root / "s1/data/grid/movie.mrcz")
    os.truncate(made.root / "s2/data/notes.txt", 2)
    (made.root / "s2/data/more.txt").write_bytes(b"")
    (made.root / "s2/data/.x.mrcz.01234567.part").write_bytes(b"")
    (made.root / "stray").write_bytes(b"")
    assert wrong(made) == {
        ("s1/data/grid/movie.mrcz", "missing"),
        ("s2/data/notes.txt", "changed"),
        ("s2/data/more.txt", "extra"),
        ("s2/data/.x.mrcz.01234567.part", "extra"),
        ("stray", "extra"),
    }
    (short,) = [one for one in checked(made) if one.path == "s2/data/notes.txt"]
    assert (short.expected, short.found) == ("6 bytes", "2 bytes")


def test_a_gain_reference_that_is_lost_or_changed(made):
    (gain,) = (made.root / "s1/data/mrcz-gains").iterdir()
    name = gain.relative_to(made.root).as_posix()
    kept = gain.read_bytes()
    gain.unlink()
    assert wrong(made) == {(name, "missing"), ("s1/data/counted.mrcz", "damaged")}
    gain.write_bytes(kept[:-40] + b"\0" * 40)
    assert (name, "changed") in wrong(made)


def test_checksums_that_fit_and_pixels_that_do_not(made):
    """A record of a file that decodes, to another original: its own checksum says nothing of that."""
    text = made.lines.read_text().splitlines(keepends=True)
    for k, line in enumerate(text):
        record = json.loads(line)
        if record.get("form") in ("mrcz", "integers"):
            record["sha256_source"] = "0" * 64
        if record.get("form") == "pixels":
            record["sha256_pixels"] = "0" * 64
        text[k] = json.dumps(record) + "\n"
    made.lines.write_text("".join(text))
    with Journal(made.root) as journal:
        found = {one.source: one.finding for one in check(Folder(made.root), journal, pattern="*")}
    assert found["s1/grid/movie.mrc"] == found["s1/counted.mrc"] == found["s2/stack.npy"] == "damaged"
    assert found["s2/notes.txt"] == "whole"


def test_a_second_name_of_what_was_stored_anew(made, rng):
    made.packed("s1/grid/movie.mrc", movie(rng))
    (second,) = [one for one in checked(made) if one.form == "same"]
    assert second.finding == "changed" and "stored anew" in second.error


def test_damaged_lines_of_the_journal(made):
    made.close()
    with open(made.lines, "ab") as file:
        file.write(b'{"event": "stored", "source": "../../etc/passwd"}\nnonsense\n{"event":"stored","sou')
    with Journal(made.root) as journal:
        found = [one for one in check(Folder(made.root), journal) if not one.ok]
    assert [one.finding for one in found] == ["journal", "journal"] and "line 12" in found[0].error


def test_records_that_say_too_little(tmp_path):
    made = Made(tmp_path)
    lines = [
        {"event": "stored", "source": "s/a", "session": "s", "form": "copy", "restores": "file"},
        {"event": "stored", "source": "s/b", "session": "s", "path": "s/data/b", "form": "unheard"},
    ]
    made.close()
    made.lines.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with Journal(made.root) as journal:
        assert [one.finding for one in check(Folder(made.root), journal, fast=True)][:2] == ["journal", "journal"]


def test_bags_are_compared_with_the_journal(made, rng):
    (made.root / "s1/manifest-sha256.txt").write_text("")
    (made.root / "s2/bagit.txt").unlink()
    assert wrong(made) == {("s1/manifest-sha256.txt", "bag"), ("s2/bagit.txt", "bag")}


def test_a_folder_in_the_place_of_a_file(made):
    os.unlink(made.root / "s2/data/notes.txt")
    (made.root / "s2/data/notes.txt").mkdir()
    assert {finding for path, finding in wrong(made) if path == "s2/data/notes.txt"} <= {"changed", "unreadable"}


def test_a_file_that_cannot_be_read_is_no_damage(made):
    class Failing(Folder):
        def open(self, path):
            if path == "s2/data/notes.txt":
                raise OSError(errno.EIO, os.strerror(errno.EIO), path)
            return super().open(path)

    (one,) = [one for one in checked(made, Failing(made.root)) if not one.ok]
    assert (one.path, one.finding, one.damaged) == ("s2/data/notes.txt", "unreadable", False)
    assert one.error == os.strerror(errno.EIO)


def test_a_sample_is_a_share_the_same_with_a_seed_and_never_nothing(tmp_path):
    made = Made(tmp_path)
    for k in range(300):
        made.journal.append(made.copy("s/one", b"x")) if k == 0 else None
        path = made.root / f"s/data/f{k}"
        path.write_bytes(b"%d" % k)
        (made.source / f"s/f{k}").write_bytes(b"%d" % k)
        made.journal.append(made.base(f"s/f{k}", f"s/data/f{k}", "copy"))
    some = [one.source for one in checked(made, sample=0.1, seed=1)]
    assert 10 <= len(some) <= 60
    assert some == [one.source for one in checked(made, sample=0.1, seed=1)]
    assert some != [one.source for one in checked(made, sample=0.1, seed=2)]
    lonely = {tuple(one.source for one in checked(made, sample=1e-9, seed=seed)) for seed in range(8)}
    assert all(len(one) == 1 for one in lonely) and len(lonely) > 1
    assert len(checked(made, sample=1.0)) == 301
    with pytest.raises(ValueError, match="sample"):
        checked(made, sample=0.0)
    made.close()


def test_only_what_a_pattern_means(made):
    assert {one.source for one in checked(made, pattern="grid/*")} == set()
    assert {one.source for one in checked(made, pattern="s1/grid/*")} == {"s1/grid/movie.mrc", "s1/grid/second.mrc"}
    assert {one.source for one in checked(made, pattern=["*.txt", "s2/empty"])} == {
        "s2/notes.txt",
        "s2/empty",
        "loose.txt",
    }


def test_a_place_that_is_no_folder(made):
    shelf = Shelf(made.root)
    found = checked(made, shelf)
    assert all(one.ok for one in found), [one for one in found if not one.ok]
    assert any(one.form == "integers" and one.decoded for one in found)
    del shelf.held["s2/data/empty"]
    assert [(one.path, one.finding) for one in checked(made, shelf) if not one.ok] == [("s2/data/empty", "missing")]


def test_progress_ends_with_all_that_is_stored(made):
    told = []
    found = checked(made, progress=lambda done, total: told.append((done, total, threading.get_ident())))
    assert told[-1][0] == told[-1][1] == sum(one.stored_bytes for one in found if one.form)
    assert {one[2] for one in told} == {threading.get_ident()}


def test_who_stops_listening_stops_the_work(made):
    found = check(Folder(made.root), made.journal, workers=2)
    next(found)
    found.close()
    before = threading.active_count()
    assert before <= 2


def test_what_is_no_mrcz_any_more(made):
    """Changed together with its record, as by somebody who knows how: it does not decode."""
    path = made.root / "s1/data/grid/movie.mrcz"
    for data in (b"", b"not at all", os.urandom(5000), np.zeros(4096, np.uint8).tobytes()):
        path.write_bytes(data)
        text = made.lines.read_text().splitlines(keepends=True)
        record = json.loads(text[0])
        record["stored_bytes"], record["sha256_stored"] = len(data), sha256(data)
        with open(made.lines, "w") as file:
            file.writelines([json.dumps(record) + "\n", *text[1:]])
        with Journal(made.root) as journal:
            (one,) = check(Folder(made.root), journal, pattern="s1/grid/movie.mrc")
        assert one.finding in ("damaged", "missing", "journal") and one.error


def test_it_is_the_same_archive_wherever_it_lies(made, tmp_path):
    made.close()
    shutil.move(made.root, tmp_path / "moved")
    with Journal(tmp_path / "moved") as journal:
        assert all(one.ok for one in check(Folder(tmp_path / "moved"), journal))
