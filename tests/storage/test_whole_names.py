"""The names of files that are not whole yet, of originals set aside, and of the folders above: what becomes of each."""

import errno
import os
import re
import stat
import time
from pathlib import Path

import pytest

from mrcz import MrczError
from mrcz.storage import whole
from mrcz.storage.disk import Disk
from mrcz.storage.whole import (
    NewFile,
    make_folders,
    put_back,
    remove_unchanged,
    remove_unfinished,
    temporary_name,
    whole_file,
)


class Failing(Disk):
    """A disk of which some calls fail, by name and error number; it remembers what it was asked."""

    def __init__(self, **fails):
        self.fails, self.calls = fails, []

    def said(self, call):
        self.calls.append(call)
        if call in self.fails:
            raise OSError(self.fails[call], os.strerror(self.fails[call]))

    def open_new(self, path, mode):
        self.said("open_new")
        return super().open_new(path, mode)

    def fsync(self, fd):
        self.said("fsync")
        super().fsync(fd)

    def rename_new(self, source, target):
        self.said("rename_new")
        super().rename_new(source, target)

    def link(self, source, target):
        self.said("link")
        super().link(source, target)

    def replace(self, source, target):
        self.said("replace")
        super().replace(source, target)

    def unlink(self, path):
        self.said("unlink")
        super().unlink(path)

    def sync_folder(self, path):
        self.said(f"sync_folder {path.name}")
        Disk.sync_folder(Disk(), path)  # whose own fsync is not counted


NO_RENAME = {"rename_new": errno.EINVAL}
NO_LINK = {"rename_new": errno.ENOSYS, "link": errno.EPERM}
ways = pytest.mark.parametrize("way", [{}, NO_RENAME, NO_LINK], ids=["rename", "link", "neither"])


def begun(path, disk, content=b"new", **options):
    new = NewFile(path, disk=disk, **options)
    os.write(new.fd, content)
    return new


# ---- temporary names -------------------------------------------------------------------------------------------------


def test_a_temporary_name_says_what_it_belongs_to(tmp_path):
    path = tmp_path / "a.mrcz"
    names = {temporary_name(path) for _ in range(5)}
    assert len(names) == 5 and {name.parent for name in names} == {tmp_path}
    assert all(re.fullmatch(r"\.a\.mrcz\.[0-9a-f]{8}\.part", name.name) for name in names)
    assert re.fullmatch(r"\.a\.mrcz\.[0-9a-f]{8}\.orig", temporary_name(path, "orig").name)
    assert temporary_name(path, mark="0123abcd").name == ".a.mrcz.0123abcd.part"


@pytest.mark.skipif(not hasattr(os, "pathconf"), reason="needs pathconf")
def test_temporary_names_are_at_most_as_long_as_names_may_be(tmp_path):
    longest = os.pathconf(tmp_path, "PC_NAME_MAX")
    fits = longest - len("..01234567.part")
    for n in (fits - 1, fits, fits + 1, longest):
        name = temporary_name(tmp_path / ("x" * n)).name
        assert name.startswith("." + "x" * min(n, fits) + ".") and len(name) == min(n, fits) + longest - fits
    for n in range(longest - 20, longest - 10):
        name = temporary_name(tmp_path / ("x" * (n % 2) + "µ" * (n // 2))).name
        assert len(os.fsencode(name)) <= longest and name.encode().decode() == name


def test_a_place_where_no_file_can_be_made(tmp_path):
    with pytest.raises(FileNotFoundError) as info:
        NewFile(tmp_path / "none" / "a")
    assert info.value.filename == str(tmp_path / "none" / "a")  # a temporary name would tell nobody anything
    assert not whole._unfinished
    with pytest.raises(OSError, match="No space") as info:
        NewFile(tmp_path / "a", disk=Failing(open_new=errno.ENOSPC))
    assert info.value.filename == str(tmp_path / "a") and os.listdir(tmp_path) == []


def test_a_name_that_somebody_takes_just_now(tmp_path, monkeypatch):
    """Free a moment ago: another process begins this very file; and one that somebody locks at once."""
    disk = Failing(open_new=errno.EEXIST)
    with pytest.raises(MrczError, match="another process is writing this file"):
        NewFile(tmp_path / "a", disk=disk)
    with pytest.raises(FileExistsError):
        NewFile(tmp_path / "a", disk=disk, alone=False)

    def locked(fd, path, **wait):
        raise MrczError("another process is writing this file", path=path)

    monkeypatch.setattr(whole, "lock", locked)
    with pytest.raises(MrczError, match="another process is writing this file"):
        NewFile(tmp_path / "a")
    assert os.listdir(tmp_path) == [] and not whole._unfinished


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="needs /dev/fd")
@ways
def test_every_descriptor_is_given_back(tmp_path, way):
    path, before = tmp_path / "a", len(os.listdir("/dev/fd"))
    for _ in range(3):
        new = begun(path, Failing(**way), overwrite=True)
        new.publish()
        new.close()
        with pytest.raises(OSError, match="No space"):
            NewFile(tmp_path / "b", disk=Failing(open_new=errno.ENOSPC))
        os.rename(path, tmp_path / "c")
        assert put_back(tmp_path / "c", path, Failing(**way))
        (tmp_path / "c").write_bytes(b"x")
        assert not put_back(tmp_path / "c", path, Failing(**way))
        assert remove_unchanged(path, lambda found: True, Failing(**way)) is None
        lost = begun(path, Failing(**way, fsync=errno.EIO))
        with pytest.raises(OSError, match="Input/output"):
            lost.publish()
        lost.abort()
    assert len(os.listdir("/dev/fd")) == before


def test_a_temporary_name_that_is_left_empty_is_waited_for_but_not_long(tmp_path, monkeypatch):
    """Somebody may be about to lock it; one that holds frames was locked before they came."""
    new = NewFile(tmp_path / "a")
    left, waits = new.temporary, []
    new.abort()
    monkeypatch.setattr(whole.time, "sleep", lambda seconds: waits.append(seconds))
    for content in (b"", b"frames"):
        left.write_bytes(content)
        waits.clear()
        began = time.monotonic()
        new = NewFile(tmp_path / "a")
        assert new.temporary != left and bool(waits) == (content == b"")
        assert content or time.monotonic() - began >= 0.1
        new.abort()
    assert os.listdir(tmp_path) == [left.name]


# ---- publishing ------------------------------------------------------------------------------------------------------


@ways
@pytest.mark.parametrize("sync", [True, False])
def test_the_file_is_on_the_disk_before_its_name_and_its_name_after(tmp_path, way, sync):
    disk = Failing(**way)
    new = begun(tmp_path / "a", disk, sync=sync)
    assert not new.is_published() and os.listdir(tmp_path) == [new.temporary.name] and new.is_ours
    new.publish()
    assert new.is_published() and new.temporary is None and os.listdir(tmp_path) == ["a"]
    synced = [call for call in disk.calls if "sync" in call]
    assert synced == (["fsync", f"sync_folder {tmp_path.name}"] if sync else [])
    if sync:
        assert disk.calls.index("fsync") < disk.calls.index("rename_new") and disk.calls[-1] == synced[-1]
    new.abort()  # it has its name: nothing is taken away
    new.abort()
    new.close()
    assert (tmp_path / "a").read_bytes() == b"new" and not whole._unfinished


@ways
@pytest.mark.parametrize("overwrite", [True, "judged"])
def test_what_is_replaced_and_what_went_meanwhile(tmp_path, way, overwrite):
    path, asked = tmp_path / "a", []

    def judge(there, new):
        asked.append((os.pread(there, 9, 0), os.pread(new.fd, 9, 0)))

    for stands in (True, False):
        if stands:
            path.write_bytes(b"old")
        new = begun(path, Failing(**way), overwrite=judge if overwrite == "judged" else True)
        if not stands:
            path.unlink()
        new.publish()
        new.close()
        assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["a"]
    assert asked == ([(b"old", b"new")] if overwrite == "judged" else [])
    with pytest.raises(FileExistsError, match="a exists; pass overwrite=True to replace it"):
        NewFile(path)
    assert path.read_bytes() == b"new"


@ways
@pytest.mark.parametrize("call", ["fsync", "rename_new", "link", "replace"])
def test_a_disk_that_fails_leaves_the_temporary_name(tmp_path, way, call):
    disk = Failing(**{**way, call: errno.EIO})
    if call == "link" and "rename_new" not in way:
        return  # not asked for
    path = tmp_path / "a"
    if call == "replace":
        path.write_bytes(b"old")
    new = begun(path, disk, overwrite=True)
    with pytest.raises(OSError, match="Input/output"):
        new.publish()
    assert new.temporary.read_bytes() == b"new" and not new.is_published()
    assert (path.read_bytes() == b"old") if call == "replace" else not path.exists()
    new.abort()
    assert os.listdir(tmp_path) == (["a"] if call == "replace" else []) and not whole._unfinished


def test_the_other_name_of_a_link_may_stay(tmp_path):
    new = begun(tmp_path / "a", Failing(**NO_RENAME, unlink=errno.EIO))
    left = new.temporary
    new.publish()
    new.close()
    assert (tmp_path / "a").read_bytes() == b"new" and os.path.samefile(left, tmp_path / "a")


def test_permissions_asked_for(tmp_path):
    (tmp_path / "b").write_bytes(b"old")
    (tmp_path / "b").chmod(0o666)
    for name in "ab":
        new = begun(tmp_path / name, Disk(), overwrite=True)
        new.mode = 0o604
        new.publish()
        new.close()
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o604


def test_a_link_stays_one(tmp_path):
    (tmp_path / "l").symlink_to(tmp_path / "a")
    for content in (b"one", b"two"):
        with whole_file(tmp_path / "l", overwrite=True) as file:
            file.write(content)
        assert (tmp_path / "l").is_symlink() and (tmp_path / "a").read_bytes() == content


# ---- originals set aside ---------------------------------------------------------------------------------------------


@ways
def test_an_original_gets_its_name_back_if_that_is_free(tmp_path, way):
    aside, path = tmp_path / ".a.orig", tmp_path / "a"
    aside.write_bytes(b"original")
    assert put_back(aside, path, Failing(**way)) is True
    assert os.listdir(tmp_path) == ["a"] and path.read_bytes() == b"original"
    aside.write_bytes(b"another")
    assert put_back(aside, path, Failing(**way)) is False
    assert path.read_bytes() == b"original" and aside.read_bytes() == b"another"


@pytest.mark.parametrize(
    "fails",
    [
        {"rename_new": errno.EIO},
        {**NO_RENAME, "link": errno.EIO},
        {**NO_LINK, "open_new": errno.ENOSPC},
        {**NO_LINK, "replace": errno.EIO},
    ],
)
def test_an_original_that_cannot_go_back_stays_aside(tmp_path, fails):
    aside, path = tmp_path / ".a.orig", tmp_path / "a"
    aside.write_bytes(b"original")
    assert put_back(aside, path, Failing(**fails)) is False
    assert aside.read_bytes() == b"original" and (not path.exists() or path.read_bytes() == b"")


@ways
def test_an_original_goes_if_it_is_the_one(tmp_path, way):
    path, looked = tmp_path / "a", []
    path.write_bytes(b"original")

    def is_it(found):
        looked.append(found)
        return found.read_bytes() == b"original"

    assert remove_unchanged(path, is_it, Failing(**way)) is None
    assert os.listdir(tmp_path) == [] and looked[0] == path and looked[1] != path and len(looked) == 2
    with pytest.raises(FileNotFoundError) as info:
        remove_unchanged(path, is_it)
    assert info.value.filename == str(path) and info.value.errno == errno.ENOENT
    path.write_bytes(b"another")
    assert remove_unchanged(path, is_it, Failing(**way)) == "changed since it was read"
    assert remove_unchanged(path, lambda found: found == path, Failing(**way)) == "changed since it was read"
    assert os.listdir(tmp_path) == ["a"] and path.read_bytes() == b"another" and not whole._aside


@pytest.mark.parametrize("call", ["replace", "unlink"])
def test_an_original_that_the_disk_does_not_let_go_stays(tmp_path, call):
    path = tmp_path / "a"
    path.write_bytes(b"original")
    with pytest.raises(OSError, match="Input/output"):
        remove_unchanged(path, lambda found: True, Failing(**{call: errno.EIO}))
    assert os.listdir(tmp_path) == ["a"] and path.read_bytes() == b"original" and not whole._aside


def test_only_what_this_process_set_aside_goes_back(tmp_path):
    for name, process in (("a", os.getpid()), ("b", -1)):
        (tmp_path / f".{name}.orig").write_bytes(b"original")
        whole._aside[tmp_path / f".{name}.orig"] = tmp_path / name, process
        (tmp_path / f".{name}.part").write_bytes(b"begun")
        whole._unfinished[tmp_path / f".{name}.part"] = process
    try:
        remove_unfinished()
        assert sorted(os.listdir(tmp_path)) == [".b.orig", ".b.part", "a"]
        assert len(whole._aside) == len(whole._unfinished) == 1
        (tmp_path / "a").unlink()
        remove_unfinished()
        assert sorted(os.listdir(tmp_path)) == [".b.orig", ".b.part"]
    finally:
        whole._aside.clear()
        whole._unfinished.clear()


# ---- folders ---------------------------------------------------------------------------------------------------------


def test_folders_and_their_names_are_made_from_above(tmp_path, monkeypatch):
    disk = Failing()
    make_folders(tmp_path / "a" / "b" / "c", disk)
    assert (tmp_path / "a" / "b" / "c").is_dir()
    assert disk.calls == [f"sync_folder {name}" for name in (tmp_path.name, "a", "b")]
    make_folders(tmp_path / "a" / "b", disk)
    assert len(disk.calls) == 3  # all there
    monkeypatch.chdir(tmp_path)
    make_folders(Path("a/d"), disk)
    assert (tmp_path / "a" / "d").is_dir() and disk.calls[3:] == ["sync_folder a"]


def test_somebody_else_makes_the_same_folder(tmp_path, monkeypatch):
    made = os.mkdir

    def mkdir(path, *args):
        made(path, *args)
        made(path, *args)  # the other one was quicker

    monkeypatch.setattr(os, "mkdir", mkdir)
    make_folders(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_a_file_in_use_is_not_begun_anew(tmp_path):
    with whole_file(tmp_path / "a") as file:
        file.write(b"x")
        with pytest.raises(MrczError, match="another process is writing this file"):
            NewFile(tmp_path / "a")
        NewFile(tmp_path / "a", alone=False).abort()


def test_a_program_without_standard_input(tmp_path):
    """Its first file gets descriptor 0, which is given back like any other."""
    kept = os.dup(0)
    try:
        os.close(0)
        new = NewFile(tmp_path / "a")
        assert new.fd == 0
        new.abort()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(0)
    finally:
        os.dup2(kept, 0)
        os.close(kept)
    assert os.listdir(tmp_path) == []
