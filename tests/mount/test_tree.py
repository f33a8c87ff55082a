"""The tree a mount shows, asked without a kernel: names, bytes, and folders as they come."""

import contextlib
import ctypes
import errno
import os
import shutil
import socket
import sys

import numpy as np
import pytest
from mount.mounting import packed, pixels_of, put_in_place, shown, twins, whole

import mrcz
from mrcz.mount.plain import PlainFile
from mrcz.mount.tree import Tree


def test_names(tree):
    assert sorted(tree.readdir("/")) == [".", "..", "broken.mrcz", "movie.mrcs", "notes.txt", "sub"]
    assert sorted(tree.readdir("/sub")) == [".", "..", "copy.map", "map.map"]
    assert tree.getattr("/movie.mrcs")["st_mode"] & 0o222 == 0
    for name in ("/movie.mrcz", "/movie.mrc", "/none.mrc", "/sub/copy.mrc"):
        with pytest.raises(FileNotFoundError):
            tree.getattr(name)
    with pytest.raises(OSError) as info:
        tree.open("/movie.mrcs", os.O_RDWR)
    assert info.value.errno == errno.EROFS


def test_only_what_is_called_compressed_is_opened(tree, folder, monkeypatch):
    """To list an archive of a hundred thousand pictures and texts costs a look at each name, and no file is read."""
    (folder / "folder.mrcz").mkdir()
    asked, plain = set(), tree.plain
    monkeypatch.setattr(tree, "plain", lambda real: (asked.add(os.path.relpath(real, folder)), plain(real))[1])
    shown(tree)
    assert asked == {"movie.mrcz", "broken.mrcz", os.path.join("sub", "copy.mrcz")}


def test_what_is_decoded_and_what_is_passed_on(tree):
    packed, plain = tree.open("/movie.mrcs", os.O_RDONLY), tree.open("/notes.txt", os.O_RDONLY)
    assert tree.decoded(packed) is True and tree.decoded(plain) is False
    assert tree.version(packed) is not None and tree.version(plain) is None
    assert tree.cache.limit == 512 << 20  # as `mount` and `mrcz mount --cache` have it
    for handle in (packed, plain):
        tree.release("", handle)


@pytest.mark.parametrize("step", [100, 1 << 17, 10**7])
def test_bytes(tree, folder, tmp_path, step):
    assert whole(tree, "/sub/copy.map", step) == (folder / "sub" / "map.map").read_bytes()
    assert whole(tree, "/notes.txt", step) == b"hello"
    (tmp_path / "plain.mrcs").write_bytes(whole(tree, "/movie.mrcs", step))
    with mrcz.open(tmp_path / "plain.mrcs") as plain, mrcz.open(folder / "movie.mrcz") as packed:
        assert np.array_equal(plain.read(), packed.read()) and plain.dtype == packed.dtype
        assert plain.pixel_size == packed.pixel_size and plain.header["mz"] == 1 and not plain.oddities
        assert plain.header.stats == packed.header.stats


def test_many_files_do_not_stay_open(tree, folder, monkeypatch):
    monkeypatch.setattr("mrcz.mount.tree._OPEN_FILES", 2)
    for k in range(5):
        shutil.copy(folder / "movie.mrcz", folder / f"m{k}.mrcz")
    before = {k: tree.getattr(f"/m{k}.mrcs")["st_size"] for k in range(5)}
    handle = tree.open("/m0.mrcs", os.O_RDONLY)
    assert len(tree.readdir("/")) == 11 and len(tree._plain) == 2
    for k in range(1, 5):
        whole(tree, f"/m{k}.mrcs", 10000)
    assert len(tree._plain) == 2 and before == {k: tree.getattr(f"/m{k}.mrcs")["st_size"] for k in range(5)}
    assert tree.read("/m0.mrcs", 10**6, 0, handle) == whole(tree, "/m1.mrcs", 10000)


def test_damage_is_an_input_error(folder):
    with mrcz.open(folder / "movie.mrcz") as reader:
        at = int(reader.index.offsets[2]) + 50
    data = bytearray((folder / "movie.mrcz").read_bytes())
    data[at] ^= 1
    (folder / "movie.mrcz").write_bytes(data)
    tree = Tree(folder)
    handle = tree.open("/movie.mrcs", os.O_RDONLY)
    with pytest.raises(OSError) as info:
        tree.read("/movie.mrcs", 100000, 0, handle)
    assert info.value.errno == errno.EIO
    place = (ctypes.c_char * 100000)()
    with pytest.raises(OSError) as info:
        tree.read_into(ctypes.addressof(place), 100000, 0, handle)
    assert info.value.errno == errno.EIO
    tree.close()


def test_links(folder, tree, tmp_path):
    """Followed, within the folder and out of it, but not in circles; what leads nowhere is left out."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(folder / "movie.mrcz", elsewhere / "far.mrcz")
    os.symlink(elsewhere, folder / "out")
    os.symlink("movie.mrcz", folder / "linked.mrcz")
    os.symlink("notes.txt", folder / "linked.txt")
    before = shown(tree)
    assert before["/linked.mrcs"] == before["/movie.mrcs"] == before["/out/far.mrcs"] and before["/linked.txt"] == 5
    assert whole(tree, "/out/far.mrcs") == whole(tree, "/linked.mrcs")
    for name, target in [
        ("loop.mrcz", "loop.mrcz"),
        ("loop", "loop"),
        ("nowhere.mrcz", "none.mrcz"),
        ("nowhere", "/none/at/all"),
        ("a", "b"),
        ("b", "a"),
        ("here", "."),
        ("sub/up", ".."),
        ("sub/self", "../sub"),
        ("sub/top", "/"),
        ("through", "notes.txt/x"),
        ("long", "x" * 300),
        ("out/back", folder),
        ("device", "/dev/zero"),
    ]:
        os.symlink(target, folder / name)
    os.symlink(folder / "sub", elsewhere / "over")  # out/over -> sub, whose links lead back to where we were
    after = shown(tree)
    added = {path: size for path, size in after.items() if path not in before}
    assert set(added) == {"/out/over", "/out/over/copy.map", "/out/over/map.map"}
    assert {path: after[path] for path in before} == before
    for path in ("/loop.mrcz", "/loop.mrc", "/a", "/here", "/here/movie.mrcs", "/nowhere.mrcz", "/device"):
        if path != "/here/movie.mrcs":  # the kernel asks for a folder before what is in it
            with pytest.raises(FileNotFoundError):
                tree.getattr(path)
            with pytest.raises(FileNotFoundError):
                tree.open(path, os.O_RDONLY)


def test_special_files(folder, tree):
    """FIFOs, sockets and devices are left out; nobody waits for their other end, though they come between two looks."""
    before = shown(tree)
    os.mkfifo(folder / "fifo")
    os.mkfifo(folder / "fifo.mrcz")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(folder)  # names of sockets are short
        try:
            listener.bind("socket.mrcz")
        finally:
            os.chdir(here)
        assert shown(tree) == before
    with pytest.raises(FileNotFoundError):
        tree.open("/fifo", os.O_RDONLY)
    with pytest.raises(OSError, match=r"fifo\.mrcz"):
        tree.plain(str(folder / "fifo.mrcz"))


@contextlib.contextmanager
def permissions_matter():
    """Root may read everything; meanwhile this thread may not (capabilities 1 and 2, CAP_DAC_…; capget(2))."""
    if os.geteuid() != 0:
        yield
        return
    libc, head = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32 * 2)(0x20080522, 0)
    before, less = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 6)()
    assert libc.capget(head, before) == 0
    less[:] = before[:]
    less[0] &= ~0b110
    assert libc.capset(head, less) == 0
    try:
        yield
    finally:
        assert libc.capset(head, before) == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="capabilities are Linux's")
def test_what_may_not_be_read_hides_nothing_else(folder, tree):
    shutil.copy(folder / "movie.mrcz", folder / "closed.mrcz")
    (folder / "closed.mrcz").chmod(0)
    (folder / "locked").mkdir()
    (folder / "locked" / "x.mrcz").write_bytes(b"")
    (folder / "locked").chmod(0o600)
    with permissions_matter():
        names = tree.readdir("/")
        assert {"closed.mrcz", "locked", "movie.mrcs"} <= set(names)
        with pytest.raises(PermissionError):
            tree.open("/closed.mrcz", os.O_RDONLY)
        with pytest.raises(PermissionError):
            tree.getattr("/locked/x.mrcz")
        assert tree.readdir("/locked") == [".", "..", "x.mrcz"]
        (folder / "locked").chmod(0)
        with pytest.raises(PermissionError):
            tree.readdir("/locked")
        # Once it may be read it is shown as what it is: a refusal is not remembered.
        (folder / "closed.mrcz").chmod(0o400)
        assert "closed.mrcs" in tree.readdir("/") and whole(tree, "/closed.mrcs") == whole(tree, "/movie.mrcs")
    (folder / "locked").chmod(0o700)


def test_a_refusal_is_not_remembered(folder, tree, monkeypatch):
    """Too many open files, a network away for a moment: the next time it may go well."""
    real = PlainFile
    for error in (OSError(errno.EMFILE, "Too many open files"), OSError(errno.EIO, "I/O"), MemoryError()):
        shutil.copy(folder / "movie.mrcz", folder / "new.mrcz")

        def refuse(*args, error=error):
            raise error

        monkeypatch.setattr("mrcz.mount.tree.PlainFile", refuse)
        assert "new.mrcz" in tree.readdir("/")
        monkeypatch.setattr("mrcz.mount.tree.PlainFile", real)
        assert "new.mrcs" in tree.readdir("/") and "new.mrcz" not in tree.readdir("/")
        os.remove(folder / "new.mrcz")


def test_whatever_is_wrong_with_one_file_hides_no_other(folder, tree, monkeypatch, rng):
    before = shown(tree)
    data = (folder / "movie.mrcz").read_bytes()
    for k in range(60):
        damaged = bytearray(data)
        for at in rng.choice(
            [rng.integers(0, 1024), rng.integers(0, len(data)), len(data) - 1 - rng.integers(0, 600)], 3
        ):
            damaged[at] = rng.integers(0, 256)
        (folder / f"damaged{k}.mrcz").write_bytes(damaged[: rng.integers(0, len(data)) if k % 3 == 0 else None])
    after = shown(tree)
    assert {path: after[path] for path in before} == before and len(after) == len(before) + 60
    # And were there a fault of ours in it.
    monkeypatch.setattr("mrcz.mount.tree.PlainFile", lambda *args: 1 // 0)
    (folder / "other.mrcz").write_bytes(b"new")
    assert "other.mrcz" in tree.readdir("/") and tree.getattr("/other.mrcz")["st_size"] == 3


def test_files_that_vanish(folder, tree, monkeypatch):
    """Between the list of names and the look at each."""
    scandir = os.scandir

    def vanish(path):
        entries = list(scandir(path))
        if os.path.exists(folder / "movie.mrcz"):
            os.remove(folder / "movie.mrcz")
        return contextlib.nullcontext(entries)

    monkeypatch.setattr("mrcz.mount.tree.os.scandir", vanish)
    assert tree.readdir("/") == [".", "..", "broken.mrcz", "notes.txt", "sub"]


def test_any_name(folder, tree):
    names = [
        b"\xff\xfe.mrcz",
        "é ü.mrcz".encode(),
        b"a\nb\x1b[31m.mrcz",
        b".mrcz",
        b"..mrcz",
        b"-o.mrcz",
        b"x" * 250 + b".mrcz",
        b"%s.mrcz",
        b".hidden.mrcz",
        b"UP.MRCZ",
        b"Odd.McRz",
        b"mIx.MrCz",
    ]
    for name in names:
        shutil.copy(folder / "movie.mrcz", os.path.join(os.fsencode(folder), name))
    found = shown(tree)
    expected = {
        b"\xff\xfe.mrcs",
        "é ü.mrcs".encode(),
        b"a\nb\x1b[31m.mrcs",
        b".mrcz",
        b"..mrcz",
        b"-o.mrcs",
        b"x" * 250 + b".mrcs",
        b"%s.mrcs",
        b".hidden.mrcs",
        b"UP.mrcs",
        b"Odd.McRz",
        b"mIx.MrCz",
    }
    assert expected <= {os.fsencode(path[1:]) for path in found}
    assert len(found) == 6 + len(names)
    size = found["/movie.mrcs"]
    assert all(found["/" + os.fsdecode(name)] == size for name in expected if name.endswith(b"s"))


def value_shown(tree, path):
    return whole(tree, path)[1024]


def test_names_by_the_rule_and_before_it(folder, tree):
    for k, (name, source_name, expected) in enumerate(
        [
            ("TS_01.st.mrcz", "TS_01.st", "TS_01.st"),
            ("TS_01.rec.mrcz", "TS_01.rec", "TS_01.rec"),
            ("m.mrc.gz.mrcz", "m.mrc.gz", "m.mrc"),
            ("old.mrcz", "old.ali", "old.ali"),
            ("moved.mrcz", "before.rec", "moved.rec"),
            ("none.mrcz", None, "none.mrcs"),
            ("none.st.mrcz", None, "none.st"),
            ("mrc.mrcz", "mrc.mrc", "mrc.mrc"),
            ("dat.mrcz", "x.dat", "dat.dat"),
        ]
    ):
        packed(folder / name, source_name, value=k + 1)
        assert expected in tree.readdir("/") and value_shown(tree, f"/{expected}") == k + 1
        with pytest.raises(FileNotFoundError):
            tree.getattr(f"/{name}")


def test_names_that_collide(folder, tree):
    """A plain file that is there keeps its name, of compressed ones the first; the others are shown as they are."""
    packed(folder / "TS.mrcz", "TS.st", 1)
    assert value_shown(tree, "/TS.st") == 1
    packed(folder / "TS.st.mrcz", "TS.st", 2)
    assert value_shown(tree, "/TS.st") == 2
    assert tree.getattr("/TS.mrcz")["st_size"] == os.path.getsize(folder / "TS.mrcz")
    with pytest.raises(FileNotFoundError):
        tree.getattr("/TS.st.mrcz")
    (folder / "TS.st").write_bytes(b"plain")
    (folder / "fold.st").mkdir()
    packed(folder / "fold.st.mrcz", "fold.st", 3)
    packed(folder / "same.mrcz", "same.mrc", 4)
    packed(folder / "same.MRCZ", "same.mrc", 5)
    found = shown(tree)
    names = ("TS.st", "TS.mrcz", "TS.st.mrcz", "fold.st", "fold.st.mrcz", "same.mrc", "same.MRCZ")
    assert {name for name in tree.readdir("/") if name.startswith(("TS", "fold", "same"))} == set(names)
    assert found["/TS.st"] == 5 and found["/fold.st"] is None and whole(tree, "/TS.st") == b"plain"
    assert value_shown(tree, "/same.mrc") == 4
    for name in ("TS.mrcz", "TS.st.mrcz", "fold.st.mrcz", "same.MRCZ"):
        assert whole(tree, f"/{name}") == (folder / name).read_bytes()
    assert len(tree.readdir("/")) == len(set(tree.readdir("/")))


@pytest.mark.parametrize(
    "source_name",
    [
        "../../x",
        "/etc/passwd",
        "..",
        ".",
        "",
        "a/b.st/",
        "x.st\0",
        "x.\x1b[31m",
        "x.s t",
        "x.\n",
        "x.mrcz",
        "x.MRCZ",
        "x.mrcz.gz",
        "." * 5000,
        "x." + "s" * 5000,
        "x.\u202etxt",
        "x./../y",
    ],
)
def test_a_name_in_a_file_never_leads_anywhere(folder, tree, source_name):
    before = shown(tree)
    packed(folder / "hostile.mrcz", source_name)
    after = set(shown(tree)) - set(before)
    # Nothing of it but a suffix of letters and digits.
    assert all(path in ("/hostile.mrc", "/hostile.mrcs", "/hostile.mrcz") for path in after) and len(after) <= 1


@pytest.mark.parametrize("how", ["renamed over", "written over"])
@pytest.mark.parametrize("clocks", ["fine", "coarse"])
def test_a_file_replaced_within_a_tick_is_another(tmp_path, monkeypatch, how, clocks):
    """Same size, same time; on exFAT and sshfs inode and change time tell nothing either, only the footer does."""
    old, other = twins(tmp_path)
    if clocks == "coarse":
        monkeypatch.setattr("mrcz.mount.tree._stamp", lambda found: (found.st_size,))
    tree = Tree(tmp_path)
    handle = tree.open("/a.mrcs", os.O_RDONLY)
    before, version = tree.read("/a.mrcs", 10**6, 0, handle), tree.version(handle)
    again = tree.open("/a.mrcs", os.O_RDONLY)
    assert tree.version(again) == version and before[1024:] == pixels_of(old)
    put_in_place(tmp_path, how)
    new = tree.open("/a.mrcs", os.O_RDONLY)
    assert tree.version(new) != version
    assert whole(tree, "/a.mrcs")[1024:] == pixels_of(other)
    assert tree.read("/a.mrcs", 10**6, 0, new)[1024:] == pixels_of(other)
    if how == "renamed over":  # who has the old one open reads the old one
        tree.cache.limit = 0
        assert tree.read("/a.mrcs", 10**6, 0, handle) == before
    tree.close()


def test_what_was_of_another_format_is_shown_as_mrc(tree, folder, tmp_path, rng):
    """Also where `mrcz decompress` would give back the file it was: frames of it are read at random here."""
    array = rng.poisson(1, (3, 8, 9)).astype("i2")
    np.save(tmp_path / "a.npy", array)
    assert mrcz.compress(tmp_path / "a.npy", folder / "a.npy.mrcz").restores == "file"
    assert "a.npy.mrcs" in tree.readdir("/") and "a.npy" not in tree.readdir("/")
    (tmp_path / "a.mrcs").write_bytes(whole(tree, "/a.npy.mrcs"))
    assert np.array_equal(mrcz.read(tmp_path / "a.mrcs"), array)
