"""In which form a file is stored, judged before a pixel is read."""

import numpy as np
import pytest

import mrcz
from mrcz.archive.forms import choose
from mrcz.archive.task import Options


@pytest.mark.parametrize(
    "name, kind, packs, floats",
    [
        ("s1/movies/counts.mrc", "mrc", True, False),
        ("s1/movies/floats.mrc", "mrc", True, True),
        ("s2/packed.mrcz", "mrcz", False, False),
        ("s2/broken.mrc", "", False, False),
        ("s2/none.mrc", "", False, False),
        ("loose.log", "", False, False),
    ],
)
def test_kinds(mixed, name, kind, packs, floats):
    choice = choose(str(mixed / name), Options())
    assert (choice.format, choice.packs, choice.floats) == (kind, packs, floats)
    assert not choose(str(mixed / name), Options("copy")).packs
    assert not choose(str(mixed / name), Options(), named=False).packs
    assert ("kept as it is" in "".join(choice.notes)) == (name == "s2/broken.mrc")


def test_where_pixels_stand(mixed):
    where = choose(str(mixed / "s1/movies/floats.mrc"), Options()).pixels
    data = (mixed / "s1/movies/floats.mrc").read_bytes()
    assert data[slice(*where)] == mrcz.read(mixed / "s1/movies/floats.mrc").tobytes()


@pytest.mark.parametrize("dtype, pack", [(">i2", False), ("u1", True), ("c8", False)])
def test_where_they_do_not(tmp_path, dtype, pack):
    """Big-endian and packed pixels are not in the file as they are read."""
    path = tmp_path / "a.mrc"
    mrcz.write(path, np.ones((2, 5, 7), dtype), pack=pack, byteorder=dtype[0] if dtype[0] == ">" else None)
    choice = choose(str(path), Options())
    data = path.read_bytes()
    as_read = mrcz.read(path)
    assert choice.packs
    if choice.pixels is not None:
        assert data[slice(*choice.pixels)] == as_read.astype(as_read.dtype.newbyteorder("<")).tobytes()
    assert (choice.pixels is None) == (dtype != "c8")


def test_wrapped_files_are_copied(tmp_path):
    import gzip

    mrcz.write(tmp_path / "a.mrc", np.zeros((2, 5, 7), "i1"))
    (tmp_path / "a.mrc.gz").write_bytes(gzip.compress((tmp_path / "a.mrc").read_bytes()))
    choice = choose(str(tmp_path / "a.mrc.gz"), Options())
    assert choice.format == "mrc" and not choice.packs


def test_electron_events_are_copied(tmp_path):
    from formats.seeds import seeds_eer

    (tmp_path / "s").mkdir()
    path = str(seeds_eer(tmp_path / "s")[0])
    assert choose(path, Options()).format == "eer" and not choose(path, Options()).packs
    assert choose(path, Options("mrcz")).packs


def test_the_camera_is_what_is_said(tmp_path):
    mrcz.write(tmp_path / "a.mrc", np.zeros((2, 5, 7), "i1"), kind="stack")
    assert choose(str(tmp_path / "a.mrc"), Options()).camera == ""
