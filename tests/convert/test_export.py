"""Any file out as another: whole or absent, read back, with what is lost named."""

import os
import threading

import numpy as np
import pytest
from servers import RangeServer

import mrcz
from mrcz.convert import export as module
from mrcz.convert.export import export, target_format, targets
from mrcz.errors import FormatError, MissingDependencyError, MrczError, OtherSourceError
from mrcz.formats import npy as npy_module
from mrcz.formats import registry
from mrcz.formats.base import Format, Frames


class FolderFrames(Frames):
    """A format of folders, for these tests: one .npy a folder."""

    def __init__(self, source):
        array = np.load(os.path.join(source.name, "array.npy"))
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def read_frame(self, number, out):
        out[...] = self.array[number]


def open_frames(source, options):
    return FolderFrames(source)


def write_frames(path, frames, *, compression="none", progress=None, n_threads=None):
    assert os.listdir(path) == [], "the folder is there, and empty"
    os.mkdir(os.path.join(path, "below"))
    np.save(os.path.join(path, "array.npy"), np.stack([frames.read(k) for k in range(frames.shape[0])]))


@pytest.fixture
def folders(monkeypatch):
    """With that format among the others."""
    made = Format("folder", "Folder", (".dir",), __name__, directory=("array.npy",), writes=True)
    known = (*registry.formats(), made)
    monkeypatch.setattr(registry, "formats", lambda: known)
    monkeypatch.setattr(module, "formats", lambda: known)
    before = registry._module
    import sys

    monkeypatch.setattr(
        registry, "_module", lambda each: sys.modules[__name__] if each.name == "folder" else before(each)
    )


@pytest.fixture
def movie(tmp_path, rng):
    frames = rng.poisson(2.0, (5, 24, 37)).astype("u2")
    mrcz.write(tmp_path / "a.mrcz", frames, pixel_size=0.83, metadata={"grid": "B3"}, voltage=300.0)
    return frames


def names(folder):
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("name", ["b.mrc", "b.mrcz", "b.npy", "b.tif"])
def test_out_and_back(tmp_path, movie, name):
    if name == "b.tif":
        pytest.importorskip("tifffile")
    told = []
    made = export(tmp_path / "a.mrcz", tmp_path / name, progress=lambda done, total: told.append((done, total)))
    assert made.ok and made.checked and made.shape == movie.shape and made.dtype == "uint16"
    assert made.destination_bytes == os.path.getsize(tmp_path / name) and made.source.endswith("a.mrcz")
    assert told[-1][0] == told[-1][1] and told == sorted(told)
    assert np.array_equal(mrcz.read(tmp_path / name), movie)
    assert set(made.lost) >= ({"grid", "voltage"} if name in ("b.npy", "b.tif") else set())
    assert ("pixel_size" in made.lost) == (name == "b.npy")
    back = export(tmp_path / name, tmp_path / "c.mrcz")
    assert back.checked and np.array_equal(mrcz.read(tmp_path / "c.mrcz"), movie)
    assert names(tmp_path) == sorted({"a.mrcz", name, "c.mrcz"})


@pytest.mark.parametrize("compression", ["lzw", "deflate", "zstd", "none"])
def test_compressions_of_tiff(tmp_path, movie, compression):
    pytest.importorskip("imagecodecs")
    export(tmp_path / "a.mrcz", tmp_path / "b.tif", compression=compression)
    with mrcz.open(tmp_path / "b.tif") as reader:
        assert reader.codec == compression and np.array_equal(reader.read(), movie)


def test_numpy_reads_and_maps_it(tmp_path, movie):
    export(tmp_path / "a.mrcz", tmp_path / "b.npy")
    found = np.load(tmp_path / "b.npy", mmap_mode="r")
    assert found.dtype == np.uint16 and np.array_equal(found, movie)
    with pytest.raises(ValueError, match=r"compression is 'zip'; a .npy file has none"):
        export(tmp_path / "a.mrcz", tmp_path / "c.npy", compression="zip")
    assert names(tmp_path) == ["a.mrcz", "b.npy"]


def test_dtype(tmp_path, rng):
    mrcz.write(tmp_path / "a.mrc", rng.normal(0, 9, (3, 8, 9)).astype("f4"))
    made = export(tmp_path / "a.mrc", tmp_path / "b.npy", dtype="f8")
    assert made.dtype == "float64" and np.load(tmp_path / "b.npy").dtype == np.float64
    export(tmp_path / "b.npy", tmp_path / "c.mrc", dtype="f4")
    assert np.array_equal(mrcz.read(tmp_path / "c.mrc"), mrcz.read(tmp_path / "a.mrc"))
    with pytest.raises(ValueError, match=r"a.mrc: frame 0 holds .* which is no int16"):
        export(tmp_path / "a.mrc", tmp_path / "d.npy", dtype="i2")
    with pytest.raises(TypeError, match="float64"):
        export(tmp_path / "b.npy", tmp_path / "d.mrcz")
    assert not (tmp_path / "d.npy").exists()


def test_what_tiff_does_not_hold(tmp_path):
    pytest.importorskip("tifffile")
    mrcz.write(tmp_path / "a.mrc", np.ones((2, 8, 9), "c8"))
    with pytest.raises(ValueError, match="frames of complex64 are not written as TIFF"):
        export(tmp_path / "a.mrc", tmp_path / "a.tif")
    with pytest.raises(TypeError, match="complex pixels do not become"):
        export(tmp_path / "a.mrc", tmp_path / "a.tif", dtype="f4")
    assert names(tmp_path) == ["a.mrc"]


def test_names_say_the_format():
    assert [target_format(name) for name in ("a.MRC", "a.st", "b.mrcz", "c.PNG", "d.jpeg", "e.npy")] == [
        "mrc", "mrc", "mrcz", "png", "jpeg", "npy",
    ]  # fmt: skip
    assert target_format("x", "npy") == target_format("x.out", "npy") == "npy"
    assert {"mrc", "mrcz", "npy", "png", "jpeg"} <= set(targets()) and "eer" not in targets()
    for name, to, said in (
        ("a", None, "a name without a suffix"),
        ("a.eer", None, "the suffix .eer is of no format that is written"),
        ("a.npy", "tif", "no format 'tif'"),
        ("a.npy", "mrc", "its suffix says npy"),
    ):
        with pytest.raises(ValueError, match=said):
            target_format(name, to)


def test_what_stands_there_stays(tmp_path, movie):
    (tmp_path / "b.npy").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        export(tmp_path / "a.mrcz", tmp_path / "b.npy")
    assert (tmp_path / "b.npy").read_bytes() == b"mine"
    export(tmp_path / "a.mrcz", tmp_path / "b.npy", overwrite=True)
    mrcz.write(tmp_path / "m.mrc", movie)
    mrcz.compress(tmp_path / "m.mrc", tmp_path / "archive")
    with pytest.raises(OtherSourceError):
        export(tmp_path / "a.mrcz", tmp_path / "archive", to="npy", overwrite=True)
    export(tmp_path / "a.mrcz", tmp_path / "archive", to="npy", overwrite="any")
    for name in ("a.mrcz", "b.npy"):
        with pytest.raises(ValueError, match="is the source itself"):
            export(tmp_path / name, tmp_path / name, overwrite=True)


@pytest.mark.parametrize("when", ["write", "wrong pixels", "wrong shape", "no file", "changed"])
def test_whole_or_absent(tmp_path, movie, monkeypatch, when):
    (tmp_path / "b.npy").write_bytes(b"mine")
    before = npy_module.write_frames

    def broken(path, frames, **options):
        if when == "write":
            raise OSError(28, "No space left on device", os.fspath(path))
        before(path, frames, **options)
        with open(path, "r+b") as file:
            if when == "wrong pixels":
                file.seek(-1, os.SEEK_END)
                file.write(b"\x7f")
            elif when == "wrong shape":
                file.truncate(300)
            elif when == "no file":
                file.write(b"x" * 20)
        if when == "changed":
            os.utime(tmp_path / "a.mrcz", ns=(1, 1))

    monkeypatch.setattr(npy_module, "write_frames", broken)
    with pytest.raises((OSError, MrczError)) as caught:
        export(tmp_path / "a.mrcz", tmp_path / "b.npy", overwrite=True)
    assert names(tmp_path) == ["a.mrcz", "b.npy"] and (tmp_path / "b.npy").read_bytes() == b"mine"
    if when == "write":
        assert caught.value.filename == str(tmp_path / "b.npy")
    elif when == "wrong pixels":
        assert "frame 4 differs at (y, x) = (23, 36)" in str(caught.value)
    else:
        assert ("changed while" if when == "changed" else "is not the same") in str(caught.value)


def test_what_the_writer_keeps_of_other_names_is_not_lost(tmp_path, movie, monkeypatch):
    before = npy_module.NpyFrames.__init__

    def told(self, source):
        before(self, source)
        self.metadata = {"original": {"mrcz": {"grid": "B3"}, "npy": {}}}

    monkeypatch.setattr(npy_module.NpyFrames, "__init__", told)
    assert export(tmp_path / "a.mrcz", tmp_path / "b.npy").lost == ("pixel_size", "voltage")


def test_folders(tmp_path, movie, folders):
    made = export(tmp_path / "a.mrcz", tmp_path / "b.dir")
    assert made.format == "folder" and made.destination_bytes == (tmp_path / "b.dir" / "array.npy").stat().st_size
    assert names(tmp_path) == ["a.mrcz", "b.dir"] and np.array_equal(mrcz.read(tmp_path / "b.dir"), movie)
    with pytest.raises(FileExistsError):
        export(tmp_path / "a.mrcz", tmp_path / "b.dir")
    (tmp_path / "b.dir" / "old").write_bytes(b"")
    export(tmp_path / "a.mrcz", tmp_path / "b.dir", overwrite=True)
    assert names(tmp_path / "b.dir") == ["array.npy", "below"] and names(tmp_path) == ["a.mrcz", "b.dir"]
    (tmp_path / "thesis.dir").mkdir()
    (tmp_path / "thesis.dir" / "all of it").write_bytes(b"")
    with pytest.raises(MrczError, match="is no folder of this format, and is not replaced"):
        export(tmp_path / "a.mrcz", tmp_path / "thesis.dir", overwrite=True)
    assert names(tmp_path / "thesis.dir") == ["all of it"]


def test_arguments_of_the_other_kind(tmp_path, movie):
    with pytest.raises(ValueError, match="frame, size: for pictures"):
        export(tmp_path / "a.mrcz", tmp_path / "b.npy", frame=1, size=4)
    with pytest.raises(ValueError, match="this is a picture"):
        export(tmp_path / "a.mrcz", tmp_path / "b.png", dtype="u1")
    with pytest.raises(ValueError, match="a plain MRC file has none"):
        export(tmp_path / "a.mrcz", tmp_path / "b.mrc", compression="zstd")
    with pytest.raises(ValueError, match=r"EER.* files are read, not written"):
        registry.write_frames(registry.by_name("eer"), tmp_path / "x", None)
    with pytest.raises(FormatError):
        export(__file__, tmp_path / "b.npy")
    assert names(tmp_path) == ["a.mrcz"]


def test_what_is_not_installed_is_named(tmp_path, movie, monkeypatch):
    import sys

    for missing in ("tifffile", "imagecodecs", "PIL"):
        monkeypatch.setitem(sys.modules, missing, None)
    for name, extra in (("b.tif", "tiff"), ("b.png", "picture")):
        with pytest.raises(MissingDependencyError, match=rf"{name}.*mrcz\[{extra}\]"):
            export(tmp_path / "a.mrcz", tmp_path / name)
    assert names(tmp_path) == ["a.mrcz"]


def test_from_a_server(tmp_path, movie):
    export(tmp_path / "a.mrcz", tmp_path / "a.npy")
    with RangeServer(tmp_path) as server:
        for name, new in (("a.mrcz", "b.npy"), ("a.npy", "b.mrcz"), ("a.npy", "b.mrc"), ("a.mrcz", "b.png")):
            made = export(f"{server.url}/{name}", tmp_path / new)
            assert made.source == f"{server.url}/{name}" and made.source_bytes == os.path.getsize(tmp_path / name)
            assert new == "b.png" or np.array_equal(mrcz.read(tmp_path / new), movie)
        with pytest.raises(ValueError, match="a URL is read, and not removed"):
            mrcz.compress(f"{server.url}/a.npy", tmp_path / "c.mrcz", remove=True)


def test_two_at_a_time(tmp_path, movie):
    """One gets the name, the other is told."""
    outcomes = []

    def work():
        try:
            outcomes.append(export(tmp_path / "a.mrcz", tmp_path / "b.npy").ok)
        except (FileExistsError, MrczError):
            outcomes.append(False)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count(True) == 1 and len(outcomes) == 4 and names(tmp_path) == ["a.mrcz", "b.npy"]


@pytest.mark.parametrize("dtype", [None, "f4"])
@pytest.mark.parametrize("name", ["b.h5", "b.zarr"])
def test_the_microscope_and_the_frames_come_along(tmp_path, rng, name, dtype):
    """Voltage and Cs of an MRCZ header, and what is said of each frame, documented or not."""
    stack = rng.poisson(1, (4, 9, 11)).astype("u1")
    with mrcz.Writer(tmp_path / "a.mrcz", voltage=300.0, c3=2.7, pixel_size=0.9, metadata={"grid": "B3"}) as writer:
        for k, frame in enumerate(stack):
            writer.append(
                frame, metadata={"frame_dose": 1.5 + k, "shift": [k, -0.25], "blank": None} if k != 2 else None
            )
    made = export(tmp_path / "a.mrcz", tmp_path / name, dtype=dtype)
    assert made.lost == ()
    with mrcz.open(tmp_path / name) as reader:
        assert (reader.metadata["voltage"], reader.metadata["cs"]) == (300.0, pytest.approx(2.7))
        assert [one.get("frame_dose") for one in reader.frame_metadata] == [1.5, 2.5, None, 4.5]
        assert reader.frame_metadata[3]["original"]["mrcz"]["shift"] == [3, -0.25]
        assert reader.frame_metadata[2] == {}
    # And once more round: into an archive, which has them in its footer.
    back = mrcz.compress(tmp_path / name, tmp_path / "back.mrcz")
    assert back.checked and back.lost == ()
    with mrcz.open(tmp_path / "back.mrcz") as reader:
        assert reader.frame_metadata[1]["frame_dose"] == 2.5 and reader.header.voltage == 300.0
    assert export(tmp_path / "a.mrcz", tmp_path / "b.npy").lost == (
        "pixel_size",
        "grid",
        "frame_metadata",
        "voltage",
        "c3",
    )


@pytest.mark.parametrize("said", ["17", "[]", "[1, 2]", '[{"frame_dose": "x"}, {}, {}]', "[{}, {}]", "{", "[[], {}]"])
def test_metadata_of_frames_that_are_none(tmp_path, said):
    h5py = pytest.importorskip("h5py")
    mrcz.write(tmp_path / "a.mrcz", np.zeros((2, 3, 4), "u1"))
    export(tmp_path / "a.mrcz", tmp_path / "b.h5")
    with h5py.File(tmp_path / "b.h5", "r+") as file:
        file.create_group("entry/mrcz_frame_metadata")["data"] = said
    with mrcz.open(tmp_path / "b.h5") as reader:
        assert reader.frame_metadata == [{}, {}]
