"""Folders that are whole or absent."""

import os

import pytest

from mrcz.errors import MrczError
from mrcz.storage import whole
from mrcz.storage.disk import Disk
from mrcz.storage.folders import whole_folder
from mrcz.storage.whole import NewFile, remove_unfinished


def fill(folder, text=b"new"):
    (folder / "below").mkdir()
    (folder / "below" / "file").write_bytes(text)


def test_a_new_one_appears_when_it_is_whole(tmp_path):
    with whole_folder(tmp_path / "a") as folder:
        assert folder.parent == tmp_path and not (tmp_path / "a").exists() and folder.name.startswith(".a.")
        fill(folder)
    assert os.listdir(tmp_path) == ["a"] and (tmp_path / "a" / "below" / "file").read_bytes() == b"new"
    assert not whole._unfinished


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_and_not_at_all_otherwise(tmp_path, error):
    with pytest.raises(error), whole_folder(tmp_path / "a") as folder:
        fill(folder)
        raise error
    assert os.listdir(tmp_path) == [] and not whole._unfinished


def test_a_signal_between_two_steps(tmp_path):
    """What `mrcz` does when it is ended while it cleans up."""
    making = whole_folder(tmp_path / "a")
    fill(making.__enter__())
    remove_unfinished()
    assert os.listdir(tmp_path) == []
    making.gen.close()


def test_what_may_be_replaced(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine").write_bytes(b"")
    with pytest.raises(FileExistsError), whole_folder(tmp_path / "a"):
        raise AssertionError("it is refused before any work is done")
    with pytest.raises(MrczError, match="no folder of this format"), whole_folder(tmp_path / "a", overwrite=True):
        raise AssertionError("it is refused before any work is done")
    with whole_folder(tmp_path / "a", overwrite=True, may_go=lambda path: path == tmp_path / "a") as folder:
        fill(folder)
    assert os.listdir(tmp_path / "a") == ["below"] and os.listdir(tmp_path) == ["a"]
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(MrczError), whole_folder(tmp_path / "file", overwrite=True, may_go=lambda path: True):
        raise AssertionError
    assert (tmp_path / "file").read_bytes() == b"mine"


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("knows", [True, False])
def test_one_that_appears_meanwhile_stays(tmp_path, monkeypatch, full, knows):
    if not knows:

        class Old(Disk):
            def rename_new(self, source, target):
                raise OSError(22, "Invalid argument")

        monkeypatch.setattr(NewFile, "disk", Old())
    with pytest.raises(FileExistsError), whole_folder(tmp_path / "a") as folder:
        fill(folder)
        (tmp_path / "a").mkdir()
        if full:
            (tmp_path / "a" / "mine").write_bytes(b"")
    assert os.listdir(tmp_path) == ["a"] and os.listdir(tmp_path / "a") == (["mine"] if full else [])


def test_a_rename_that_fails_puts_the_old_one_back(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").write_bytes(b"")
    before = os.rename

    def rename(source, target):
        if str(source).endswith(".part"):
            raise OSError(5, "Input/output error")
        before(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(OSError), whole_folder(tmp_path / "a", overwrite=True, may_go=lambda path: True) as folder:
        fill(folder)
    assert os.listdir(tmp_path) == ["a"] and os.listdir(tmp_path / "a") == ["old"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="nothing is read-only to root")
def test_where_nobody_may_write(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError) as caught, whole_folder(tmp_path / "a"):
        raise AssertionError
    assert caught.value.filename == str(tmp_path / "a")
    tmp_path.chmod(0o700)
