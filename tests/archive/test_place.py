"""A folder as a place of archives."""

import os

import pytest

from mrcz.archive.place import Folder
from mrcz.errors import FormatError


def test_a_folder(tmp_path):
    place = Folder(tmp_path / "a")
    place.write("s/bagit.txt", b"one")
    place.write("s/bagit.txt", b"other")
    assert place.size("s/bagit.txt") == 5
    with place.open("s/bagit.txt") as file:
        assert file.read() == b"other"
    with place.local("s/bagit.txt") as path:
        assert path == str(tmp_path / "a/s/bagit.txt")
    place.remove("s/bagit.txt")
    with pytest.raises(FileNotFoundError):
        place.size("s/bagit.txt")
    assert os.listdir(tmp_path / "a/s") == []


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "s/../../x", ""])
def test_nothing_leads_out_of_it(tmp_path, path):
    place = Folder(tmp_path)
    for do in (place.size, place.open, place.remove, lambda path: place.write(path, b""), place.at):
        with pytest.raises(FormatError):
            do(path)
