"""Names are taken once, by whoever is first; what is replaced was judged, and stays where it must; files are private
until they have their name."""

import errno
import os
import stat
import sys
import threading

import forked
import numpy as np
import pytest

import mrcz
from mrcz import MrczError
from mrcz.storage.disk import Disk, standing
from mrcz.storage.whole import NewFile, remove_unchanged, remove_unfinished, whole_file

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


class NoRename(Disk):
    """A file system such as NFS, which knows no flags of rename."""

    def rename_new(self, source, target):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


class NoLink(NoRename):
    """One such as exFAT through FUSE, which knows no hard links either."""

    def link(self, source, target):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))


DISKS = [Disk, NoRename, NoLink]
every_disk = pytest.mark.parametrize("disk", DISKS)


def made(path, content, disk=None, **options):
    # alone=False: as on a file system without locks, where nobody knows of the other before it takes the name.
    new = NewFile(path, disk=disk and disk(), alone=False, **options)
    os.write(new.fd, content)
    return new


def put(path, content, disk=None, **options):
    new = made(path, content, disk, **options)
    try:
        new.publish()
    finally:
        new.abort()


@every_disk
def test_a_name_is_taken_once(tmp_path, disk):
    path = tmp_path / "a"
    first, second = made(path, b"first", disk), made(path, b"second", disk)
    first.publish()
    with pytest.raises(FileExistsError, match="a exists; pass overwrite=True"):
        second.publish()
    assert first.is_published() and not second.is_published()
    second.abort()
    first.close()
    assert path.read_bytes() == b"first" and os.listdir(tmp_path) == ["a"]


@every_disk
@forks
def test_of_many_processes_one_wins(tmp_path, disk):
    forked.call(__file__, "one_wins", tmp_path, disk.__name__)


def one_wins(tmp_path, name):
    path, disk = tmp_path / "a", globals()[name]
    for round_number in range(8):
        go_read, go_write = os.pipe()
        children = []
        for k in range(6):
            child = os.fork()
            if child == 0:
                code, new = 3, None
                try:
                    os.close(go_write)
                    new = made(path, b"%d" % k, disk)
                    os.read(go_read, 1)
                    new.publish()
                    code = 0
                except FileExistsError:
                    if new is not None:
                        new.abort()
                    code = 1
                finally:
                    os._exit(code)
            children.append(child)
        os.close(go_read)
        os.close(go_write)  # all at once
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        assert sorted(codes) == [0, 1, 1, 1, 1, 1], (round_number, codes)
        assert path.read_bytes() == b"%d" % codes.index(0)
        assert os.listdir(tmp_path) == ["a"]
        path.unlink()


@every_disk
@forks
def test_replacing_and_taking_do_not_lose_one_another(tmp_path, disk):
    """Those with overwrite may replace only what says so (b'old' or their own kind); those without never anything."""
    forked.call(__file__, "replace_and_take", tmp_path, disk.__name__)


def replace_and_take(tmp_path, name):
    path, disk = tmp_path / "a", globals()[name]

    def judge(there, new):
        if os.pread(there, 20, 0) not in (b"old", b"over", b""):
            raise MrczError("stays")

    for round_number in range(8):
        if round_number % 2:
            path.write_bytes(b"old")
        children = []
        for k in range(6):
            child = os.fork()
            if child == 0:
                code = 3
                try:
                    if k % 2:
                        new = made(path, b"over", disk, overwrite=judge)
                        new.publish()
                    else:
                        new = made(path, b"new%d" % k, disk)
                        new.publish()
                    code = 0
                except (FileExistsError, MrczError):
                    code = 1
                finally:
                    os._exit(code)
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        assert 3 not in codes
        winners = [k for k in (0, 2, 4) if codes[k] == 0]
        content = path.read_bytes()
        if winners:  # what was made under a free name is never replaced by those who may not
            assert len(winners) == 1 and content == b"new%d" % winners[0]
            assert not round_number % 2
        else:
            assert content == b"over"
        for name in os.listdir(tmp_path):
            os.unlink(tmp_path / name)  # children that were refused end without abort here


@every_disk
def test_what_stands_there_is_judged_and_kept(tmp_path, disk):
    path = tmp_path / "a"
    path.write_bytes(b"precious")

    def refuse(there, new):
        assert os.pread(there, 20, 0) == b"precious"
        raise MrczError("is precious")

    new = made(path, b"new", disk, overwrite=refuse)
    with pytest.raises(MrczError, match="precious"):
        new.publish()
    new.abort()
    assert path.read_bytes() == b"precious" and os.listdir(tmp_path) == ["a"]
    put(path, b"new", disk, overwrite=True)
    assert path.read_bytes() == b"new"


def test_a_file_in_use_is_not_replaced(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    new = made(path, b"new", overwrite=True)
    with standing(path) as held:
        assert held is not None
        with pytest.raises(MrczError, match="writing this file"):
            NewFile(path, overwrite=True)
        # Somebody who holds it for a moment only is waited for.
        waiting = threading.Thread(target=new.publish)
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive() and path.read_bytes() == b"old"
    waiting.join(10)
    new.close()
    assert path.read_bytes() == b"new"


def test_the_lock_is_on_the_file_that_has_the_name(tmp_path):
    """A file that was replaced while somebody waited for its lock is not the one to judge."""
    path = tmp_path / "a"
    path.write_bytes(b"first")
    seen = []
    new = made(path, b"third", overwrite=lambda there, new: seen.append(os.pread(there, 9, 0)))
    with standing(path):
        waiting = threading.Thread(target=new.publish)
        waiting.start()
        waiting.join(0.1)
        (tmp_path / "b").write_bytes(b"second")
        os.replace(tmp_path / "b", path)
    waiting.join(10)
    new.close()
    assert seen == [b"second"] and path.read_bytes() == b"third"


# ---- two writers of one new file ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("stands", "overwrite"), [(False, False), (False, True), (True, True)])
def test_a_second_writer_is_refused_when_it_opens(tmp_path, rng, overwrite, stands):
    """Not when it has written everything; and the first one's file stays what it is."""
    path = tmp_path / "a.mrcz"
    frames = rng.poisson(1, (4, 16, 16)).astype("u1")
    if stands:
        mrcz.write(path, frames[:1])
    with mrcz.Writer(path, overwrite=overwrite) as first:
        first.extend(frames[:2])
        for _before_and_after_a_flush in range(2):
            for again in (False, True):  # the second one's wish
                with pytest.raises((MrczError, FileExistsError), match=r"another process is writing|exists"):
                    mrcz.Writer(path, overwrite=again)
            with pytest.raises((MrczError, FileExistsError)), whole_file(path, overwrite=overwrite):
                pass
            first.extend(frames[2:3])
            first.flush()
        mrcz.write(tmp_path / "other.mrcz", frames)  # another name is free
        first.extend(frames[3:])
    assert np.array_equal(mrcz.read(path), np.concatenate([frames[:3], frames[2:3], frames[3:]]))
    assert sorted(os.listdir(tmp_path)) == ["a.mrcz", "other.mrcz"]
    mrcz.write(path, frames, overwrite=True)  # and so is this one again


@forks
def test_of_processes_that_begin_at_once_one_begins(tmp_path):
    forked.call(__file__, "one_begins", tmp_path)


def one_begins(tmp_path):
    path = tmp_path / "a"
    for round_number in range(15):
        go_read, go_write = os.pipe()
        done_read, done_write = os.pipe()
        children = []
        for _ in range(6):
            child = os.fork()
            if child == 0:
                code = 3
                try:
                    os.close(go_write)
                    os.close(done_write)
                    os.read(go_read, 1)
                    new = NewFile(path, overwrite=True)
                    os.read(done_read, 1)  # it has begun until all have tried
                    new.abort()
                    code = 0
                except MrczError as error:
                    code = 1 if "another process is writing this file" in str(error) else 2
                finally:
                    os._exit(code)
            children.append(child)
        os.close(go_read)
        os.close(done_read)
        os.close(go_write)
        refused = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(5)]
        os.close(done_write)
        last = os.waitstatus_to_exitcode(os.wait()[1])
        assert refused == [1] * 5 and last == 0, (round_number, refused, last)
        assert os.listdir(tmp_path) == []


@forks
def test_what_killed_writers_left_is_in_nobodys_way_and_stays(tmp_path):
    path = tmp_path / "a"
    for k in range(6):
        child = os.fork()
        if child == 0:
            new = NewFile(path)
            os.write(new.fd, b"frames %d" % k)
            os.kill(os.getpid(), 9)
        os.waitpid(child, 0)
    left = sorted(name.read_bytes() for name in tmp_path.iterdir())
    assert left == [b"frames %d" % k for k in range(6)]
    (kept,) = (name for name in tmp_path.iterdir() if name.read_bytes() == b"frames 2")
    kept.unlink()  # as `mrcz clean` may, in between
    with whole_file(path) as file:
        with pytest.raises(MrczError, match="another process is writing this file"):
            NewFile(path)
        file.write(b"whole")
    assert path.read_bytes() == b"whole" and len(os.listdir(tmp_path)) == 6


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
def test_what_lies_under_a_temporary_name_is_not_believed(tmp_path):
    """A FIFO that nobody opens, a link, a folder: no name for a new file, and none that is waited for."""
    path = tmp_path / "a"
    names = []
    for make in (os.mkfifo, lambda name: os.symlink("/dev/zero", name), os.mkdir):
        new = NewFile(path)
        names.append(new.temporary)
        new.abort()
        make(names[-1])
    assert len(set(names)) == 3
    with whole_file(path) as file:
        file.write(b"x")
    assert path.read_bytes() == b"x" and len(os.listdir(tmp_path)) == 4


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
@pytest.mark.parametrize("overwrite", [False, True])
def test_no_file_is_made_in_the_place_of_something_else(tmp_path, overwrite):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(MrczError, match="is a FIFO"):
        NewFile(tmp_path / "fifo", overwrite=overwrite)
    os.symlink(os.devnull, tmp_path / "null")
    with pytest.raises(MrczError, match="is a device"):
        NewFile(tmp_path / "null", overwrite=overwrite)
    with pytest.raises(IsADirectoryError):
        NewFile(tmp_path, overwrite=overwrite)
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode) and stat.S_ISCHR(os.stat(os.devnull).st_mode)
    for write in (lambda name: mrcz.write(name, np.zeros((2, 8, 8), "i2"), overwrite=overwrite),):
        with pytest.raises(MrczError, match="no file is made there"):
            write(tmp_path / "fifo")
    assert sorted(os.listdir(tmp_path)) == ["fifo", "null"]


def test_private_until_it_has_its_name(tmp_path):
    path = tmp_path / "a"
    before = os.umask(0o022)
    try:
        new = NewFile(path)
        assert stat.S_IMODE(new.temporary.stat().st_mode) == 0o600
        new.publish()
        new.close()
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        path.chmod(0o640)
        put(path, b"x", overwrite=True)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640  # as it was
    finally:
        os.umask(before)


@pytest.mark.parametrize("action", ["compress", "decompress"])
def test_the_copy_of_a_private_file_is_private_from_its_first_byte(tmp_path, monkeypatch, action):
    source, copy = tmp_path / "s.mrc", tmp_path / "s.mrcz"
    mrcz.write(source, np.zeros((2, 8, 8), "i2"))
    if action == "decompress":
        mrcz.compress(source, copy)
        source.unlink()
        source, copy = copy, source
    source.chmod(0o600)
    modes = []

    class Watching(Disk):
        def pwrite(self, fd, data, offset):
            modes.append(stat.S_IMODE(os.fstat(fd).st_mode))
            return super().pwrite(fd, data, offset)

        def rename_new(self, old, new):
            modes.append(stat.S_IMODE(os.stat(old).st_mode))
            super().rename_new(old, new)
            modes.append(stat.S_IMODE(os.stat(new).st_mode))

    monkeypatch.setattr("mrcz.file.growing.GrowingFile.disk", Watching())
    monkeypatch.setattr("mrcz.storage.whole.NewFile.disk", Watching())
    before = os.umask(0o022)
    try:
        getattr(mrcz, action)(source, copy)
    finally:
        os.umask(before)
    assert len(modes) >= 2 and set(modes) == {0o600}


def test_names_as_long_as_names_may_be(tmp_path):
    longest = os.pathconf(tmp_path, "PC_NAME_MAX") if hasattr(os, "pathconf") else 255
    for name in ("x" * longest, "µ" * (longest // 2)):
        put(tmp_path / name, b"x")
        assert (tmp_path / name).read_bytes() == b"x"


def test_whole_or_absent(tmp_path):
    path = tmp_path / "a"
    with pytest.raises(ZeroDivisionError), whole_file(path) as file:
        file.write(b"x")
        1 / 0  # noqa: B018
    assert os.listdir(tmp_path) == []
    with whole_file(path) as file:
        file.write(b"x")
        assert not path.exists()
    with pytest.raises(FileExistsError), whole_file(path) as file:
        pass
    assert path.read_bytes() == b"x" and os.listdir(tmp_path) == ["a"]


class LostAnswer(NoRename):
    """A server that makes the link, and whose answer is lost: asked again it says that the name is taken."""

    def link(self, source, target):
        os.link(source, target)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


def test_a_lost_answer_is_no_loss(tmp_path):
    put(tmp_path / "a", b"x", LostAnswer)
    assert (tmp_path / "a").read_bytes() == b"x" and os.listdir(tmp_path) == ["a"]


@forks
@pytest.mark.parametrize("ending", ["exit", "exception", "collected"])
@pytest.mark.parametrize("flushed", [False, True])
def test_a_forked_child_leaves_the_file_of_its_parent_alone(tmp_path, ending, flushed, rng):
    path = tmp_path / "a.mrcz"
    frames = rng.poisson(1, (6, 64, 64)).astype("u1")
    writer = mrcz.open(path, "w")
    writer.extend(frames[:2])
    if flushed:
        writer.flush()
    writer.extend(frames[2:4])
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if ending == "exception":
                writer.__exit__(ValueError, ValueError(), None)
            elif ending == "collected":
                writer.__del__()
            for work in (writer.flush, lambda: writer.append(frames[5])):
                try:
                    work()
                except MrczError:
                    continue
                os._exit(2)
            writer.close()
            writer.abort()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    writer.extend(frames[4:])
    writer.close()
    assert np.array_equal(mrcz.read(path), frames) and mrcz.verify(path).ok


@forks
def test_a_child_that_ends_normally(tmp_path, rng):
    """The whole of it in a program of its own: interpreter exit, with all its clean-up, in the child."""
    import subprocess

    script = f"""
import os, sys, numpy as np, mrcz
a = np.random.default_rng(0).poisson(1, (6, 64, 64)).astype("u1")
w = mrcz.open({str(tmp_path / "f.mrcz")!r}, "w"); w.extend(a[:2]); w.flush(); w.extend(a[2:4])
if os.fork() == 0: sys.exit(0)
os.wait(); w.extend(a[4:]); w.close()
assert np.array_equal(mrcz.read({str(tmp_path / "f.mrcz")!r}), a) and mrcz.verify({str(tmp_path / "f.mrcz")!r}).ok
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_frames_whose_name_was_taken_meanwhile_are_not_thrown_away(tmp_path, rng):
    path = tmp_path / "a.mrcz"
    frames = rng.poisson(1, (3, 16, 16)).astype("u1")
    writer = mrcz.Writer(path, overwrite=False)
    writer.extend(frames)
    mrcz.write(tmp_path / "b.mrcz", frames[:1])
    (tmp_path / "b.mrcz").rename(path)  # as another program would, which knows nothing of our temporary files
    with pytest.raises(FileExistsError, match="3 frames are whole, in") as caught:
        writer.close()
    kept = str(caught.value).rsplit("in ", 1)[1]
    assert np.array_equal(mrcz.read(kept), frames) and len(mrcz.read(path)) == 1


def test_what_is_appended_to_is_not_replaced(tmp_path, rng):
    path = tmp_path / "a.mrcz"
    frames = rng.poisson(1, (4, 16, 16)).astype("u1")
    mrcz.write(path, frames[:2])
    with mrcz.open(path, "a") as writer:
        writer.append(frames[2])
        with pytest.raises(MrczError, match="writing this file"):
            mrcz.write(path, frames, overwrite=True)
        with pytest.raises(MrczError, match="writing this file"):
            mrcz.open(path, "a")
        writer.append(frames[3])
    assert np.array_equal(mrcz.read(path), frames)


@every_disk
def test_an_original_that_is_replaced_while_it_goes_stays(tmp_path, disk):
    """By a program that knows no locks, in the instant between the last look and the removal."""
    path = tmp_path / "a"
    path.write_bytes(b"old")
    known = os.lstat(path)

    class Camera(disk):
        def replace(self, source, target):
            if source == path:  # it goes aside: just before that, the camera writes anew
                (tmp_path / "b").write_bytes(b"new")
                os.replace(tmp_path / "b", path)
            super().replace(source, target)

    def is_it(found):
        now = os.lstat(found)
        return (now.st_ino, now.st_size, now.st_mtime_ns) == (known.st_ino, known.st_size, known.st_mtime_ns)

    reason = remove_unchanged(path, is_it, Camera())
    assert "changed since it was read" in reason
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["a"]

    class Twice(Camera):  # and once more, when it goes back
        def rename_new(self, source, target):
            if str(source).endswith(".orig"):
                path.write_bytes(b"newest")
            super().rename_new(source, target)

    known = os.lstat(path)
    reason = remove_unchanged(path, is_it, Twice())
    (aside,) = tmp_path.glob(".a.*.orig")
    assert str(aside) in reason and aside.read_bytes() == b"new" and path.read_bytes() == b"newest"
    put(tmp_path / "c", b"x")
    assert remove_unchanged(tmp_path / "c", lambda found: True) is None and not (tmp_path / "c").exists()


def test_an_original_in_use_stays(tmp_path, monkeypatch):
    monkeypatch.setattr("mrcz.storage.disk.WAIT", 0.05)
    path = tmp_path / "a.mrc"
    mrcz.write(path, np.zeros((2, 8, 8), "i2"))
    with mrcz.open(path, "a") as writer:
        writer.append(np.ones((8, 8), "i2"))
        with pytest.raises(MrczError, match="writing this file"):
            remove_unchanged(path, lambda found: True)
    assert len(mrcz.read(path)) == 3


@forks
def test_a_signal_in_the_clean_up_leaves_nothing(tmp_path):
    """Whatever instant it comes at: what has no name yet goes."""
    new = made(tmp_path / "a", b"x")
    assert len(os.listdir(tmp_path)) == 1
    child = os.fork()
    if child == 0:
        remove_unfinished()  # not its own
        os._exit(0)
    os.waitpid(child, 0)
    assert len(os.listdir(tmp_path)) == 1
    remove_unfinished()
    assert os.listdir(tmp_path) == []
    new.abort()
    kept = made(tmp_path / "b", b"x")
    kept.close()  # left where it is, by intention
    remove_unfinished()
    assert len(os.listdir(tmp_path)) == 1


@pytest.mark.parametrize("instant", ["replace", "look", "unlink"])
def test_a_signal_while_an_original_is_set_aside_puts_it_back(tmp_path, instant):
    path = tmp_path / "a"
    path.write_bytes(b"original")

    def stop(at):
        if at == instant:
            raise KeyboardInterrupt

    class Signalled(Disk):
        def replace(self, source, target):
            super().replace(source, target)
            stop("replace")

        def unlink(self, target):
            stop("unlink")
            super().unlink(target)

    def is_it(found):
        if found != path:
            stop("look")
        return True

    with pytest.raises(KeyboardInterrupt):
        remove_unchanged(path, is_it, Signalled())
    remove_unfinished()
    assert os.listdir(tmp_path) == ["a"] and path.read_bytes() == b"original"
