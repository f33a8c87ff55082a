"""A tree becomes an archive: killed at any instant and run again, nothing is lost, half done or done twice."""

import hashlib
import json
import os
import random
import shutil
import time
from dataclasses import replace
from pathlib import Path

import forked
import mrcfile
import numpy as np
import pytest

import mrcz
from mrcz.archive.archiving import Archiving, archive
from mrcz.archive.description import read_description
from mrcz.archive.journal import FOLDER, JOURNAL, Journal, read_journal
from mrcz.archive.local import Threads
from mrcz.archive.store import store
from mrcz.archive.task import Options
from mrcz.errors import MrczError
from mrcz.storage.disk import Disk
from mrcz.storage.whole import NewFile


def records(dst):
    with Journal(dst) as journal:
        return {record.source: record for record in journal.records()}


def lines(dst):
    return list(read_journal(dst / FOLDER / JOURNAL))


def check_whole(src, dst):
    """Every file of the source is in the archive, proven by other means than the archive's own."""
    known = records(dst)
    seen = set()
    for folder, _, names in os.walk(src):
        for name in names:
            path = os.path.join(folder, name)
            source = os.path.relpath(path, src)
            record = known[source]
            seen.add(source)
            if os.path.islink(path):
                assert (record.event, record.target) == ("link", os.readlink(path))
                continue
            data = Path(path).read_bytes()
            assert record.sha256_source == hashlib.sha256(data).hexdigest()
            place = dst / (known[record.target].path if record.form == "same" else record.path)
            if record.form == "copy":
                assert place.read_bytes() == data
            elif record.restores == "file":
                out = dst.parent / "given back"
                mrcz.decompress(place, out, overwrite=True)
                assert out.read_bytes() == data
    hidden = [path for path in dst.rglob(".*.part")] + [path for path in dst.rglob(".*.orig")]
    assert hidden == []
    return seen


def files(top):
    return sorted(str(path.relative_to(top)) for path in top.rglob("*") if path.is_file() and not path.is_symlink())


def test_a_tree(mixed, tmp_path):
    dst = tmp_path / "archive"
    told = []
    before = {path: (mixed / path).read_bytes() for path in files(mixed)}
    outcome = archive(mixed, dst, told=told.append, workers=2)
    assert outcome.ok and (outcome.stored, outcome.links, outcome.already) == (12, 2, 0)
    assert len(check_whole(mixed, dst)) == 13 and len(told) == 14
    assert {path: (mixed / path).read_bytes() for path in files(mixed)} == before
    forms = {record.source: record.form for record in records(dst).values() if record.form}
    assert forms["s1/movies/floats.mrc"] == "integers" and forms["s1/movies/counts.mrc"] == "same"
    assert outcome.bags == ("_loose", "s1", "s2") and (dst / "s1/manifest-sha256.txt").exists()
    assert read_description(str(dst))["source"] == str(mixed)

    again = archive(mixed, dst)
    assert (again.stored, again.already, again.bags) == (0, 14, ())
    assert len(lines(dst)) == 14


def test_what_is_new_and_what_changed(mixed, tmp_path):
    dst = tmp_path / "archive"
    archive(mixed, dst)
    (mixed / "s2/new.txt").write_text("new")
    mrcz.write(mixed / "s2/noise.mrc", np.zeros((2, 48, 40), "f4"), overwrite=True)
    (mixed / "loose.log").unlink()
    outcome = archive(mixed, dst)
    assert (outcome.stored, outcome.changed, outcome.bags) == (2, 1, ("s2",))
    check_whole(mixed, dst)
    assert records(dst)["s2/noise.mrc"].changed and (dst / "_loose/data/loose.log").exists()


def test_a_change_of_form_leaves_nothing_behind(mixed, tmp_path):
    dst = tmp_path / "archive"
    archive(mixed, dst)
    assert (dst / "s2/data/noise.mrcz").exists()
    (mixed / "s2/noise.mrc").write_text("no movie any more")
    archive(mixed, dst)
    assert not (dst / "s2/data/noise.mrcz").exists() and (dst / "s2/data/noise.mrc").exists()
    check_whole(mixed, dst)


def test_what_went_away_from_the_archive_is_made_again(mixed, tmp_path):
    dst = tmp_path / "archive"
    archive(mixed, dst)
    (dst / "s1/data/movies/shorts.mrcs.mrcz").unlink()
    os.truncate(dst / "s2/data/noise.mrcz", 100)
    outcome = archive(mixed, dst)
    assert (outcome.stored, outcome.changed) == (2, 0)
    check_whole(mixed, dst)


def test_second_names_when_the_first_fails(mixed, tmp_path):
    """Hard links of a file that could not be stored under its first name are stored themselves."""
    dst = tmp_path / "archive"

    def work(task, tell, flow):
        record = store(task, tell, flow)
        if task.source.endswith("again.mrc"):
            (dst / record.path).unlink()
            from dataclasses import replace

            return replace(record, event="failed", reason="file", error="for a test", path="")
        return record

    with Archiving(mixed, dst) as run:
        outline, executor = run.plan(), Threads(1, work=work)
        run.work(outline, executor)
        executor.close()
        outline.close()
    known = records(dst)
    assert known["s1/movies/counts.mrc"].form == "mrcz" and "s1/movies/again.mrc" not in known


def test_passing_failures_are_tried_once_more(mixed, tmp_path):
    dst = tmp_path / "archive"
    tried = []

    def work(task, tell, flow):
        tried.append(task.source)
        if task.source == "loose.log" and tried.count("loose.log") == 1:
            os.utime(mixed / "loose.log", ns=(1, 1))
        if task.source == "s2/noise.mrc":
            os.utime(mixed / "s2/noise.mrc", ns=(1, len(tried)))

            def tell(done, total):
                os.utime(mixed / "s2/noise.mrc", ns=(1, 1000 + done))

        return store(task, tell, flow)

    with Archiving(mixed, dst) as run:
        outline, executor = run.plan(), Threads(2, work=work)
        run.work(outline, executor)
        executor.close()
        outline.close()
        assert run.outcome.failed == 1 and run.outcome.problems[0][0] == "s2/noise.mrc"
    assert tried.count("s2/noise.mrc") == 2 and tried.count("s1/movies/shorts.mrcs") == 1
    assert lines(dst)[-1].reason == "changing"
    assert archive(mixed, dst).ok
    check_whole(mixed, dst)


def test_originals_go_after_their_record_is_on_the_disk(mixed, tmp_path, monkeypatch):
    dst = tmp_path / "archive"
    before = {path: (mixed / path).read_bytes() for path in files(mixed)}
    synced = []

    class Watching(Disk):
        def fsync(self, fd):
            super().fsync(fd)
            synced.append(os.path.getsize(dst / FOLDER / JOURNAL))

    monkeypatch.setattr(Journal, "disk", Watching())
    gone = []

    def unlink(self, path):
        gone.append((path.name, synced[-1]))
        os.unlink(path)

    monkeypatch.setattr(NewFile, "disk", type("D", (Disk,), {"unlink": unlink})())
    outcome = archive(mixed, dst, remove=True)
    assert outcome.ok and outcome.removed == 12 and files(mixed) == []
    journal = (dst / FOLDER / JOURNAL).read_bytes()
    originals = [(name, durable) for name, durable in gone if name.endswith(".orig")]
    assert len(originals) == 12
    for name, durable in originals:
        original = name[1:].rsplit(".", 2)[0]
        assert any(json.loads(line)["source"].endswith(original) for line in journal[:durable].splitlines())
    known = records(dst)
    for path, data in before.items():
        assert known[path].sha256_source == hashlib.sha256(data).hexdigest()
    assert sum(line.event == "removed" for line in lines(dst)) == 12
    again = archive(mixed, dst, remove=True)
    assert again.ok and (again.stored, again.removed) == (0, 0)


def test_originals_that_are_not_given_back_stay(tmp_path):
    src, dst = tmp_path / "source", tmp_path / "archive"
    src.mkdir()
    import tifffile

    pixels = np.random.default_rng(0).poisson(1, (2, 64, 64)).astype("u1")
    tifffile.imwrite(src / "a.tif", pixels, compression="zlib")
    outcome = archive(src, dst, options=Options("mrcz"), remove=True)
    (record,) = records(dst).values()
    assert (src / "a.tif").exists() == (record.restores == "pixels") and outcome.stored == 1


@pytest.mark.parametrize("harm", ["flipped", "forged", "gain"])
def test_an_original_stays_if_what_an_earlier_run_stored_is_not_whole(mixed, tmp_path, harm):
    """Its size is as it was: the run itself would take it for stored."""
    dst = tmp_path / "archive"
    assert archive(mixed, dst).ok
    known, before = records(dst), files(mixed)
    stays = {"s1/movies/counts.mrc", "s1/movies/again.mrc"}
    if harm == "flipped":
        place = dst / known["s1/movies/again.mrc"].path  # of both names
        data = bytearray(place.read_bytes())
        data[len(data) // 2] ^= 1
        place.write_bytes(data)
    elif harm == "forged":  # all of one are said to lie where another lies
        stays = {"loose.log"}
        other = known["s1/.hidden"]
        record = replace(known["loose.log"], stored_bytes=other.stored_bytes, path=other.path)
        with open(dst / FOLDER / JOURNAL, "ab") as file:
            file.write(record.to_line())
    else:
        stays = {"s1/movies/floats.mrc"}
        ((part, _, size),) = known["s1/movies/floats.mrc"].parts
        (dst / part).write_bytes(b"x" * size)
    told = []
    outcome = archive(mixed, dst, remove=True, told=told.append)
    assert set(files(mixed)) == stays and outcome.removed == len(before) - len(stays) and not outcome.ok
    assert {source for source, _ in outcome.problems} == stays == {one.source for one in told if one.event == "failed"}
    assert all("was not removed" in error for _, error in outcome.problems)


# --- wrong folders


def test_wrong_folders(mixed, tmp_path):
    with pytest.raises(MrczError, match="may not lie in"):
        archive(mixed, mixed / "archive")
    with pytest.raises(MrczError, match="may not lie in"):
        archive(mixed, mixed)
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.doc").write_text("mine")
    with pytest.raises(MrczError, match="is not empty"):
        archive(mixed, tmp_path / "home")
    assert os.listdir(tmp_path / "home") == ["thesis.doc"]
    with pytest.raises(FileNotFoundError):
        archive(tmp_path / "missing", tmp_path / "x")
    with pytest.raises(NotADirectoryError):
        archive(mixed / "loose.log", tmp_path / "x")
    assert not (tmp_path / "x").exists()
    archive(mixed, tmp_path / "archive")
    (tmp_path / "other").mkdir()
    with pytest.raises(MrczError, match=r"is an archive of .*source, not of .*other"):
        archive(tmp_path / "other", tmp_path / "archive")
    with pytest.raises(MrczError, match="lies in the archive"):
        archive(tmp_path / "archive/s1", tmp_path / "archive")
    mixed.rename(tmp_path / "renamed")
    assert archive(tmp_path / "renamed", tmp_path / "archive", moved=True).already == 14


def test_what_killed_runs_left_beside_the_journal_goes(mixed, tmp_path):
    dst = tmp_path / "archive"
    assert archive(mixed, dst).ok
    before = sorted(os.listdir(dst / FOLDER))
    for name in ("summary.json", "report.html", "archive.json"):
        NewFile(dst / FOLDER / name, overwrite=True).close()  # as the end of a process leaves it
    assert len(os.listdir(dst / FOLDER)) == len(before) + 3
    assert archive(mixed, dst).already == 14
    assert sorted(os.listdir(dst / FOLDER)) == before


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"mrcz_archive": "1", "source": "a", "depth": 1}',
             '{"mrcz_archive": 1, "source": 5, "depth": 1}', '{"mrcz_archive": 1, "source": "a", "depth": 1e9}',
             '{"mrcz_archive": 1, "source": "a", "depth": 100000}', "[" * 100000]
)  # fmt: skip
def test_a_forged_description(mixed, tmp_path, text):
    (tmp_path / "archive" / FOLDER).mkdir(parents=True)
    (tmp_path / "archive" / FOLDER / "archive.json").write_text(text)
    with pytest.raises(MrczError, match="does not describe an archive"):
        archive(mixed, tmp_path / "archive")


def test_a_newer_archive(mixed, tmp_path):
    (tmp_path / "archive" / FOLDER).mkdir(parents=True)
    said = json.dumps({"mrcz_archive": 2, "source": str(mixed), "depth": 1})
    (tmp_path / "archive" / FOLDER / "archive.json").write_text(said)
    with pytest.raises(MrczError, match="a newer mrcz"):
        archive(mixed, tmp_path / "archive")


def test_two_at_once(mixed, tmp_path):
    with Archiving(mixed, tmp_path / "archive"):
        with pytest.raises(MrczError, match="another process works on this archive"):
            Archiving(mixed, tmp_path / "archive")
    assert archive(mixed, tmp_path / "archive").ok


def test_what_cannot_be_stored_is_written_down_once(mixed, tmp_path):
    os.mkfifo(mixed / "s1/fifo")
    for _ in range(2):
        outcome = archive(mixed, tmp_path / "archive")
        assert not outcome.ok and outcome.problems == [("s1/fifo", "is a FIFO, a device or a socket")]
    assert sum(line.event == "refused" for line in lines(tmp_path / "archive")) == 1


def test_odd_names(tmp_path):
    src, dst = tmp_path / "source", tmp_path / "archive"
    names = [
        "a b",
        "é",
        "e\u0301",
        "100%",
        "%25",
        "new\nline",
        "-rf",
        "*",
        "A",
        "a",
        "'\"",
        "\\x",
        "~",
        "con",
        "x" * 255,
    ]
    for folder in ("s", "s 2\n"):
        (src / folder).mkdir(parents=True)
        for name in names:
            (src / folder / name).write_text(name)
    try:
        open(os.fsencode(src) + b"/s/\xff", "wb").close()
    except OSError:
        pass
    outcome = archive(src, dst)
    assert outcome.ok
    check_whole(src, dst)
    assert archive(src, dst).already == outcome.stored


# --- second names


def test_a_second_name_keeps_what_the_first_one_was(tmp_path):
    src, dst = tmp_path / "source", tmp_path / "archive"
    (src / "s").mkdir(parents=True)
    first = src / "s/a.mrc"
    mrcfile.write(first, np.random.default_rng(0).poisson(1, (4, 32, 32)).astype("i1"))
    old = first.read_bytes()
    for name in ("b.mrc", "c.mrc"):
        (src / "s" / name).hardlink_to(first)
    archive(src, dst)
    (src / "s/new").write_bytes(b"another file")
    (src / "s/new").replace(first)
    (src / "s/b.mrc").unlink()  # what is in the archive of it is all that there is
    (src / "s/c.mrc").unlink()
    assert archive(src, dst).changed == 1
    known = records(dst)
    assert known["s/a.mrc"].sha256_source == hashlib.sha256(b"another file").hexdigest()
    assert (known["s/b.mrc"].form, known["s/c.mrc"].form, known["s/c.mrc"].target) == ("mrcz", "same", "s/b.mrc")
    mrcz.decompress(dst / known["s/b.mrc"].path, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == old
    again = archive(src, dst)
    assert (again.stored, again.already) == (0, 1)


def test_a_first_name_that_becomes_a_second_one(tmp_path):
    src, dst = tmp_path / "source", tmp_path / "archive"
    (src / "s").mkdir(parents=True)
    (src / "s/b").write_bytes(b"data")
    (src / "s/c").hardlink_to(src / "s/b")
    archive(src, dst)
    (src / "s/a").hardlink_to(src / "s/b")
    os.utime(src / "s/a", ns=(5, 5))
    (src / "s/c").unlink()
    assert archive(src, dst).ok
    known = records(dst)
    assert (known["s/b"].form, known["s/b"].target, known["s/c"].form) == ("same", "s/a", "copy")
    assert (dst / known["s/a"].path).read_bytes() == (dst / known["s/c"].path).read_bytes() == b"data"
    assert sorted(files(dst / "s/data")) == ["a", "b"]


def test_an_original_that_is_gone_already_was_removed(tmp_path):
    src, dst = tmp_path / "source", tmp_path / "archive"
    (src / "s").mkdir(parents=True)
    (src / "s/a").write_bytes(b"data")

    def work(task, tell, flow):
        record = store(task, tell, flow)
        (src / "s/a").unlink()  # by somebody else
        return record

    with Archiving(src, dst, remove=True) as run:
        outline, executor = run.plan(), Threads(1, work=work)
        run.work(outline, executor)
        executor.close()
        outline.close()
        assert run.outcome.ok and run.outcome.problems == []


def test_a_second_name_goes_only_when_the_first_is_there(tmp_path):
    src, dst = tmp_path / "source", tmp_path / "archive"
    (src / "s").mkdir(parents=True)
    (src / "s/a").write_bytes(b"data")
    (src / "s/b").hardlink_to(src / "s/a")
    archive(src, dst)
    (dst / "s/data/a").unlink()
    (src / "s/a").unlink()
    outcome = archive(src, dst, remove=True)
    assert (outcome.stored, outcome.removed) == (1, 1)
    assert (dst / records(dst)["s/b"].path).read_bytes() == b"data"


def test_a_new_name_of_a_stored_file_is_a_second_one(tmp_path):
    src, dst = tmp_path / "source", tmp_path / "archive"
    (src / "s").mkdir(parents=True)
    (src / "s/b").write_bytes(b"data")
    (src / "s/b").chmod(0o600)
    archive(src, dst)
    (src / "s/c").hardlink_to(src / "s/b")
    assert archive(src, dst).stored == 1
    assert (records(dst)["s/c"].form, records(dst)["s/c"].target) == ("same", "s/b")


# --- what killed runs leave


def test_an_older_version_stays_until_the_new_one_is_written_down(tmp_path):
    src, dst = tmp_path / "source", tmp_path / "archive"
    (src / "s").mkdir(parents=True)
    (src / "s/a.txt").write_text("old")
    archive(src, dst)
    (src / "s/a.txt").write_text("newer")

    def work(task, tell, flow):
        store(task, tell, flow)
        raise KeyboardInterrupt  # as if killed here

    with pytest.raises(KeyboardInterrupt), Archiving(src, dst) as run:
        outline, executor = run.plan(), Threads(1, work=work)
        try:
            run.work(outline, executor)
        finally:
            executor.close()
            outline.close()
    assert sorted(path.read_text() for path in (dst / "s/data").iterdir()) == ["newer", "old"]
    (src / "s/a.txt").unlink()
    archive(src, dst)
    assert [path.read_text() for path in (dst / "s/data").iterdir()] == ["old"]
    assert (dst / records(dst)["s/a.txt"].path).read_text() == "old"


def test_temporary_files_of_bags_are_taken_away(mixed, tmp_path):
    dst = tmp_path / "archive"
    archive(mixed, dst)
    left = [dst / "s1/.manifest-sha256.txt.0123abcd.part", dst / FOLDER / ".summary.json.0123abcd.part"]
    for path in left:
        path.write_text("half")
    archive(mixed, dst)
    assert not any(path.exists() for path in left)


def test_an_original_that_was_set_aside_gets_its_name_back(mixed, tmp_path):
    dst = tmp_path / "archive"
    archive(mixed, dst)
    (mixed / "loose.log").rename(mixed / ".loose.log.0123abcd.orig")
    outcome = archive(mixed, dst, remove=True)
    assert outcome.ok and outcome.stored == 0 and files(mixed) == []
    assert not [source for source in records(dst) if source.endswith(".orig")]


def test_lost_gain_references_are_made_again(mixed, tmp_path):
    dst = tmp_path / "archive"
    archive(mixed, dst)
    (part,) = records(dst)["s1/movies/floats.mrc"].parts
    (dst / part[0]).unlink()
    assert archive(mixed, dst).stored == 1
    check_whole(mixed, dst)


def test_folders_that_became_empty_by_removal_are_no_news(mixed, tmp_path):
    dst = tmp_path / "archive"
    archive(mixed, dst, remove=True)
    before = len(lines(dst))
    assert archive(mixed, dst, remove=True).ok and len(lines(dst)) == before


def test_long_names_that_clash(tmp_path):
    """Where a number is appended, the name is cut to what disks take."""
    src, dst = tmp_path / "source", tmp_path / "archive"
    (src / "s").mkdir(parents=True)
    for name in ("x" * 255, "X" * 255, "é" * 127, "É" * 127, "y" * 251 + ".mrc", "Y" * 251 + ".mrc"):
        (src / "s" / name).write_text(name)
    if len(os.listdir(src / "s")) < 6:
        pytest.skip("this disk does not tell x from X")
    assert archive(src, dst).ok
    check_whole(src, dst)
    for path in (src / "s").iterdir():
        path.write_text("another text")
    assert archive(src, dst).ok
    check_whole(src, dst)


# --- kills

_RUN = """
import sys
from mrcz.archive.archiving import archive
archive(sys.argv[1], sys.argv[2], remove=len(sys.argv) > 3)
"""


def killed(mixed, dst, after, *more):
    """A run in a process of its own, killed `after` seconds after its first record; whether it was done before."""
    process = forked.start(_RUN, mixed, dst, *more)
    journal = dst / FOLDER / JOURNAL
    size = journal.stat().st_size if journal.exists() else 0
    until = time.monotonic() + 20
    while process.is_alive() and time.monotonic() < until:
        if journal.exists() and journal.stat().st_size > size:
            time.sleep(after)
            break
        time.sleep(0.0005)
    process.kill()
    process.join()
    return process.exitcode == 0


@pytest.mark.skipif(os.name == "nt", reason="no such signal")
@pytest.mark.parametrize("remove", [False, True])
def test_killed_again_and_again(tmp_path, rng, remove):
    src, dst = tmp_path / "source", tmp_path / "archive"
    chance = random.Random(1)
    for k in range(40):
        (src / f"s{k % 3}").mkdir(parents=True, exist_ok=True)
        counts = rng.poisson(1, (4, 100, 100))
        mrcfile.write(src / f"s{k % 3}/m{k}.mrc", counts.astype(np.int8 if k % 2 else np.float32))
        (src / f"s{k % 3}/m{k}.txt").write_text(f"notes {k}")
    before = {path: hashlib.sha256((src / path).read_bytes()).hexdigest() for path in files(src)}
    kills = 0
    for _ in range(12):
        if killed(src, dst, chance.random() * 0.05, *["remove"] * remove):
            break
        kills += 1
    assert kills >= 3
    outcome = archive(src, dst, remove=remove)
    assert outcome.ok
    known = records(dst)
    assert {path: known[path].sha256_source for path in before} == before
    if remove:
        assert files(src) == []
    else:
        check_whole(src, dst)
    stored = [line.source for line in lines(dst) if line.event == "stored"]
    assert len(stored) == len(set(stored)) == 80  # nothing was written down twice
    on_disk = {path for path in files(dst) if "/data/" in path}
    assert on_disk == {record.path for record in known.values()} | {part[0] for r in known.values() for part in r.parts}


def test_stopped_in_good_order(mixed, tmp_path):
    class EnoughError(BaseException):
        pass

    def tick():
        raise EnoughError

    with pytest.raises(EnoughError):
        archive(mixed, tmp_path / "archive", tick=tick)
    assert not list((tmp_path / "archive").rglob(".*.part"))
    assert archive(mixed, tmp_path / "archive").ok
    check_whole(mixed, tmp_path / "archive")


@pytest.mark.parametrize("name", ["s1", "s1/data", "s1/data/movies"])
def test_nothing_is_stored_behind_a_link(mixed, tmp_path, name):
    dst = tmp_path / "archive"
    assert archive(mixed, dst).ok
    shutil.move(dst / name, tmp_path / "elsewhere")
    (dst / name).symlink_to(tmp_path / "elsewhere")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "elsewhere").rglob("*")}
    try:
        outcome = archive(mixed, dst)
    except MrczError as error:  # the bag of the session, which is not written there either
        assert "symbolic link" in str(error)
    else:
        assert not outcome.ok and all("symbolic link" in error for _, error in outcome.problems)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "elsewhere").rglob("*")} == before
