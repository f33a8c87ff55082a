"""What is wrong with an archive is found and named; what is whole is said to be."""

import contextlib
import errno
import json
import os
import random
import shutil
import threading

import numpy as np
import pytest
from made_archive import Made, Shelf, movie, sha256

from mrcz.archive.bag import bag_faults, orphans, write_bag
from mrcz.archive.checking import check
from mrcz.archive.journal import Journal
from mrcz.archive.objects import ObjectStore
from mrcz.archive.opening import opened_archive
from mrcz.archive.place import Folder
from mrcz.archive.restoring import restore
from mrcz.archive.status import status
from mrcz.archive.table import export
from mrcz.errors import MrczError


@pytest.fixture
def made(made):
    """With its bags."""
    for session in made.journal.state.sessions():
        write_bag(Folder(made.root), made.journal, session)
    return made


def checked(made, place=None, **how):
    made.close()  # else it is one that is being written
    with Journal(made.root) as journal:
        return list(check(place or Folder(made.root), journal, **how))


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


def test_something_else_in_the_place_of_a_file(made):
    os.unlink(made.root / "s2/data/notes.txt")
    (made.root / "s2/data/notes.txt").mkdir()
    assert wrong(made) == {("s2/data/notes.txt", "missing")}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_nobody_waits_for_a_fifo(made):
    for name in ("s2/data/empty", "s2/bag-info.txt", "s2/manifest-sha256.txt"):
        os.unlink(made.root / name)
        os.mkfifo(made.root / name)
    assert {("s2/data/empty", "missing"), ("s2/manifest-sha256.txt", "bag")} <= wrong(made)
    with Journal(made.root) as journal, contextlib.suppress(OSError, MrczError):  # the place is taken
        write_bag(Folder(made.root), journal, "s2")
    os.unlink(made.lines)
    os.mkfifo(made.lines)
    with pytest.raises(MrczError, match="has lost its"), opened_archive(made.root):
        pass


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


def test_an_object_store(made, tmp_path):
    pytest.importorskip("fsspec")
    store = ObjectStore(f"memory://checked-{os.getpid()}/archive")
    for path in made.root.rglob("*"):
        if path.is_file():
            store.write(path.relative_to(made.root).as_posix(), path.read_bytes())
    with opened_archive(store) as (place, journal):
        found = list(check(place, journal))
        assert len(found) > 8 and all(one.ok for one in found), [one for one in found if not one.ok]
        assert all(one.ok for one in restore(place, journal, tmp_path / "out"))
        assert (tmp_path / "out/s1/counted.mrc").read_bytes() == (made.source / "s1/counted.mrc").read_bytes()
        store.remove("s2/data/notes.txt")
        store.write("s1/data/more", b"")
        assert {(one.path, one.finding) for one in check(place, journal) if not one.ok} == {
            ("s2/data/notes.txt", "missing"),
            ("s1/data/more", "extra"),
        }


def test_a_store_that_fails_in_its_own_way(made):
    class Odd(Shelf):
        def open(self, path):
            raise RuntimeError("connection pool is closed")

    found = list(check(Odd(made.root), made.journal, pattern="*.mrc"))
    found = [one for one in found if one.form != "same"]
    assert {one.finding for one in found} == {"unreadable"} and "pool" in found[0].error


def test_progress_ends_with_all_that_is_stored(made):
    told = []
    found = checked(made, progress=lambda done, total: told.append((done, total, threading.get_ident())))
    assert told[-1][0] == told[-1][1] == sum(one.stored_bytes for one in found if one.form)
    assert {one[2] for one in told} == {threading.get_ident()}


def test_while_another_process_archives(made, rng):
    """`made` holds the journal open and locked, as a run does: unfinished things are no faults."""
    pytest.importorskip("fcntl", reason="no locks here")
    (made.root / "s1/data/not yet written down").write_bytes(b"")
    (made.root / "s1/manifest-sha256.txt").unlink()
    with Journal(made.root) as journal:
        assert journal.is_written()
        results = check(Folder(made.root), journal, workers=1)
        first = next(results)
        made.packed("s1/grid/second.mrc", movie(rng, (9, 24, 32)))  # stored anew, after the journal was read
        made.copy("s2/notes.txt", b"other notes")
        assert all(one.ok for one in [first, *results])
    made.close()
    with Journal(made.root) as journal:
        assert not journal.is_written()
        wrong = {(one.path, one.finding) for one in check(Folder(made.root), journal) if not one.ok}
    assert ("s1/data/not yet written down", "extra") in wrong and ("s1/manifest-sha256.txt", "bag") in wrong


def test_who_stops_listening_stops_the_work(made):
    before = threading.active_count()
    found = check(Folder(made.root), made.journal, workers=2)
    next(found)
    assert threading.active_count() > before
    found.close()
    assert threading.active_count() == before


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


def _broken(rng, record):
    """A record with one thing changed, as a forger or a bad disk would."""
    odd = ["", "..", "/etc/passwd", "s1/data", "s1/data/../../x", "a\nb", "\udcff", "x" * 5000, "f" * 64]
    odd += ["mrcz-archive/journal.jsonl", "copy", "same", "pixels", "integers", "stored", "link"]
    odd += [0, -1, 2**62, 1.5, None, True, [], {}, ["a"]]
    record = dict(record)
    for _ in range(rng.randint(1, 3)):
        name = rng.choice([*record, "target", "parts", "session", "path", "form", "restores"])
        record[name] = rng.choice(odd)
    return record


def test_whatever_a_journal_says_nothing_breaks_and_nothing_is_made_elsewhere(made, tmp_path):
    made.close()
    records = [json.loads(line) for line in made.lines.read_text().splitlines()]
    outside = {path for path in tmp_path.rglob("*")}
    rng = random.Random(16)
    for number in range(60):
        lines = [json.dumps(_broken(rng, one) if rng.random() < 0.4 else one) for one in records]
        made.lines.write_text("\n".join(lines) + "\n")
        out = tmp_path / f"out{number % 4}"
        with Journal(made.root) as journal:
            place = Folder(made.root)
            list(check(place, journal, fast=bool(number % 2)))
            with contextlib.suppress(MrczError):  # where one before made an archive of it
                list(restore(place, journal, out, overwrite=True))
            status(journal)
            export(journal, out / "table.csv", overwrite=True)
            for session in journal.state.sessions():
                if session in ("s1", "s2", "_loose"):
                    with contextlib.suppress(MrczError):
                        list(bag_faults(place, journal, session))
                        list(orphans(place, journal, session))
    made_there = {path for path in tmp_path.rglob("*")} - outside
    assert all(path.relative_to(tmp_path).parts[0] in ("out0", "out1", "out2", "out3") for path in made_there)
    assert all(path.is_symlink() or path.resolve().is_relative_to(tmp_path) for path in made_there)


@pytest.mark.parametrize("name", ["s1", "s1/data", "s1/data/grid", "s1/data/mrcz-gains", "s1/data/grid/movie.mrcz"])
def test_a_link_in_the_archive_is_told_and_not_followed(made, tmp_path, name):
    """What it leads to may be the very files: they are none of this archive's."""
    path = made.root / name
    shutil.move(path, tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    for fast in (True, False):
        found = checked(made, fast=fast)
        missing = {one.path: one.error for one in found if one.finding == "missing"}
        with Journal(made.root) as journal:
            there = [record.path for record in journal.records() if record.form not in ("", "same")]
            there += [part[0] for part in journal.state.parts()]
        assert set(missing) == {one for one in there if f"{one}/".startswith(f"{name}/")}
        assert all("symbolic link" in error and str(path) in error for error in missing.values())
        assert all(one.damaged for one in found if one.finding == "missing")


@pytest.mark.parametrize("name", ["mrcz-archive", "mrcz-archive/journal.jsonl"])
def test_a_journal_behind_a_link_is_not_read(made, tmp_path, name):
    made.close()
    shutil.move(made.root / name, tmp_path / "elsewhere")
    (made.root / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MrczError, match="symbolic link"), opened_archive(made.root):
        pass
