"""Bags of sessions, judged by the programs that others have: the bagit package and sha256sum."""

import json
import logging
import os
import re
import shutil
import subprocess
import tracemalloc

import pytest
from made_archive import ODD_NAMES, TIME, Made, Shelf, movie, sha256

from mrcz.archive.bag import LEFT_OUT, MANIFEST, RECORDS, TAGS, bag_faults, orphans, unseal, write_bag
from mrcz.archive.journal import Journal
from mrcz.archive.place import Folder
from mrcz.archive.record import Record

SHA256SUM = shutil.which("sha256sum")


@pytest.fixture
def bagit():
    module = pytest.importorskip("bagit", reason="the bagit package is not installed")
    logging.getLogger("bagit").setLevel(logging.CRITICAL)
    return module


def sha256sum(folder, sums):
    if SHA256SUM is None:
        pytest.skip("no sha256sum here")
    done = subprocess.run([SHA256SUM, "--strict", "-c", sums], cwd=folder, capture_output=True)
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    )


def test_the_bagit_package_takes_it_for_valid(made, bagit):
    for session in made.journal.state.sessions():
        assert write_bag(Folder(made.root), made.journal, session).status == "written"
        bag = bagit.Bag(str(made.root / session))
        bag.validate()
        bag.validate(fast=True)
        assert bag.info["Payload-Oxum"] == _oxum(made.root / session)
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", bag.info["Bagging-Date"])


def _oxum(folder):
    files = [path for path in (folder / "data").rglob("*") if path.is_file()]
    return f"{sum(path.stat().st_size for path in files)}.{len(files)}"


def test_bagit_sees_what_is_wrong(made, bagit):
    write_bag(Folder(made.root), made.journal, "s1")
    path = made.root / "s1/data/grid/movie.mrcz"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    assert not bagit.Bag(str(made.root / "s1")).is_valid()


def test_sha256sum_checks_manifest_tags_and_originals(made):
    for session in ("s1", "s2", "_loose"):
        write_bag(Folder(made.root), made.journal, session)
        for sums in (MANIFEST, "tagmanifest-sha256.txt"):
            done = sha256sum(made.root / session, sums)
            assert done.returncode == 0, done.stderr
        done = sha256sum(made.source, made.root / session / "originals-sha256.txt")
        assert done.returncode == 0, done.stderr
    (made.source / "loose.txt").write_bytes(b"other\n")
    assert sha256sum(made.source, made.root / "_loose/originals-sha256.txt").returncode == 1


def test_files_whose_pixels_alone_come_back_are_comments(made):
    write_bag(Folder(made.root), made.journal, "s2")
    lines = (made.root / "s2/originals-sha256.txt").read_text().splitlines()
    assert [line[-12:] for line in lines if line.startswith("# ")] == ["s2/stack.npy"]


def test_odd_names_pass_both_programs(tmp_path, bagit):
    made = Made(tmp_path)
    for k, name in enumerate(ODD_NAMES):
        made.copy(f"s/{name}", b"%d" % k)
    made.journal.close()
    with Journal(made.root) as journal:
        done = write_bag(Folder(made.root), journal, "s")
    assert done.ok and done.files == len(ODD_NAMES)
    bagit.Bag(str(made.root / "s")).validate()
    assert sha256sum(made.root / "s", MANIFEST).returncode == 0
    checked = sha256sum(made.source, made.root / "s/originals-sha256.txt")
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.count("OK") == len(ODD_NAMES)


def test_names_that_no_manifest_holds_are_listed_apart(tmp_path, bagit):
    made = Made(tmp_path)
    (made.root / "s/data").mkdir(parents=True)
    for name in ["fine", "a\nb", "trailing ", "no \udcff utf8"]:  # as a driver without safe names would call them
        (made.root / "s/data" / name).write_bytes(b"x")
        made.file(f"s/{name}", b"x")
        made.add(made.base(f"s/{name}", f"s/data/{name}", "copy"))
    done = write_bag(Folder(made.root), made.journal, "s")
    assert (done.ok, done.left_out, done.files) == (False, 3, 4) and done.notes
    assert sha256sum(made.root / "s", MANIFEST).returncode == 0
    checked = sha256sum(made.root / "s", LEFT_OUT)
    assert checked.returncode == 0 and checked.stdout.count("OK") == 3
    assert "Mrcz-Not-In-Manifest: 3 files" in (made.root / "s/bag-info.txt").read_text()
    made.close()


def test_only_what_changed_is_written_anew(made, rng):
    folder = made.root / "s1"
    write_bag(Folder(made.root), made.journal, "s1", date="2020-01-01")
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.is_file()}
    assert write_bag(Folder(made.root), made.journal, "s1").status == "unchanged"
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.is_file()} == before
    made.packed("s1/third.mrc", movie(rng))
    assert write_bag(Folder(made.root), made.journal, "s1", date="2020-01-02").status == "written"
    after = {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.is_file()}
    assert after["bagit.txt"] == before["bagit.txt"] and after[MANIFEST] != before[MANIFEST]
    assert "Bagging-Date: 2020-01-02" in (folder / "bag-info.txt").read_text()
    (folder / "bag-info.txt").write_text("nonsense")
    assert write_bag(Folder(made.root), made.journal, "s1").status == "written"


class Killed(BaseException):
    pass


def test_killed_at_any_step_it_is_valid_or_has_no_manifest(made, bagit, rng):
    """Every call that changes the place is the last one, once."""
    folder = made.root / "s1"
    write_bag(Folder(made.root), made.journal, "s1", date="2020-01-01")
    made.packed("s1/third.mrc", movie(rng))
    unseal(Folder(made.root), "s1")  # as the driver does before it stores

    class Mortal(Folder):
        left = 0

        def _step(self):
            if self.left == 0:
                raise Killed
            Mortal.left -= 1

        def write_from(self, path, file):
            self._step()
            super().write_from(path, file)

        def remove(self, path):
            self._step()
            super().remove(path)

    steps = 0
    while True:
        Mortal.left = steps
        try:
            write_bag(Mortal(made.root), made.journal, "s1", date=f"2020-02-{steps + 1:02d}")
            break
        except Killed:
            steps += 1
            if (folder / MANIFEST).exists():
                bagit.Bag(str(folder)).validate()
    bagit.Bag(str(folder)).validate()
    assert steps >= 3


def test_a_session_without_files_has_no_bag(made):
    made.folder("bare/x")
    assert write_bag(Folder(made.root), made.journal, "bare").status == "empty"
    assert not (made.root / "bare").exists()


def test_records_of_the_session_travel_with_it(made):
    write_bag(Folder(made.root), made.journal, "s2")
    records = [json.loads(line) for line in (made.root / "s2" / RECORDS).read_text().splitlines()]
    assert {record["source"]: record["event"] for record in records} == {
        "s2/stack.npy": "stored",
        "s2/notes.txt": "stored",
        "s2/empty": "stored",
        "s2/latest": "link",
        "s2/void": "folder",
        "s2/locked.mrc": "failed",
    }


def test_a_bag_says_which_originals_were_removed(made):
    made.add(Record("removed", "s2/notes.txt", "s2", time=TIME))
    write_bag(Folder(made.root), made.journal, "s2")
    records = [json.loads(line) for line in (made.root / "s2" / RECORDS).read_text().splitlines()]
    events = [record["event"] for record in records if record["source"] == "s2/notes.txt"]
    assert events == ["stored", "removed"]
    made.copy("s2/notes.txt", b"there again")
    write_bag(Folder(made.root), made.journal, "s2")
    assert '"removed"' not in (made.root / "s2" / RECORDS).read_text()


@pytest.mark.parametrize("forged", [{"mtime_ns": 5}, {"camera": "K9"}, {"mode": 0}])
def test_what_no_file_shows_is_told_where_the_bag_says_otherwise(made, forged):
    write_bag(Folder(made.root), made.journal, "s1")
    first, *others = made.lines.read_text().splitlines(keepends=True)
    made.lines.write_text(json.dumps({**json.loads(first), **forged}) + "\n" + "".join(others))
    with Journal(made.root) as journal:
        assert [one[0] for one in bag_faults(Folder(made.root), journal, "s1")] == [f"s1/{RECORDS}"]


def test_tags_that_agree_with_one_another_and_not_with_the_journal(made):
    """As bagit would take them for valid, or not look at them."""
    write_bag(Folder(made.root), made.journal, "s1")
    tags, info = made.root / "s1/tagmanifest-sha256.txt", made.root / "s1/bag-info.txt"
    text = info.read_text().replace("Payload-Oxum: ", "Payload-Oxum: 1")
    tags.write_text(tags.read_text().replace(sha256(info), sha256(text.encode())))
    info.write_text(text)
    ((path, what, *_),) = bag_faults(Folder(made.root), made.journal, "s1")
    assert path == "s1/bag-info.txt" and "payload" in what
    write_bag(Folder(made.root), made.journal, "s1")
    tags.write_text("".join(line for line in tags.read_text().splitlines(True) if "README" not in line))
    (made.root / "s1/README.txt").unlink()
    assert [one[:2] for one in bag_faults(Folder(made.root), made.journal, "s1")] == [
        ("s1/README.txt", "is not in tagmanifest-sha256.txt")
    ]


def test_a_gain_reference_is_in_the_manifest_once(made):
    write_bag(Folder(made.root), made.journal, "s1")
    lines = (made.root / "s1" / MANIFEST).read_text().splitlines()
    assert sum("mrcz-gains/" in line for line in lines) == 1
    assert len({line.split("  ")[1] for line in lines}) == len(lines)


def test_orphans_are_listed_and_left(made):
    place = Folder(made.root)
    assert list(orphans(place, made.journal, "s1")) == []
    left = made.root / "s1/data/grid/.movie.mrcz.0123abcd.part"
    left.write_bytes(b"half")
    (made.root / "s1/data/MOVIE2.mrcz").write_bytes(b"x")
    (made.root / "s1/data/grid/MOVIE.mrcz").write_bytes(b"x")  # not grid/movie.mrcz, on this disk
    if len(list((made.root / "s1/data/grid").iterdir())) < 4:
        pytest.skip("this disk does not tell a from A")
    assert sorted(orphans(place, made.journal, "s1")) == [
        "s1/data/MOVIE2.mrcz",
        "s1/data/grid/.movie.mrcz.0123abcd.part",
        "s1/data/grid/MOVIE.mrcz",
    ]
    assert left.exists()
    done = write_bag(place, made.journal, "s1")
    assert (done.ok, done.n_orphans) == (False, 3) and "in no record" in done.notes[0]


def test_faults_of_a_bag_are_named(made):
    place = Folder(made.root)
    assert next(bag_faults(place, made.journal, "s1"))[0] == f"s1/{MANIFEST}"
    write_bag(place, made.journal, "s1")
    assert list(bag_faults(place, made.journal, "s1")) == []
    (made.root / "s1/README.txt").write_text("other")
    (made.root / "s1/bag-info.txt").unlink()
    with open(made.root / "s1" / MANIFEST, "a") as file:
        file.write(f"{'0' * 64}  data/../../../etc/passwd\n")
    found = {fault[0] for fault in bag_faults(place, made.journal, "s1")}
    assert found == {"s1/README.txt", "s1/bag-info.txt", f"s1/{MANIFEST}"}


def test_a_place_that_is_no_folder(made):
    shelf = Shelf(made.root)
    assert write_bag(shelf, made.journal, "s1").status == "written"
    assert write_bag(shelf, made.journal, "s1").status == "unchanged"
    assert {path for path in shelf.held if path.count("/") == 1 and path.startswith("s1/")} == {
        f"s1/{name}" for name in TAGS if name != LEFT_OUT
    }
    assert list(orphans(shelf, made.journal, "s1")) == [] == list(bag_faults(shelf, made.journal, "s1"))


def test_memory_does_not_grow_with_the_files(tmp_path):
    made = Made(tmp_path)
    digest = "ab" * 32
    for k in range(6000):
        made.journal.append(
            Record("stored", f"s/f{k:06d}", "s", f"s/data/f{k:06d}", "copy", "file", "", 1, 1, 0, 0, digest, digest)
        )
    tracemalloc.start()
    done = write_bag(Folder(made.root), made.journal, "s")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    made.close()
    assert done.files == 6000 and os.path.getsize(made.root / "s" / MANIFEST) > 450_000
    assert peak < 3 << 19  # its files are more than that
