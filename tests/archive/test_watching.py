"""Following a tree while it is written: by real writers, with real clocks; long times by a clock of our own."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from watched import looks, make

import mrcz.archive.watching as watching
from mrcz.archive.server_clock import ServerClock
from mrcz.archive.watching import Watch, is_being_copied, parse_until

SETTLE, INTERVAL = 0.3, 0.05


class Archive:
    """What is in the archive: what `known` asks."""

    def __init__(self):
        self.files = {}

    def __call__(self, source):
        return self.files.get(source)

    def store(self, found):
        for one in found:
            self.files[one.source] = (one.size, one.mtime_ns)


@pytest.fixture
def archive():
    return Archive()


@pytest.fixture
def watch(tmp_path, clock, archive):
    (tmp_path / "top").mkdir()
    return Watch(tmp_path / "top", archive, settle=4, interval=1, monotonic=clock)


@pytest.fixture
def top(watch, tmp_path):
    return tmp_path / "top"


def test_a_file_is_taken_once_when_it_stood_still(watch, top, clock):
    make(top / "s" / "a.mrc")
    assert watch.look() == []
    assert looks(watch, clock, 3) == []
    assert watch.waiting == 1
    clock.now += 1
    (found,) = watch.look()
    status = os.stat(top / "s" / "a.mrc")
    assert (found.source, found.kind, found.size, found.mtime_ns) == ("s/a.mrc", "file", 1, status.st_mtime_ns)
    assert found.mode == status.st_mode & 0o777 and found.inode is None
    assert looks(watch, clock, 200) == []
    assert watch.waiting == 0


def test_a_file_that_grows_waits(watch, top, clock):
    path = make(top / "a.mrc")
    watch.look()
    for size in range(2, 8):
        assert looks(watch, clock, 3) == []
        path.write_bytes(b"x" * size)
    assert looks(watch, clock, 4) == []
    assert looks(watch, clock, 1) == ["a.mrc"]


def test_a_file_of_the_same_size_and_other_time_waits_and_so_does_another_file_in_its_place(watch, top, clock):
    path = make(top / "a.mrc")
    watch.look()
    clock.now += 3
    watch.look()
    os.utime(path, ns=(1, 1))
    watch.look()
    assert looks(watch, clock, 3) == []
    other = make(top / "b.mrc.tmp")
    os.utime(other, ns=(1, 1))
    os.replace(other, path)  # size and time are the same
    assert looks(watch, clock, 4) == []
    assert looks(watch, clock, 1) == ["a.mrc"]


@pytest.mark.parametrize("seconds", [-86400 * 365 * 30, 86400 * 365])
def test_times_of_the_past_and_future_say_nothing(watch, top, clock, seconds):
    watch.look()
    path = make(top / "a.mrc")
    os.utime(path, (time.time() + seconds,) * 2)
    assert looks(watch, clock, 4) == []
    assert looks(watch, clock, 1) == ["a.mrc"]


def test_clocks_that_are_set_say_nothing(watch, top, clock, monkeypatch):
    make(top / "a.mrc")
    watch.look()
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert looks(watch, clock, 3) == []
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert looks(watch, clock, 1) == ["a.mrc"]


def test_a_folder_of_more_names_than_are_looked_at_together(watch, top, clock, monkeypatch):
    monkeypatch.setattr(watching, "_CHUNK", 3)
    paths = [make(top / "s" / f"{k}.mrc") for k in range(10)]
    watch.look()
    assert sorted(looks(watch, clock, 5)) == [f"s/{k}.mrc" for k in range(10)]
    paths[4].unlink()
    make(top / "s" / "new.mrc")
    assert looks(watch, clock, 10) == ["s/new.mrc"]


@pytest.fixture
def aged(tmp_path, clock, archive):
    """A watch that knows the server's clock: the archive lies in the file system of the source."""
    (tmp_path / "top").mkdir()
    (tmp_path / "archive").mkdir()
    server = ServerClock(tmp_path / "archive", distrust=100, monotonic=time.monotonic)
    return Watch(tmp_path / "top", archive, settle=100, interval=1, clock=server, monotonic=clock)


def hour_old(path):
    os.utime(path, (time.time() - 3600,) * 2)


def test_what_was_old_before_the_first_look_is_taken_at_the_second(aged, tmp_path, clock):
    old, new = make(tmp_path / "top" / "old.mrc"), make(tmp_path / "top" / "new.mrc")
    hour_old(old)
    assert aged.look() == []
    assert aged.look() == []  # at once is no second look
    assert looks(aged, clock, 1) == ["old.mrc"]
    assert looks(aged, clock, 98) == []
    assert looks(aged, clock, 1) == ["new.mrc"]
    assert new.exists()
    assert os.listdir(tmp_path / "archive") == []


def test_of_what_appears_or_changes_later_the_age_says_nothing(aged, tmp_path, clock):
    growing = make(tmp_path / "top" / "growing.mrc")
    hour_old(growing)
    aged.look()
    growing.write_bytes(b"more")
    hour_old(growing)  # rsync does so
    later = make(tmp_path / "top" / "later.mrc")
    hour_old(later)
    assert looks(aged, clock, 100) == []
    assert sorted(looks(aged, clock, 1)) == ["growing.mrc", "later.mrc"]


def test_of_another_file_system_the_age_says_nothing(aged, tmp_path, clock):
    hour_old(make(tmp_path / "top" / "old.mrc"))
    aged._clock.now()
    aged._clock.now = lambda: time.time_ns()
    aged._clock.device = -1
    aged.look()
    assert looks(aged, clock, 99) == []
    assert looks(aged, clock, 1) == ["old.mrc"]


def test_the_source_is_never_written_to(tmp_path, clock, archive):
    top = tmp_path / "top"
    make(top / "s" / "a.mrc")
    hour_old(top / "s" / "a.mrc")
    os.chmod(top / "s", 0o500)
    os.chmod(top, 0o500)
    before = os.stat(top).st_mtime_ns, os.stat(top / "s").st_mtime_ns, os.stat(top / "s" / "a.mrc")
    try:
        watch = Watch(top, archive, settle=4, clock=ServerClock(tmp_path, distrust=4), monotonic=clock)
        watch.look()
        assert looks(watch, clock, 1) == ["s/a.mrc"]
        after = os.stat(top).st_mtime_ns, os.stat(top / "s").st_mtime_ns, os.stat(top / "s" / "a.mrc")
        assert before == after
    finally:
        os.chmod(top, 0o700)
        os.chmod(top / "s", 0o700)


def test_what_grows_again_is_taken_anew_and_waits_longer(watch, top, clock, archive):
    path = make(top / "log.txt")
    watch.look()
    assert looks(watch, clock, 4) == ["log.txt"]
    archive.files["log.txt"] = (1, os.stat(path).st_mtime_ns)
    assert looks(watch, clock, 20) == []
    path.write_bytes(b"xy")
    assert looks(watch, clock, 8) == []
    assert looks(watch, clock, 1) == ["log.txt"]
    path.write_bytes(b"xyz")  # before it is stored
    assert looks(watch, clock, 14) == []
    assert looks(watch, clock, 4) == ["log.txt"]


def test_what_grows_long_after_it_was_taken_is_found_in_a_round(watch, top, clock, archive):
    path = make(top / "s" / "a.mrc")
    watch.look()
    clock.now += 4
    archive.store(watch.look())
    assert looks(watch, clock, 400) == []
    before = os.stat(top / "s").st_mtime_ns
    with open(path, "ab") as file:
        file.write(b"more")
    assert os.stat(top / "s").st_mtime_ns == before
    assert looks(watch, clock, 40) == ["s/a.mrc"]


def test_a_restart_goes_on_where_the_journal_is(watch, top, clock, archive):
    for name in "abc":
        make(top / "s" / name)
    watch.look()
    clock.now += 4
    found = watch.look()
    archive.store(found[:2])
    again = Watch(top, archive, settle=4, interval=1, monotonic=clock)
    again.look()
    assert looks(again, clock, 10) == [found[2].source]


def test_what_failed_is_given_again_only_when_it_is_asked_for_or_changes(watch, top, clock):
    path = make(top / "a.mrc")
    watch.look()
    assert looks(watch, clock, 4) == ["a.mrc"]
    assert looks(watch, clock, 500) == []  # not in the archive, and not changed
    watch.forget("a.mrc")
    assert looks(watch, clock, 6) == ["a.mrc"]
    path.write_bytes(b"other")
    assert looks(watch, clock, 40) == ["a.mrc"]
    watch.forget("nothing/of/this/name")


def test_files_that_vanish_or_get_another_name(watch, top, clock):
    make(top / "s" / "gone.mrc")
    make(top / "s" / "old.mrc")
    make(top / "t" / "x.mrc")
    watch.look()
    clock.now += 2
    os.unlink(top / "s" / "gone.mrc")
    os.rename(top / "s" / "old.mrc", top / "s" / "new.mrc")
    os.rename(top / "t", top / "u")
    watch.look()
    assert looks(watch, clock, 3) == []
    assert sorted(looks(watch, clock, 2)) == ["s/new.mrc", "u/x.mrc"]
    assert watch.waiting == 0 and watch.problems == {}


def test_a_file_that_vanishes_from_a_quiet_folder(watch, top, clock):
    path = make(top / "a.mrc")
    watch.look()
    for _ in range(50):  # it never stands still, and its folder does
        clock.now += 1
        os.utime(path, ns=(int(clock.now),) * 2)
        assert watch.look() == []
    assert watch.waiting == 1
    os.unlink(path)
    looks(watch, clock, 1)
    assert watch.waiting == 0


@pytest.mark.parametrize(
    "name",
    [
        "a.mrc.tmp",
        "a.mrc.part",
        "a.mrc.filepart",
        ".a.mrc.Ab12Cd",
        "a.TMP",
        "a.partial",
        ".nfs000000000123",
        ".a.mrcz.0123abcd.part",
        "a.mrc~",
        os.fsdecode(b".\xff\n.mrc.zZ09aB"),
    ],
)
def test_names_of_what_is_incomplete_are_left_alone_until_they_have_their_own(watch, top, clock, name):
    assert is_being_copied(name)
    try:
        make(top / name)
    except OSError as error:
        pytest.skip(str(error))
    watch.look()
    assert looks(watch, clock, 100) == []
    os.rename(top / name, top / "a.mrc")
    assert looks(watch, clock, 6) == ["a.mrc"]


@pytest.mark.parametrize(
    "name", ["a.mrc", ".hidden", "a.tmp.mrc", "part", "tmp", "a.b.Ab12Cd", "nfs0123", "a.mrc.partly"]
)
def test_other_names_are_not(name):
    assert not is_being_copied(name)


def test_hostile_names_and_links(watch, top, clock, tmp_path):
    names = ["a b", "ü.mrc", "100%.mrc", "x\ny", "-rf", "$(touch x)", os.fsdecode(b"\xff\xfe.mrc")]
    for name in names:
        try:
            make(top / "s" / name)
        except OSError as error:
            pytest.skip(str(error))
    os.symlink("/", top / "s" / "root")
    os.symlink(top, top / "s" / "loop")
    os.symlink("a b", top / "s" / "link")
    os.mkfifo(top / "s" / "fifo")
    watch.look()
    assert sorted(looks(watch, clock, 10)) == sorted(f"s/{name}" for name in names)


def test_a_source_that_is_a_link_is_followed(top, clock, archive, tmp_path):
    make(top / "s" / "a")
    os.symlink(top, tmp_path / "link")
    watch = Watch(tmp_path / "link", archive, settle=4, interval=1, monotonic=clock)
    watch.look()
    assert looks(watch, clock, 5) == ["s/a"] and watch.problems == {}
    looks(watch, clock, 400)
    make(top / "s" / "b")
    assert looks(watch, clock, 6) == ["s/b"] and watch.problems == {}


@pytest.mark.parametrize("later", [1, 400])
def test_a_folder_that_becomes_a_link_leads_nowhere(watch, top, clock, tmp_path, later):
    make(tmp_path / "outside" / "below" / "secret")
    make(top / "s" / "below" / "a")
    watch.look()
    looks(watch, clock, later)
    os.rename(top / "s", tmp_path / "moved")
    os.symlink(tmp_path / "outside", top / "s")
    make(tmp_path / "moved" / "below" / "b")
    assert looks(watch, clock, 100) == []
    assert watch.problems == {} and watch.waiting == 0


def test_hard_links_say_so(watch, top, clock):
    os.link(make(top / "a"), top / "b")
    watch.look()
    clock.now += 5
    a, b = watch.look()
    assert a.inode == b.inode is not None


def test_what_is_to_be_left_out(top, clock, archive):
    make(top / "keep" / "a")
    make(top / "not" / "b")
    make(top / "keep" / "c.txt")
    watch = Watch(
        top,
        archive,
        settle=1,
        monotonic=clock,
        skip=lambda source, is_folder: source == "not" or source.endswith("txt"),
    )
    watch.look()
    assert looks(watch, clock, 60) == ["keep/a"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_is_told_and_looked_at_again(watch, top, clock):
    make(top / "s" / "a")
    os.chmod(top / "s", 0)
    watch.look()
    assert list(watch.problems) == ["s"]
    os.chmod(top / "s", 0o700)
    watch.look()
    assert watch.problems == {}
    assert looks(watch, clock, 5) == ["s/a"]


def test_a_source_that_goes_away_comes_back(watch, top, clock, archive):
    make(top / "s" / "a")
    make(top / "s" / "b")
    watch.look()
    clock.now += 4
    archive.store(watch.look()[:1])
    os.rename(top, top.with_name("away"))
    assert looks(watch, clock, 30) == []
    assert "" in watch.problems
    os.rename(top.with_name("away"), top)
    assert looks(watch, clock, 30) == []  # one is stored, the other was given
    make(top / "s" / "c")
    assert looks(watch, clock, 30) == ["s/c"]
    assert watch.problems == {}


def test_more_files_than_are_watched_at_a_time_all_come(top, clock, archive, monkeypatch):
    monkeypatch.setattr(watching, "_MOST", 50)
    for number in range(300):
        make(top / f"s{number % 3}" / f"{number:03d}")
    watch = Watch(top, archive, settle=2, interval=1, monotonic=clock, batch=40)
    found = []
    for _ in range(100):
        clock.now += 1
        batch = watch.look()
        assert len(batch) <= 40 and watch.waiting <= 50
        archive.store(batch)
        found += [one.source for one in batch]
    assert len(found) == len(set(found)) == 300


def test_what_is_new_does_not_wait_for_all_that_lay_there(top, clock, archive):
    for number in range(100):
        hour_old(make(top / "old" / f"{number:03d}"))
    watch = Watch(top, archive, settle=4, interval=1, monotonic=clock, idle=0, batch=10)
    watch.look()
    clock.now += 4
    archive.store(found := watch.look())
    assert len(found) == 10 and watch.waiting == 90
    assert watch.pause() == 0 and watch.ended() == ""
    make(top / "new" / "movie.mrc")
    watch.look()
    clock.now += 4
    assert watch.look()[-1].source == "new/movie.mrc"
    for _ in range(7):  # 101 files, 30 of which were given
        found = watch.look()
    assert len(found) == 10
    assert len(watch.look()) == 1
    assert watch.waiting == 0 and watch.look() == []


def test_what_changes_while_it_waits_its_turn_is_not_given_as_it_was(top, clock, archive):
    for number in range(3):
        make(top / f"{number}")
        os.utime(top / f"{number}", (number + 1000,) * 2)
    watch = Watch(top, archive, settle=4, interval=1, monotonic=clock, batch=1)
    watch.look()
    clock.now += 4
    assert [one.source for one in watch.look()] == ["2"]
    make(top / "0", b"longer")
    os.utime(top / "0", (900,) * 2)
    given = []
    for _ in range(20):
        clock.now += 1
        given += [(one.source, one.size) for one in watch.look()]
    assert given == [("1", 1), ("0", 6)]


def test_a_folder_that_changes_twice_in_one_step_of_its_time_hides_nothing(watch, top, clock):
    make(top / "s" / "a")
    status = os.stat(top / "s")
    watch.look()
    make(top / "s" / "b")
    os.utime(top / "s", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert sorted(looks(watch, clock, 8)) == ["s/a", "s/b"]


def test_it_ends_when_nothing_is_new(top, clock, archive):
    watch = Watch(top, archive, settle=4, interval=1, idle=30, monotonic=clock)
    make(top / "a")
    looks(watch, clock, 20)
    assert watch.ended() == ""
    make(top / "b")
    looks(watch, clock, 25)
    assert watch.ended() == ""
    looks(watch, clock, 10)
    assert watch.ended() == "idle"


def test_it_does_not_end_while_a_file_is_being_written(top, clock, archive):
    watch = Watch(top, archive, settle=50, interval=1, idle=5, monotonic=clock)
    make(top / "a")
    looks(watch, clock, 40)
    assert watch.ended() == ""
    looks(watch, clock, 12)
    assert watch.ended() == "idle"


def test_it_ends_at_a_time_and_by_a_signal(top):
    started = time.monotonic()
    batches = list(Watch(top, settle=0, interval=0.05, until=time.time() + 0.4))
    assert 0.3 < time.monotonic() - started < 2 and len(batches) >= 3
    watch = Watch(top, settle=0, interval=100)
    threading.Timer(0.3, watch.stop).start()
    started = time.monotonic()
    assert list(watch) == [[]]
    assert time.monotonic() - started < 2 and watch.ended() == "stopped"


def test_a_signal_ends_the_waiting(tmp_path):
    code = f"""
import signal
from mrcz.archive.watching import Watch
watch = Watch({str(tmp_path)!r}, interval=60)
signal.signal(signal.SIGTERM, lambda *_: watch.stop())
print("go", flush=True)
for found in watch: pass
print(watch.ended())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "go\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=10)
    assert out == "stopped\n" and process.returncode == 0


WRITER = """
    import os, sys, time
    top = sys.argv[1]
    for number in range(4):
        final = f"{top}/g{number % 2}/movie_{number}.mrc"
        os.makedirs(os.path.dirname(final), exist_ok=True)
        name = final + ".part" if number == 3 else final
        with open(name, "wb") as file:
            for frame in range(6):
                before = time.time()
                file.write(os.urandom(20_000)); file.flush()
                print(os.path.relpath(final, top), before, time.time(), flush=True)
                time.sleep(0.05)
        os.rename(name, final)
"""


def test_a_real_writer_is_followed_and_no_file_is_taken_while_it_is_written(tmp_path):
    watch, given = Watch(tmp_path, settle=SETTLE, interval=INTERVAL, idle=3), []
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        for batch in watch:
            given += [(one.source, one.size, time.time()) for one in batch]
        writes = [line.split() for line in process.stdout]
    assert len(writes) == 24
    last = {source: float(after) for source, _, after in writes}
    # Where the machine is so busy that the writer stands still for as long as we wait, a file is taken, and taken anew.
    assert {source: size for source, size, _ in given} == dict.fromkeys(last, 120_000)
    for source, _, taken in given:
        began = [float(before) for name, before, after in writes if name == source and float(after) < taken]
        assert taken - max(began) >= SETTLE * 0.9
    for source, _, taken in given[-4:]:
        assert taken - last[source] < 10


def test_times_at_which_it_ends():
    now = time.mktime((2026, 11, 27, 17, 30, 0, 0, 0, -1))
    assert parse_until("18:00", now) == now + 1800
    assert parse_until("17:30", now) == now + 86400
    assert parse_until(" 2026-11-27 18:00", now) == parse_until("2026-11-27T18:00", now) == now + 1800
    assert parse_until("2026-11-27T18:00:00+00:00", now) == pytest.approx(1795802400)
    for text in ("", "24:00", "18:60", "soon", "2026-13-01", "18"):
        with pytest.raises(ValueError, match="is no time: write 18:00, or 2026-11-28T06:00"):
            parse_until(text, now)
    with pytest.raises(ValueError, match="is over"):
        parse_until("2026-11-27T17:00", now)


@pytest.mark.parametrize("wrong", [{"settle": -1}, {"interval": float("nan")}, {"idle": -0.1}])
def test_wrong_seconds_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match="number of seconds"):
        Watch(tmp_path, **wrong)


def test_a_batch_of_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 1 file"):
        Watch(tmp_path, batch=0)
