"""A file that grows, call by call: what each leaves behind, what it refuses, and in which order it writes."""

import errno
import os
import struct

import pytest

from mrcz import MrczError
from mrcz.container.chunks import xxh64
from mrcz.container.footer import FOOTER_MARK, TRAILER_SIZE, Footer, load_footer, move_footer
from mrcz.container.index import FrameIndex
from mrcz.file.growing import GrowingFile
from mrcz.storage.disk import Disk

EXTENDED = b"extended header "
DATA_OFFSET = 1024 + len(EXTENDED)
GAP = 2000

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def header(n):
    return struct.pack("<iii", 8, 8, n) + bytes(1012)


def chunk(number, size=100):
    return struct.pack("<BBBBIII", 2, 1, 2, 1, 64, 64, size) + bytes([number + 1]) * (size - 16)


def footer_of(path) -> Footer:
    data = path.read_bytes()
    footer = load_footer(lambda offset, n: data[offset : offset + n], len(data), data_offset=DATA_OFFSET)
    assert footer is not None
    return footer


def made(path, n=2, size=100, with_footer=True):
    """A finished file of n frames."""
    new = GrowingFile.create(path, header(0), EXTENDED, with_footer=with_footer, fields={"compress": None})
    for k in range(n):
        new.append(chunk(k, size), xxh64(chunk(k, size)), [0, 1, 2, 3])
    new.close(header(n))
    return path


def reopened(path, n=2, **changes):
    about = footer_of(path)
    start = about.trailer.start
    known = {"end": about.index.end, "footer": path.read_bytes()[start:], "fields": {"compress": None}}
    return GrowingFile.reopen(path, header(n), EXTENDED, about.index, **{**known, **changes})


@pytest.fixture(autouse=True)
def small_gap(monkeypatch):
    monkeypatch.setattr("mrcz.file.growing._GAP", GAP)


class Steps(Disk):
    """What is done, in its order, and one step of it that fails."""

    def __init__(self, fails=None, error=errno.EIO):
        self.done, self.fails, self.error = [], fails, error

    def step(self, *what):
        self.done.append(what)
        if what[0] == self.fails:
            self.fails = None
            raise OSError(self.error, os.strerror(self.error))

    def pwrite(self, fd, data, offset):
        self.step("write", offset, len(data))
        return super().pwrite(fd, data, offset)

    def fsync(self, fd):
        self.step("sync")
        super().fsync(fd)

    def truncate(self, fd, size):
        self.step("cut", size)
        super().truncate(fd, size)


# ---- new files ---------------------------------------------------------------------------------------------------


def test_a_disk_that_refuses_the_first_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(GrowingFile, "disk", Steps("write", errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        GrowingFile.create(tmp_path / "a.mrcz", header(0))
    assert list(tmp_path.iterdir()) == []


def test_a_new_file_ends_with_its_footer(tmp_path):
    """Also where more was written than was taken into the index, as when a disk fills up in between."""
    path = tmp_path / "a.mrcz"
    new = GrowingFile.create(path, header(0), EXTENDED, fields={"compress": None, "writer": "test 1"})
    assert (new.path, new.index, new.end, new.closed) == (path, FrameIndex([], []), DATA_OFFSET, False)
    assert new.temporary.parent == tmp_path and new.temporary.exists() and not path.exists()
    frames = [chunk(0), chunk(1, 50)]
    for frame in frames:
        new.append(frame)
    new.pwrite(new.end, bytes(5000))
    assert (len(new.index), new.end) == (2, DATA_OFFSET + 150)
    new.close(header(2))
    assert (new.closed, new.temporary) == (True, None)
    new.close(header(2))
    footer = footer_of(path)
    assert footer.index == FrameIndex.from_sizes([100, 50], DATA_OFFSET)  # no checksums, no statistics
    assert (footer.writer, footer.header_hash, footer.header_copy) == ("test 1", xxh64(header(2)), header(2))
    assert footer.extended_header_hash == xxh64(EXTENDED)
    body = path.read_bytes()
    assert body[: footer.trailer.start] == header(2) + EXTENDED + b"".join(frames)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mrcz"]


def test_frames_may_be_added_many_at_a_time(tmp_path):
    path = tmp_path / "a.mrcz"
    new = GrowingFile.create(path, header(0), EXTENDED)
    new.room(300)
    new.pwrite(new.end, chunk(0) + chunk(1, 50) + chunk(2))
    new.added([100, 50, 100], [1, 2, 3], [[0, 1, 2, 3]] * 3)
    new.added([])
    new.close(header(3))
    expected = FrameIndex.from_sizes([100, 50, 100], DATA_OFFSET, [1, 2, 3], [[0, 1, 2, 3]] * 3)
    assert footer_of(path).index == expected


def test_descriptor_0_is_open(tmp_path):
    """As a daemon gets it that has closed its standard input."""
    saved = os.dup(0)
    os.close(0)
    try:
        new = GrowingFile.create(tmp_path / "a.mrcz", header(0), EXTENDED)
        zero, closed = new.fd, new.closed
        new.append(chunk(0))
        new.close(header(1))
    finally:
        os.dup2(saved, 0)
        os.close(saved)
    assert (zero, closed, new.closed) == (0, False, True)
    assert len(footer_of(tmp_path / "a.mrcz").index) == 1


def test_one_new_file_of_a_name_at_a_time(tmp_path):
    first = GrowingFile.create(tmp_path / "a.mrcz", header(0), EXTENDED)
    with pytest.raises(MrczError, match=r"a\.mrcz"):
        GrowingFile.create(tmp_path / "a.mrcz", header(0), EXTENDED)
    other = GrowingFile.create(tmp_path / "a.mrcz", header(0), EXTENDED, alone=False)
    other.abort()
    first.close(header(0))
    assert [path.name for path in tmp_path.iterdir()] == ["a.mrcz"]


def test_frames_of_a_file_whose_name_was_taken_are_kept(tmp_path):
    path = tmp_path / "a.mrcz"
    new = GrowingFile.create(path, header(0), EXTENDED)
    new.append(chunk(0))
    path.write_bytes(b"somebody else's")
    kept = new.temporary
    with pytest.raises(FileExistsError, match=r"these 1 frames are whole, in .*a\.mrcz"):
        new.close(header(1))
    assert new.closed and path.read_bytes() == b"somebody else's"
    assert len(footer_of(kept).index) == 1


def test_frames_that_may_not_replace_what_is_written_are_kept(tmp_path, monkeypatch):
    path = made(tmp_path / "a.mrcz")
    before = path.read_bytes()
    monkeypatch.setattr("mrcz.storage.disk.WAIT", 0.0)
    monkeypatch.setattr("mrcz.storage.whole.WAIT", 0.0)
    new = GrowingFile.create(path, header(0), EXTENDED, overwrite=True)
    new.append(chunk(7))
    kept = new.temporary
    other = reopened(path)
    with pytest.raises(MrczError, match="these 1 frames are whole"):
        new.close(header(1))
    other.abort()
    assert path.read_bytes() == before and len(footer_of(kept).index) == 1


# ---- continued files ---------------------------------------------------------------------------------------------


def test_a_file_that_was_opened_and_closed_is_as_it_was(tmp_path):
    path = made(tmp_path / "a.mrcz")
    before = path.read_bytes()
    for ending in (lambda file: file.close(header(2)), GrowingFile.abort, GrowingFile.release):
        steps = Steps()
        file = reopened(path)
        file.disk = steps
        ending(file)
        assert (path.read_bytes(), steps.done) == (before, [])


def test_what_a_footer_says_changes_without_a_frame(tmp_path):
    path = made(tmp_path / "a.mrcz")
    before = path.read_bytes()
    file = reopened(path)
    file.describe(compress=None)  # as it is
    file.close(header(2))
    assert path.read_bytes() == before
    file = reopened(path)
    file.describe(extra={"note": 1})
    file.close(header(2))
    assert footer_of(path).extra == {"note": 1}
    assert len(footer_of(path).index) == 2


def test_what_is_no_longer_as_the_caller_knew_it_is_refused(tmp_path):
    """It was read before the lock was taken. The lock is given up again each time."""
    path = made(tmp_path / "a.mrcz")
    index = footer_of(path).index
    start, size = index.end, path.stat().st_size
    footer = path.read_bytes()[start:]
    sound = {"end": start, "footer": footer}
    for changes, message in (
        ({"footer": None}, f"{len(footer)} bytes follow the last frame"),
        ({"footer": footer[:-1]}, "1 bytes follow the last frame"),
        ({"footer": footer[:-1] + b"x"}, "has just changed"),
        ({"footer": move_footer(footer, start + 1)}, "has just changed"),
        ({"size": size - 1}, "has just changed"),
        ({"size": size + 1}, "has just changed"),
        ({"footer_start": start + 1}, "bytes follow the last frame"),
    ):
        with pytest.raises(MrczError, match=message) as info:
            GrowingFile.reopen(path, header(2), EXTENDED, index, **{**sound, **changes})
        assert info.value.path == str(path)
    with pytest.raises(MrczError, match="has just changed"):
        GrowingFile.reopen(path, header(3), EXTENDED, index, **sound)
    for known in (sound, sound | {"size": size}, sound | {"footer_start": start}):
        GrowingFile.reopen(path, header(2), EXTENDED, index, **known).close(header(2))


def test_a_footer_that_was_only_begun_is_cut_off(tmp_path):
    path = made(tmp_path / "a.mrcz")
    before = path.read_bytes()
    footer = before[footer_of(path).trailer.start :]
    for begun in (b"", footer[:40], footer[:-1]):
        file = reopened(path)
        file.release()
        path.write_bytes(before + begun)
        index = FrameIndex.from_sizes([100, 100], DATA_OFFSET)
        known = {"end": index.end, "footer": footer, "size": len(before + begun)}
        file = GrowingFile.reopen(path, header(2), EXTENDED, index, **known)
        file.give_up_begun()
        assert path.read_bytes() == before
        file.release()


def test_a_file_that_was_replaced_a_moment_ago_is_refused(tmp_path, monkeypatch):
    path = made(tmp_path / "a.mrcz")
    other = made(tmp_path / "other.mrcz", 5)

    class Late(Disk):
        def open_existing(self, name):
            fd = super().open_existing(name)
            os.replace(other, path)
            return fd

    monkeypatch.setattr(GrowingFile, "disk", Late())
    with pytest.raises(MrczError, match="has just replaced this file"):
        reopened(path)
    assert len(footer_of(path).index) == 5


def test_room_moves_the_footer_on_and_no_further_than_need_be(tmp_path, monkeypatch):
    monkeypatch.setattr("mrcz.file.growing._LARGEST_GAP", 3 * GAP)
    for frames, size, gap in ((2, 100, GAP), (40, 1000, 40 * 1000 // 8 + DATA_OFFSET // 8), (80, 1000, 3 * GAP)):
        path = made(tmp_path / f"{frames}.mrcz", frames, size)
        file = reopened(path, frames)
        before = path.stat().st_size
        file.room(0)
        assert path.stat().st_size == before
        file.room(300)
        start = footer_of(path).trailer.start
        assert start == max(before, file.end + 300 + gap)
        # It is in nobody's way now, and what is asked for fits.
        file.room(start - file.end)
        assert footer_of(path).trailer.start == start
        file.room(start - file.end + 1)
        assert footer_of(path).trailer.start > start
        file.abort()


def test_after_each_flush_nothing_but_zeros_lies_between_frames_and_footer(tmp_path):
    """What is left of an older footer there would be taken for the beginning of a frame."""
    path = made(tmp_path / "a.mrcz")
    file = reopened(path)
    frames = 2
    for size in (100, 900, 100, 700, 50, 1800, 16, 400, 400, 2500, 30, 30):
        file.append(chunk(frames % 200, size))
        frames += 1
        file.flush(header(frames))
        data, footer = path.read_bytes(), footer_of(path)
        assert len(footer.index) == frames and data[:1024] == header(frames)
        assert not data[footer.index.end : footer.trailer.start].strip(b"\0"), size
    file.close(header(frames))
    footer = footer_of(path)
    assert footer.trailer.start == footer.index.end == file.end


def test_the_old_footer_is_erased_where_the_new_one_touches_it(tmp_path):
    path = made(tmp_path / "a.mrcz")
    file = reopened(path)
    file.append(chunk(2))
    moved = footer_of(path).trailer
    # Fill the gap until no footer fits into it: the next one is put right behind that which lies there.
    filler = moved.start - file.end - 200
    file.append(chunk(3, filler))
    file.flush(header(4))
    footer, data = footer_of(path), path.read_bytes()
    assert footer.trailer.start == moved.end and len(footer.index) == 4
    assert data[moved.start : moved.end] == bytes(moved.end - moved.start)
    file.close(header(4))
    assert footer_of(path).trailer.start == footer_of(path).index.end


@pytest.mark.parametrize("fails", ["write", "sync"])
def test_a_footer_that_could_not_be_moved_leaves_the_file_as_it_was(tmp_path, fails):
    path = made(tmp_path / "a.mrcz")
    before = path.read_bytes()
    file = reopened(path)
    file.disk = Steps(fails)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        file.room(50)
    assert path.read_bytes() == before
    file.append(chunk(2))  # the disk has recovered
    file.close(header(3))
    assert len(footer_of(path).index) == 3


def test_only_a_full_disk_is_asked_for_less(tmp_path):
    for error, made_room in ((errno.ENOSPC, True), (errno.EFBIG, True), (errno.EIO, False), (errno.EACCES, False)):
        path = made(tmp_path / f"{error}.mrcz")
        file = reopened(path)
        file.disk = Steps("write", error)
        if made_room:
            file.room(1000)
            assert footer_of(path).trailer.start == max(file.end + 1000, len(path.read_bytes()) - footer_size(path))
            assert footer_of(path).trailer.start < file.end + 1000 + GAP
        else:
            with pytest.raises(OSError, match=os.strerror(error)):
                file.room(1000)
        file.abort()


def footer_size(path):
    trailer = footer_of(path).trailer
    assert trailer.end - trailer.start > len(FOOTER_MARK) + TRAILER_SIZE
    return trailer.end - trailer.start


# ---- the order of writes -----------------------------------------------------------------------------------------


def test_a_chunk_begins_last(tmp_path):
    """Its 16 header bytes after all others: a walk takes nothing for a chunk that is only begun."""
    path = made(tmp_path / "a.mrcz")
    file = reopened(path)
    file.room(200)
    file.disk = steps = Steps()
    end = file.end
    file.append(chunk(2))
    assert steps.done == [("write", end + 16, 84), ("write", end, 16)]
    file.abort()


def test_frames_are_on_disk_before_the_header_and_that_before_the_footer(tmp_path):
    path = made(tmp_path / "a.mrcz")
    file = reopened(path)
    file.append(chunk(2))
    file.disk = steps = Steps()
    file.flush(header(3))
    kinds = [step[0] for step in steps.done]
    assert steps.done[:3] == [("sync",), ("write", 0, 1024), ("sync",)]
    assert kinds[3:] == ["write", "sync", "cut"] or kinds[3:] == ["write", "sync", "write", "cut"]
    assert steps.done[3][1] == footer_of(path).trailer.start
    file.close(header(3))
    file = reopened(path, 3)
    file.disk = steps = Steps()
    file.flush(header(3))
    assert steps.done == [("sync",)]  # nothing is new
    file.close(header(3))


def test_what_is_given_up_goes_after_the_header_that_counts_it(tmp_path):
    path = made(tmp_path / "a.mrcz")
    before = path.read_bytes()
    file = reopened(path)
    file.append(chunk(2))
    file.disk = steps = Steps()
    file.abort()
    assert steps.done[:2] == [("write", 0, 1024), ("sync",)]
    assert ("cut", len(before)) in steps.done and path.read_bytes() == before
    assert file.closed
    file.abort()


def test_nothing_is_synchronised_if_that_is_not_asked_for(tmp_path, monkeypatch):
    steps = Steps()
    monkeypatch.setattr(GrowingFile, "disk", steps)
    new = GrowingFile.create(tmp_path / "a.mrcz", header(0), EXTENDED, sync=False)
    new.append(chunk(0))
    new.flush(header(1))
    new.append(chunk(1))
    new.close(header(2))
    assert ("sync",) not in steps.done and len(footer_of(tmp_path / "a.mrcz").index) == 2


# ---- other processes ---------------------------------------------------------------------------------------------

CALLS = {
    "pwrite": lambda file: file.pwrite(0, b"x"),
    "room": lambda file: file.room(10**7),
    "append": lambda file: file.append(chunk(9)),
    "describe": lambda file: file.describe(extra={"x": 1}),
    "flush": lambda file: file.flush(file._header),
    "finish": lambda file: file.finish(file._header),
    "publish": lambda file: file.publish(),
    "close": lambda file: file.close(file._header),
}


@forks
@pytest.mark.parametrize("with_footer", [True, False])
@pytest.mark.parametrize("flushed", [True, False])
def test_a_child_may_do_nothing_with_the_file_of_its_parent(tmp_path, with_footer, flushed):
    path = tmp_path / "a.mrcz"
    file = GrowingFile.create(path, header(0), EXTENDED, with_footer=with_footer)
    file.append(chunk(0))
    if flushed:
        file.flush(header(1))
        file.append(chunk(1))
    lies = file.path if flushed else file.temporary
    before = lies.read_bytes()
    child = os.fork()
    if child == 0:
        wrong = 99
        try:
            wrong = 0
            for call in CALLS.values():
                try:
                    call(file)
                    wrong += 1
                except MrczError as error:
                    wrong += "not by its child" not in str(error)
            file.abort()
            wrong += not file.closed
        finally:
            os._exit(wrong)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert lies.read_bytes() == before and path.exists() == flushed
    file.close(header(2 if flushed else 1))
    assert path.read_bytes()[DATA_OFFSET : DATA_OFFSET + 100] == chunk(0)


@forks
def test_a_child_may_not_finish_a_file_that_needs_nothing(tmp_path):
    path = made(tmp_path / "a.mrcz")
    file = reopened(path)
    child = os.fork()
    if child == 0:
        try:
            file.finish(header(2))
        except MrczError:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    file.close(header(2))


def test_room_is_made_for_more_than_is_asked_for(tmp_path):
    """So that the footer of a long movie is moved a few times, not with each frame."""
    path = made(tmp_path / "a.mrcz")
    file = reopened(path)
    file.room(50)
    assert footer_of(path).trailer.start == file.end + 50 + GAP
    file.abort()
