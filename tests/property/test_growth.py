"""A growing file is readable at every instant: each write is stopped at each point, and what lies there is opened."""

import errno
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrcz import FormatError, MrczError
from mrcz.container.chunks import xxh64
from mrcz.container.footer import find_footer, load_footer
from mrcz.container.index import FrameIndex
from mrcz.container.walk import walk_chunks
from mrcz.file.growing import GrowingFile
from mrcz.storage.disk import Disk

EXTENDED = b"extended header "
DATA_OFFSET = 1024 + len(EXTENDED)


def header(n):
    return struct.pack("<iii", 8, 8, n) + bytes(1012)


def chunk(frame, size):
    return struct.pack("<BBBBIII", 2, 1, 2, 1, 64, 64, size) + bytes([frame % 251 + 1]) * (size - 16)


class Tape(Disk):
    """Does what a disk does and writes down each step."""

    def __init__(self):
        self.steps = []

    def open_new(self, path, mode):
        self.steps.append(("new",))
        return super().open_new(path, mode)

    def pwrite(self, fd, data, offset):
        self.steps.append(("write", offset, bytes(data)))
        return super().pwrite(fd, data, offset)

    def truncate(self, fd, size):
        self.steps.append(("truncate", size))
        super().truncate(fd, size)

    def rename_new(self, source, target):
        super().rename_new(source, target)
        self.steps.append(("publish",))

    def replace(self, source, target):
        self.steps.append(("publish",))
        super().replace(source, target)

    def unlink(self, path):
        self.steps.append(("unlink",))
        super().unlink(path)

    def fsync(self, fd):
        pass

    def mark(self, frames):
        """From here on, these frames are promised."""
        self.steps.append(("promise", list(frames)))


def instants(steps, before):
    """(file under its name or None, unfinished new file or None, frames promised) at every instant, torn writes
    included."""
    named, growing, promised = before, None, None
    yield named, growing, promised
    for step in steps:
        target = growing if growing is not None else named
        if step[0] == "new":
            growing = b""
        elif step[0] == "publish":
            named, growing = growing, None
        elif step[0] == "unlink":
            growing = None
        elif step[0] == "promise":
            promised = step[1]
        else:
            if step[0] == "truncate":
                states = [target[: step[1]].ljust(step[1], b"\0")]
            else:
                _, offset, data = step
                cuts = sorted({0, 1, 15, 16, 17, 63, len(data) // 2, len(data) - 64, len(data) - 1, len(data)})
                states = [
                    target[:offset].ljust(offset, b"\0") + data[:cut] + target[offset + cut :]
                    for cut in cuts
                    if 0 <= cut <= len(data)
                ]
            for state in states:
                if growing is not None:
                    growing = state
                else:
                    named = state
                yield named, growing, promised
            continue
        yield named, growing, promised


def frames_of(data):
    """The frames a reader gets, by the rules of docs/container.md §3, and the metadata."""

    def read(offset, n):
        return data[offset : offset + n]

    (nz,) = struct.unpack_from("<i", data, 8)
    try:
        footer = load_footer(read, len(data), data_offset=DATA_OFFSET)
    except FormatError:
        footer = None
    if footer is None:
        walk = walk_chunks(read, DATA_OFFSET, len(data), nz)
        footer = find_footer(read, walk.end, len(data), data_offset=DATA_OFFSET)
    index = footer.index if footer else FrameIndex([], [])
    hashes = [] if index.hashes is None else index.hashes.tolist()
    if len(index) < nz:
        walk = walk_chunks(read, index.end or DATA_OFFSET, len(data), nz - len(index), nbytes=64)
        assert walk.defect is None, walk.defect
        index = FrameIndex.concatenate([FrameIndex(index.offsets, index.sizes), walk.index])
    index = index[:nz]
    frames = []
    for frame, (offset, size) in enumerate(zip(index.offsets.tolist(), index.sizes.tolist(), strict=True)):
        stored = data[offset : offset + size]
        if frame < len(hashes):
            assert xxh64(stored) == hashes[frame]
        frames.append(stored)
    return frames, footer.extra.get("note") if footer else None


def check_instants(steps, before, had):
    for named, growing, promised in instants(steps, before):
        if promised is None:
            # Nothing was promised yet: what stood there stands, to the frame.
            if named != before:
                frames, note = frames_of(named)
                assert frames[: len(had)] == had
                assert note == "kept"
            continue
        frames, note = frames_of(named)
        assert frames[: len(promised)] == promised
        assert note == "kept"
        if growing is not None:
            assert growing == b"" or frames


def build(path, sizes, fields):
    new = GrowingFile.create(path, header(0), EXTENDED, overwrite=path.exists(), fields=fields)
    frames = []
    for size in sizes:
        frames.append(chunk(len(frames), size))
        new.append(frames[-1], xxh64(frames[-1]), [0, 1, 2, 3])
    new.close(header(len(frames)))
    return frames


FIELDS = {"extra": {"note": "kept"}, "compress": None}

actions = st.lists(st.one_of(st.just("flush"), st.integers(16, 120), st.integers(400, 3000)), max_size=12)


@settings(max_examples=60, deadline=None)
@given(
    first=st.lists(st.integers(16, 200), max_size=4),
    later=actions,
    end=st.sampled_from(["close", "abort"]),
    gap=st.sampled_from([64, 1024, 4 << 10]),
)
def test_reopened_file_is_whole_at_every_instant(tmp_path_factory, monkeypatch_module, first, later, end, gap):
    monkeypatch_module.setattr("mrcz.file.growing._GAP", gap)
    path = tmp_path_factory.mktemp("grow") / "a.mrcz"
    frames = build(path, first, FIELDS)
    before = path.read_bytes()
    footer = load_footer(lambda o, n: before[o : o + n], len(before), data_offset=DATA_OFFSET)
    tape = Tape()
    start = footer.trailer.start
    old = GrowingFile.reopen(
        path, header(len(frames)), EXTENDED, footer.index, end=start, footer=before[start:], fields=FIELDS
    )
    old.disk = tape
    had = list(frames)
    kept = list(frames)
    for action in later:
        if action == "flush":
            old.flush(header(len(frames)))
            kept = list(frames)
            tape.mark(kept)
            continue
        frames.append(chunk(len(frames), action))
        old.append(frames[-1], xxh64(frames[-1]), [0, 1, 2, 3])
    if end == "close":
        old.close(header(len(frames)))
        kept = frames
        tape.mark(kept)
    else:
        old.abort()
    after = path.read_bytes()
    assert frames_of(after) == (kept, "kept")
    # Nothing is left between the last frame and its footer, nor behind it.
    footer = load_footer(lambda o, n: after[o : o + n], len(after), data_offset=DATA_OFFSET)
    assert footer.trailer.start == DATA_OFFSET + sum(map(len, kept)) and (footer.index.hashes is not None or not kept)
    check_instants(tape.steps, before, had)


@settings(max_examples=40, deadline=None)
@given(later=actions, end=st.sampled_from(["close", "abort"]), existing=st.booleans())
def test_new_file_is_whole_or_absent(tmp_path_factory, monkeypatch_module, later, end, existing):
    monkeypatch_module.setattr("mrcz.file.growing._GAP", 1024)
    path = tmp_path_factory.mktemp("new") / "a.mrcz"
    had = build(path, [30, 40], FIELDS) if existing else []
    before = path.read_bytes() if existing else None
    tape = Tape()
    monkeypatch_module.setattr(GrowingFile, "disk", tape)
    new = GrowingFile.create(path, header(0), EXTENDED, overwrite=existing, fields=FIELDS)
    frames, kept = [], None
    for action in later:
        if action == "flush":
            new.flush(header(len(frames)))
            kept = list(frames)
            tape.mark(kept)
            assert frames_of(path.read_bytes()) == (kept, "kept")
            continue
        frames.append(chunk(len(frames) + 100, action))
        new.append(frames[-1], xxh64(frames[-1]), [0, 1, 2, 3])
    if end == "close":
        new.close(header(len(frames)))
        kept = frames
    else:
        new.abort()
    assert sorted(p.name for p in path.parent.iterdir()) == (["a.mrcz"] if kept is not None or existing else [])
    if kept is not None:
        assert frames_of(path.read_bytes()) == (kept, "kept")
    elif existing:
        assert path.read_bytes() == before
    for named, _growing, promised in instants(tape.steps, before):
        if promised is None and named != before:
            promised = []  # published at this flush or close, complete with its first instant
        if promised is not None:
            got, note = frames_of(named)
            assert got[: len(promised)] == promised and note == "kept"
    assert had == [] or existing


class Failing(Tape):
    """A disk that is full after so many steps, for once or for good."""

    def __init__(self, fail_at, forever, short):
        super().__init__()
        self.count, self.fail_at, self.forever, self.short = 0, fail_at, forever, short

    def fails(self):
        self.count += 1
        return self.count == self.fail_at or (self.forever and self.count > self.fail_at)

    def pwrite(self, fd, data, offset):
        if self.fails():
            if self.short and len(data) > 1:
                return super().pwrite(fd, data[: len(data) // 2], offset)
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().pwrite(fd, data, offset)

    def fsync(self, fd):
        if self.fails():
            raise OSError(errno.EIO, "Input/output error")

    def truncate(self, fd, size):
        if self.fails():
            raise OSError(errno.EIO, "Input/output error")
        super().truncate(fd, size)


@pytest.mark.parametrize("forever", [False, True])
@pytest.mark.parametrize("short", [False, True])
def test_full_disk_loses_nothing(tmp_path, monkeypatch, forever, short):
    monkeypatch.setattr("mrcz.file.growing._GAP", 700)
    for fail_at in range(1, 70):
        path = tmp_path / f"{fail_at}.mrcz"
        frames = build(path, [100, 50], FIELDS)
        before = path.read_bytes()
        start = DATA_OFFSET + 150
        index = FrameIndex.from_sizes([100, 50], DATA_OFFSET, [xxh64(f) for f in frames], [[0, 1, 2, 3]] * 2)
        old = GrowingFile.reopen(path, header(2), EXTENDED, index, end=start, footer=before[start:], fields=FIELDS)
        old.disk = disk = Failing(fail_at, forever, short)
        kept = list(frames)
        try:
            for k in range(6):
                frames.append(chunk(k + 10, 90 + 300 * (k % 2)))
                old.append(frames[-1], xxh64(frames[-1]), [0, 1, 2, 3])
                if k % 2:
                    old.flush(header(len(frames)))
                    kept = list(frames)
            old.close(header(len(frames)))
            kept = frames
        except OSError:
            got, note = frames_of(path.read_bytes())
            assert got[: len(kept)] == kept and note == "kept", fail_at
            if not forever:
                old.abort()
                assert frames_of(path.read_bytes()) == (kept, "kept")
            else:
                old.abort()
        got, note = frames_of(path.read_bytes())
        assert got[: len(kept)] == kept and note == "kept", fail_at
        assert old.closed
        if disk.count < fail_at:
            break
    else:
        pytest.fail("the sequence has more steps than were tried")


def test_flush_may_be_tried_again(tmp_path, monkeypatch):
    for fail_at in range(1, 12):
        path = tmp_path / f"{fail_at}.mrcz"
        new = GrowingFile.create(path, header(0), EXTENDED, fields=FIELDS)
        frames = [chunk(1, 90), chunk(2, 400)]
        for frame in frames:
            new.append(frame, xxh64(frame), [0, 1, 2, 3])
        new.disk = Failing(fail_at, False, False)
        try:
            new.flush(header(2))
        except OSError:
            new.flush(header(2))
        assert frames_of(path.read_bytes()) == (frames, "kept")
        new.disk = Disk()
        new.close(header(2))
        assert frames_of(path.read_bytes()) == (frames, "kept")


def test_plain_files_grow_without_footer(tmp_path):
    path = tmp_path / "a.mrc"
    new = GrowingFile.create(path, header(0), with_footer=False)
    new.append(b"a" * 64)
    new.flush(header(1))
    assert path.read_bytes() == header(1) + b"a" * 64
    new.append(b"b" * 64)
    new.abort()
    assert path.read_bytes() == header(1) + b"a" * 64
    index = FrameIndex.from_sizes([64], 1024)
    old = GrowingFile.reopen(path, header(1), b"", index, end=1088, with_footer=False)
    old.append(b"c" * 64)
    old.close(header(2))
    assert path.read_bytes() == header(2) + b"a" * 64 + b"c" * 64


def test_one_writer_a_file(tmp_path):
    path = tmp_path / "a.mrcz"
    build(path, [20], FIELDS)
    size = path.stat().st_size
    footer = path.read_bytes()[DATA_OFFSET + 20 :]
    index = FrameIndex.from_sizes([20], DATA_OFFSET)
    first = GrowingFile.reopen(path, header(1), EXTENDED, index, end=DATA_OFFSET + 20, footer=footer)
    with pytest.raises(MrczError, match="another process"):
        GrowingFile.reopen(path, header(1), EXTENDED, index, end=DATA_OFFSET + 20, footer=footer)
    first.abort()
    assert path.stat().st_size == size
    with pytest.raises(MrczError, match="follow the last frame"):
        GrowingFile.reopen(path, header(1), EXTENDED, index, end=DATA_OFFSET + 20)


def test_links_and_permissions_survive(tmp_path):
    real = tmp_path / "real.mrcz"
    build(real, [20], FIELDS)
    real.chmod(0o640)
    link = tmp_path / "link.mrcz"
    link.symlink_to(real)
    frames = build(link, [30, 40], FIELDS)
    assert link.is_symlink() and frames_of(real.read_bytes())[0] == frames
    assert real.stat().st_mode & 0o777 == 0o640


@pytest.fixture(scope="module")
def monkeypatch_module():
    # hypothesis runs many examples in one function: what they set is taken back at its end
    with pytest.MonkeyPatch.context() as patch:
        yield patch
