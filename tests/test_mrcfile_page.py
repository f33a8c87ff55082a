"""docs/mrcfile.md: every idiom of mrcfile runs beside ours, and both leave the same variables and the same files."""

import contextlib
import re
import warnings
from pathlib import Path

import mrcfile
import numpy as np
import pytest

import mrcz

PAGE = Path(__file__).resolve().parents[1] / "docs" / "mrcfile.md"
PAIRS = re.findall(r"^```python mrcfile\n(.*?)^```\n```python mrcz\n(.*?)^```\n", PAGE.read_text(), re.M | re.S)


def test_the_page_has_pairs_only():
    assert len(PAIRS) > 20 and PAGE.read_text().count("```python") == 2 * len(PAIRS)


def example_files(folder):
    rng = np.random.default_rng(1)
    with mrcfile.new(folder / "map.mrc", rng.normal(size=(6, 7, 8)).astype(np.float32)) as mrc:
        mrc.voxel_size = (1.5, 1.5, 2)
        mrc.nstart = (-3, 0, 0)
        mrc.add_label("an example")
    mrcfile.write(folder / "image.mrc", rng.normal(size=(9, 10)).astype(np.float32), voxel_size=0.5)
    with mrcfile.new(folder / "movie.mrc", rng.poisson(5, (5, 12, 13)).astype(np.int16)) as mrc:
        mrc.set_image_stack()
    records = np.zeros(2, mrcfile.dtypes.get_ext_header_dtype(b"FEI1"))
    records["Metadata size"], records["Alpha tilt"] = records.itemsize, (-60, -57)
    with mrcfile.new(folder / "fei.mrc", np.ones((2, 4, 4), np.float32)) as mrc:
        mrc.set_image_stack()
        mrc.header.exttyp = "FEI1"
        mrc.set_extended_header(records)


def run(code, folder, monkeypatch):
    folder.mkdir()
    example_files(folder)
    monkeypatch.chdir(folder)
    names: dict = {"np": np, "mrcz": mrcz, "mrcfile": mrcfile}
    with contextlib.redirect_stdout(None), warnings.catch_warnings():
        if "permissive=True" in code:
            warnings.simplefilter("ignore")
        exec(compile(code, str(PAGE), "exec"), names)
    kinds = (int, float, str, bytes, tuple, list, np.ndarray)
    return {name: value for name, value in names.items() if isinstance(value, kinds)}


def assert_same_file(theirs, ours):
    """Pixels, kind, size of pixels, place, statistics, extended header and labels, as mrcfile reads them."""
    with mrcfile.open(theirs) as a, mrcfile.open(ours) as b:
        assert a.data.dtype == b.data.dtype and np.array_equal(a.data, b.data)
        for name in ("mode", "ispg", "mx", "my", "mz", "nxstart", "nystart", "nzstart", "origin", "exttyp", "nsymbt"):
            assert a.header[name] == b.header[name], name
        for name in ("dmin", "dmax", "dmean", "rms"):
            assert a.header[name] == pytest.approx(b.header[name], rel=1e-5), name
        assert a.extended_header.tobytes() == b.extended_header.tobytes()
        sizes = [[float(mrc.voxel_size[axis]) for axis in "xyz"] for mrc in (a, b)]
        programs = ("Created by mrcfile", "MRCZ")
        labels = [[label for label in mrc.get_labels() if not label.startswith(programs)] for mrc in (a, b)]
        return *sizes, labels


def timeless(label):
    """A label without the second in which its file was made: they are made one after the other."""
    return re.sub(r"\d{4}-\d\d-\d\d +\d\d:\d\d:\d\d$", "then", label.rstrip())


@pytest.mark.parametrize(("theirs", "ours"), PAIRS, ids=range(len(PAIRS)))
def test_idiom(theirs, ours, tmp_path, monkeypatch):
    left, right = run(theirs, tmp_path / "mrcfile", monkeypatch), run(ours, tmp_path / "mrcz", monkeypatch)
    for name in left.keys() & right.keys():
        same = np.array_equal(left[name], right[name]) and np.shape(left[name]) == np.shape(right[name])
        if name == "labels":
            assert [timeless(label) for label in left[name]] == [timeless(label) for label in right[name]]
        elif isinstance(left[name], float):
            assert left[name] == pytest.approx(right[name], rel=1e-6)
        else:
            assert same, name
    assert set(left) - set(right) <= {"array", "future"}, "a variable of theirs that ours has not"
    if "permissive=True" in ours:
        return
    names = {path.name for path in (tmp_path / "mrcfile").glob("*.mrc")}
    assert names == {path.name for path in (tmp_path / "mrcz").glob("*.mrc")}
    for name in names:
        a, b, labels = assert_same_file(tmp_path / "mrcfile" / name, tmp_path / "mrcz" / name)
        assert labels[0] == labels[1], name
        if 'kind="' in ours and "edit_header" in ours:
            assert a[:2] == pytest.approx(b[:2])  # along z the page says what is different
        else:
            assert a == pytest.approx(b), name
        if "memmap" not in theirs:
            assert mrcz.validate(tmp_path / "mrcz" / name).ok or not mrcfile.validate(tmp_path / "mrcz" / name)


# ---- names that are none -----------------------------------------------------------------------------------------


@pytest.fixture
def example(tmp_path, monkeypatch):
    example_files(tmp_path)
    monkeypatch.chdir(tmp_path)


FRAMES = np.zeros((2, 4, 4), np.float32)
WRONG = [
    (lambda: mrcz.new("x.mrc"), AttributeError, "mrcz.write"),
    (lambda: mrcz.new_mmap("x.mrc", (1, 2, 3)), AttributeError, "mrcz.open"),
    (lambda: mrcz.mmap("map.mrc"), AttributeError, "memmap"),
    (lambda: mrcz.open_async("map.mrc"), AttributeError, "mrcz.open"),
    (lambda: mrcz.no_such_name, AttributeError, "no attribute 'no_such_name'"),
    (lambda: mrcz.write("x.mrc", FRAMES, voxel_size=1), TypeError, "pixel_size"),
    (lambda: mrcz.write("x.mrc", FRAMES, overwrite=True, voxel_size=1), TypeError, "pixel_size"),
    (lambda: mrcz.write("x.mrc", data=FRAMES), TypeError, "second argument"),
    (lambda: mrcz.write("x.mrc", FRAMES, compression="gzip"), TypeError, "codec"),
    (lambda: mrcz.write("x.mrc", FRAMES, metdata={}), TypeError, "metadata"),
    (lambda: mrcz.Writer("x.mrc", voxel_size=1), TypeError, "pixel_size"),
    (lambda: mrcz.open("x.mrc", "w", voxel_size=1), TypeError, "pixel_size"),
    (lambda: mrcz.open("map.mrc", header_only=True), TypeError, "reads no pixels"),
    (lambda: mrcz.open("map.mrc", threads=2), TypeError, "n_threads"),
    (lambda: mrcz.read("map.mrc", threads=2), TypeError, "n_threads"),
    (lambda: mrcz.open("map.mrc", "r+"), ValueError, "edit_header"),
    (lambda: mrcz.open("x.mrc", "w+"), ValueError, "mrcz.write"),
    (lambda: mrcz.open("map.mrc", mode="x+"), ValueError, "expected 'r', 'w' or 'a'"),
    (lambda: mrcz.open("map.mrc").set_data(FRAMES), AttributeError, "mrcz.write"),
    (lambda: mrcz.open("map.mrc").add_label("x"), AttributeError, "edit_header"),
    (lambda: mrcz.open("map.mrc").get_labels(), AttributeError, "header.labels"),
    (lambda: mrcz.open("map.mrc").no_such_name, AttributeError, "no attribute 'no_such_name'"),
    (lambda: setattr(mrcz.open("map.mrc"), "voxel_size", 1), AttributeError, "edit_header"),
    (lambda: setattr(mrcz.open("map.mrc"), "pixel_size", 1), AttributeError, "edit_header"),
    (lambda: setattr(mrcz.open("map.mrc").voxel_size, "x", 1), ValueError, "read-only"),
    (lambda: mrcz.open("map.mrc").data.__setitem__(0, 1), ValueError, "read-only"),
    (lambda: mrcz.open("packed.mrcz").data.__setitem__(0, 1), ValueError, "read-only"),
    (lambda: mrcz.open("x.mrc", "w").set_data(FRAMES), AttributeError, "extend"),
    (lambda: mrcz.open("map.mrc").read(2, squeeze=True), ValueError, "whole file"),
]


@pytest.mark.parametrize(("call", "kind", "text"), WRONG, ids=range(len(WRONG)))
def test_wrong_names_are_told_the_right_ones(call, kind, text, example):
    mrcz.write("packed.mrcz", FRAMES)
    before = Path("map.mrc").read_bytes()
    with pytest.raises(kind, match=text):
        call()
    assert Path("map.mrc").read_bytes() == before and not Path("x.mrc").exists()


def test_an_error_inside_is_not_taken_for_a_wrong_keyword(tmp_path):
    def frames():
        yield np.zeros((4, 4), np.float32)
        dict(voxel_size=1, **{"voxel_size": 2})

    with pytest.raises(TypeError, match="multiple values"):
        mrcz.write(tmp_path / "x.mrc", frames())
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'array'"):
        mrcz.write(tmp_path / "x.mrc")


@pytest.mark.parametrize("name", ["image.mrc", "movie.mrc", "map.mrc", "volumes.mrc"])
def test_squeeze_shapes_as_mrcfile_does(name, example):
    mrcfile.write("volumes.mrc", np.zeros((2, 3, 4, 5), np.int16))
    data = mrcfile.read(name)
    mrcz.compress(name, "packed.mrcz")
    for path in (name, "packed.mrcz"):
        assert np.array_equal(mrcz.read(path, squeeze=True), data)
        assert mrcz.read(path, squeeze=True).shape == data.shape == mrcz.open(path).data.shape
        assert mrcz.read(path).ndim == 3
        out = np.empty(mrcz.open(path).shape, data.dtype)
        assert np.shares_memory(mrcz.read(path, out=out, squeeze=True), out)


def test_a_voxel_size_of_mrcfile_is_a_pixel_size(example):
    with mrcfile.open("map.mrc") as mrc:
        mrcz.write("x.mrc", FRAMES, pixel_size=mrc.voxel_size)
        mrcz.edit_header("movie.mrc", pixel_size=mrc.voxel_size)
    assert mrcz.open("x.mrc").pixel_size == mrcz.open("movie.mrc").pixel_size == (1.5, 1.5, 2)
