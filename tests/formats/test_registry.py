"""Which format a file is of, and how other packages add theirs."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import numpy as np
import pytest

import mrcz
from mrcz.formats import metadata, registry
from mrcz.formats.base import Format, Frames


def test_names_are_different_and_modules_are_there():
    known = mrcz.formats.formats()
    assert len({one.name for one in known}) == len(known)
    for one in registry.BUILT_IN:
        assert one.module == f"mrcz.formats.{one.name}" or one.module.startswith("mrcz.formats.")
        assert one.magic or one.directory
        assert (one.extra is None) == (one.needs == ())


def test_no_format_takes_an_mrc_file(tmp_path):
    mrcz.write(tmp_path / "a.mrc", np.zeros((2, 3, 4), "i2"))
    with mrcz.open(tmp_path / "a.mrc") as reader:
        assert (reader.format, type(reader)) == ("mrc", mrcz.Reader)
        assert registry.find_format(reader.source) is None


def test_reader_says_who_reads_it(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((2, 3, 4)))
    with pytest.raises(mrcz.FormatError, match=r"NumPy, which mrcz\.open reads"):
        mrcz.Reader(tmp_path / "a.npy")


@pytest.mark.parametrize("word", [{"dataset": "a"}, {"fraction": 2}, {"upsampling": 2}])
def test_an_mrc_file_has_no_such_thing(tmp_path, word):
    mrcz.write(tmp_path / "a.mrc", np.zeros((2, 3, 4), "i2"))
    with pytest.raises(ValueError, match=f"{next(iter(word))} is for files of other formats"):
        mrcz.open(tmp_path / "a.mrc", **word)


class _Steps(Frames):
    """What another package's module would give: frame k is full of k."""

    shape, dtype = (3, 2, 2), np.dtype("u1")

    def read_frame(self, number, out):
        out[...] = number


def open_frames(source, options):
    return _Steps()


class _Entry:
    name = "steps"

    def load(self):
        return Format("steps", "Steps", (".steps",), __name__, ((0, b"STEPS"),))


def test_another_package_adds_a_format(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [_Entry()] if group == "mrcz.formats" else [])
    monkeypatch.setattr(registry, "_module", lambda known: __import__("sys").modules[__name__])
    registry.formats.cache_clear()
    try:
        (tmp_path / "a.steps").write_bytes(b"STEPS")
        with mrcz.open(tmp_path / "a.steps") as reader:
            assert reader.format == "steps"
            assert reader.read()[:, 0, 0].tolist() == [0, 1, 2]
    finally:
        registry.formats.cache_clear()


def test_metadata_leave_out_what_is_not_known():
    said = {"voltage": None, "dose": float("nan"), "camera": "", "stage": [1, 2.5, 3], "frames": 7.0}
    assert metadata.checked(said, {"x": 1}) == {"stage": [1.0, 2.5, 3.0], "frames": 7, "original": {"x": 1}}
    with pytest.raises(KeyError):
        metadata.checked({"volts": 300})


@pytest.mark.parametrize("text", ["1e999999", "1e400", "nan", "-inf", "1_0", "٣", "9" * 65, "", "0x10", "1 2"])
def test_a_text_that_is_no_number(text):
    assert metadata.scaled(text, 10) is None


def test_numbers_are_rounded_once():
    assert metadata.scaled("1.0558814239614023E-10", 10) == 1.0558814239614023
    assert metadata.scaled("-2.7E-06", 6) == -2.7 != -2.7e-6 * 1e6 * 1.0000000000000002
    assert metadata.scaled(8.537755225024313e-11, 10) == 0.8537755225024313
    assert metadata.scaled(" 300000 ", -3) == 300.0
    assert metadata.scaled("9e999999999", 10) is None and metadata.scaled("1e-999999", -10) in (0.0, None)


@pytest.mark.parametrize(
    ("package", "name", "head"), [("h5py", "a.h5", b"\x89HDF\r\n\x1a\n"), ("zarr", "a.zarr/zarr.json", b"{}")]
)
def test_a_package_that_is_not_there_is_named(tmp_path, package, name, head):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(head.ljust(4096, b" "))
    code = f"import sys, mrcz\nsys.modules['{package}'] = None\n"
    code += "try:\n    mrcz.open(sys.argv[1])\nexcept mrcz.MissingDependencyError as error: print(error)"
    place = tmp_path / name.split("/")[0]
    said = subprocess.run([sys.executable, "-c", code, place], capture_output=True, text=True, check=True).stdout
    extra = {"h5py": "hdf5", "zarr": "zarr"}[package]
    assert f"need the package {package}: pip install 'mrcz[{extra}]'" in said and str(place) in said
