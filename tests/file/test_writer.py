"""Writing: which arrays become which files, choices on request, errors that say what would help."""

import errno
import os

import mrcfile
import numpy as np
import pytest
from wrong_arguments import WRONG_PIXEL_SIZES

import mrcz
from mrcz.convert.zarr import write_references
from mrcz.file.growing import GrowingFile
from mrcz.filetypes import MRC_SUFFIXES
from mrcz.session.correct import correct_file
from mrcz.session.references import save_image, save_mask
from mrcz.storage.disk import Disk


@pytest.mark.parametrize("suffix", (".mrc", ".mrcz"))
def test_volume_stacks_from_four_axes(tmp_path, rng, suffix):
    volumes = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    path = tmp_path / f"v{suffix}"
    mrcz.write(path, volumes, pixel_size=(1, 2, 3))
    with mrcz.open(path) as reader:
        assert reader.kind == "volume stack" and reader.is_volume_stack()
        assert reader.shape == (6, 4, 5) and reader.header.mz == 3
        assert reader.pixel_size == (1, 2, 3)
        assert np.array_equal(reader.data, volumes)
        assert np.array_equal(reader[4], volumes[1, 1])
    if suffix == ".mrc":
        assert mrcfile.validate(path)
        with mrcfile.open(path) as theirs:
            assert theirs.is_volume_stack() and np.array_equal(theirs.data, volumes)


def test_volume_stacks_section_by_section(tmp_path, rng):
    volumes = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    path = tmp_path / "v.mrcz"
    with mrcz.open(path, "w", kind="volume stack", mz=3) as writer:
        for section in volumes.reshape(6, 4, 5):
            writer.append(section)
            writer.flush()  # sections of an incomplete volume are a stack until the rest has come
            with mrcz.open(path) as reader:
                assert len(reader) == len(writer)
                assert reader.is_volume_stack() == (len(reader) % 3 == 0)
    assert np.array_equal(mrcz.open(path).data, volumes)
    path = tmp_path / "w.mrc"
    with pytest.raises(ValueError, match="whole volumes"), mrcz.open(path, "w", kind="volume stack", mz=3) as writer:
        writer.extend(volumes[0, :2])
    assert not path.exists()


# ---- names -----------------------------------------------------------------------------------------------------------


def make_references(path, **options):
    source = path.parent / "source.mrcz"
    if not source.exists():
        mrcz.write(source, np.zeros((2, 8, 8), "u2"))
    write_references(source, path, **options)


def make_with_open(path, **options):
    with mrcz.open(path, "w", **options) as writer:
        writer.append(np.ones((8, 8), "u2"))


def make_products(path, **options):
    source = path.parent / "raw.mrcz"
    if not source.exists():
        mrcz.write(source, np.random.default_rng(0).poisson(2, (4, 16, 16)).astype("u2"))
    correct_file(source, {"stack": str(path), "sum": f"{path}_sum.mrc", "mask": f"{path}_mask.mrc"}, **options)


MAKERS = {
    "write": ("a.mrcz", lambda path, **options: mrcz.write(path, np.ones((2, 8, 8), "u2"), **options)),
    "open": ("a.mrc", make_with_open),
    "image": ("a.mrc", lambda path, **options: save_image(path, np.ones((8, 8), "f4"), **options)),
    "array": ("a.npy", lambda path, **options: save_image(path, np.ones((8, 8), "f4"), **options)),
    "tiff": ("a.tif", lambda path, **options: save_image(path, np.ones((8, 8), "f4"), **options)),
    "mask": ("a.mrc", lambda path, **options: save_mask(path, np.ones((8, 8)), **options)),
    "text": ("a.txt", lambda path, **options: save_mask(path, np.ones((8, 8)), **options)),
    "references": ("a.json", make_references),
    "products": ("a.mrcz", make_products),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_no_file_is_replaced_unasked(tmp_path, kind):
    name, make = MAKERS[kind]
    path = tmp_path / name
    path.write_bytes(b"precious")
    path.chmod(0o640)
    with pytest.raises(FileExistsError, match=rf"{name} exists; pass overwrite=True to replace it"):
        make(path)
    assert path.read_bytes() == b"precious"
    make(path, overwrite=True)
    assert path.read_bytes() != b"precious" and path.stat().st_mode & 0o777 == 0o640
    first = {p.name: p.stat().st_ino for p in tmp_path.iterdir()}
    with pytest.raises(FileExistsError, match="exists; pass overwrite=True to replace it"):
        make(path)
    assert {p.name: p.stat().st_ino for p in tmp_path.iterdir()} == first
    assert not [p for p in tmp_path.iterdir() if p.name.endswith((".part", ".tmp"))]


def test_the_old_call_replaces_as_it_always_did(tmp_path):
    path = tmp_path / "a.mrcz"
    for k in range(2):
        mrcz.writeMRC(np.full((2, 8, 8), k, "u2"), path, compressor="zstd")
        assert mrcz.readMRC(path)[0].max() == k


def test_a_failed_reference_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    make_references(path)
    before = path.read_bytes()
    monkeypatch.setattr("mrcz.storage.whole.NewFile.disk", Broken("fsync"))
    with pytest.raises(OSError, match="Input/output"):
        make_references(path, overwrite=True)
    with pytest.raises(OSError, match="Input/output"):
        save_image(tmp_path / "a.npy", np.ones((8, 8)))
    assert path.read_bytes() == before and sorted(os.listdir(tmp_path)) == ["a.json", "source.mrcz"]


class Broken(Disk):
    """A disk that fails at a call."""

    def __init__(self, call):
        self.call = call

    def fsync(self, fd):
        if self.call == "fsync":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().fsync(fd)


FOREIGN = "m.mrc.gz m.mrcz.GZ m.mrc.bz2 m.xz m.mrc.zst m.tif m.TIFF m.h5 m.npy m.png m.dm4".split()


@pytest.mark.parametrize("name", FOREIGN)
def test_a_name_that_says_something_else_is_refused(tmp_path, name):
    path, stack = tmp_path / name, np.zeros((2, 8, 8), "u2")
    for make in (
        lambda: mrcz.write(path, stack),
        lambda: mrcz.write(path, stack, codec="none", overwrite=True),
        lambda: mrcz.open(path, "w"),
        lambda: mrcz.open(path, "a"),
        lambda: mrcz.writeMRC(stack, path),
        lambda: make_products(path),
    ):
        with pytest.raises(ValueError, match=rf"{name}: (\.\w+ is read, not written; write m\.mrc|its suffix says)"):
            make()
    assert [p.name for p in tmp_path.iterdir() if p.name != "raw.mrcz"] == []


@pytest.mark.parametrize("suffix", [*MRC_SUFFIXES, ".MRC", ".mrcz", ".tmp", ".0", ""])
def test_the_suffix_chooses_compression(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    mrcz.write(path, np.zeros((2, 8, 8), "u2"))
    assert mrcz.open(path).is_compressed == (suffix.lower() not in MRC_SUFFIXES)


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
@pytest.mark.parametrize("suffix", [".mrcz", ".mrc"])
def test_a_file_is_no_copy_of_itself(tmp_path, rng, link, suffix):
    path = other = tmp_path / f"a{suffix}"
    mrcz.write(path, rng.poisson(2, (4, 16, 16)).astype("u2"))
    if link:
        other = tmp_path / f"b{suffix}"
        link(path, other)
    before = path.read_bytes()
    with mrcz.open(path) as reader:
        for make in (
            lambda: mrcz.write(other, reader, overwrite=True),
            lambda: mrcz.compress(path, other, overwrite=True),
            lambda: write_references(path, other, overwrite=True),
            lambda: correct_file(path, {"stack": str(other)}, overwrite=True),
            lambda: correct_file(path, {"mask": str(other)}, overwrite=True),
        ):
            with pytest.raises(ValueError, match="itself"):
                make()
        with pytest.raises(ValueError, match="itself"), mrcz.open(other, "a") as writer:
            writer.extend(reader)
        mrcz.write(tmp_path / "c.mrcz", reader)
    assert path.read_bytes() == before and other.read_bytes() == before
    with pytest.raises(ValueError, match="asked for twice"):
        correct_file(path, {"sum": str(tmp_path / "d.mrc"), "mask": str(tmp_path / "d.mrc")})


# ---- pixels that turn out larger -------------------------------------------------------------------------------------


class Full(Disk):
    """A disk that takes so many writes more."""

    left = 1 << 30

    def pwrite(self, fd, data, offset):
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().pwrite(fd, data, offset)


@pytest.mark.parametrize("suffix", [".mrcz", ".mrc"])
@pytest.mark.parametrize("pack", [False, "auto"])
def test_a_full_disk_while_pixels_are_written_again(tmp_path, rng, monkeypatch, suffix, pack):
    """The first frames stay, the second temporary file goes, and the Writer goes on from where it was."""
    path, disk = tmp_path / f"a{suffix}", Full()
    monkeypatch.setattr(GrowingFile, "disk", disk)
    frames = rng.integers(0, 15, (4, 16, 16)).astype("u1")
    large = frames + np.uint8(200)
    for left in range(2):  # at the headers of the second file, at its true header
        with mrcz.open(path, "w", pack=pack, overwrite=True) as writer:
            writer.extend(frames[:3])
            temporary = os.listdir(tmp_path)
            disk.left = left
            with pytest.raises(OSError, match="No space left"):
                writer.append(large[0])
            assert os.listdir(tmp_path) == temporary  # the one there was, and no other
            disk.left = 1 << 30
            assert len(writer) == 3 and writer.dtype == np.uint8
            writer.append(frames[3])
        assert np.array_equal(mrcz.read(path), frames) and os.listdir(tmp_path) == [path.name]
        path.unlink()
    with mrcz.open(path, "w", pack=pack) as writer:
        writer.extend(frames)
        writer.append(large[0])
    assert np.array_equal(mrcz.read(path), [*frames, large[0]]) and os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("pack", [False, "auto"])
def test_pixels_that_would_make_a_chunk_too_large(tmp_path, rng, monkeypatch, pack):
    """Bytes of more than a gigabyte a frame fit a chunk, as uint16 they do not: known before anything is written."""
    monkeypatch.setattr("mrcz.file.encoding.FRAME_MAX", 200 if pack else 300)
    path = tmp_path / "a.mrcz"
    frames = rng.integers(0, 15, (3, 16, 16)).astype("u1")
    with mrcz.open(path, "w", pack=pack) as writer:
        writer.extend(frames[:2])
        before = os.listdir(tmp_path)
        with pytest.raises(ValueError, match=r"a\.mrcz: a pixel does not fit \d bits, .* too large for one chunk"):
            writer.append(frames[0] + np.uint8(200))
        assert os.listdir(tmp_path) == before and len(writer) == 2
        writer.append(frames[2])
    assert np.array_equal(mrcz.read(path), frames) and os.listdir(tmp_path) == ["a.mrcz"]
    with mrcz.open(tmp_path / "b.mrcz", "w") as writer:
        with pytest.raises(ValueError, match="too large for one chunk"):
            writer.append(np.zeros((20, 20), "u1"))
        writer.append(np.zeros((9, 9), "u1"))  # the first frame was refused: its shape does not count


def test_a_mask_is_not_dropped_in_silence(tmp_path):
    masked = np.ma.masked_array(np.ones((2, 8, 8), "i2"), np.zeros((2, 8, 8), bool))
    for array in (masked, masked[0], list(masked)):
        with pytest.raises(TypeError, match="no place for a mask"):
            mrcz.write(tmp_path / "a.mrc", array)
    with pytest.raises(TypeError, match="no place for a mask"), mrcz.Writer(tmp_path / "a.mrc") as writer:
        writer.append(masked[0])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", WRONG_PIXEL_SIZES, ids=str)
def test_pixel_sizes_that_are_none(tmp_path, wrong):
    """Told at once, not at the first frame, and before a file is begun."""
    says = r"pixel_size is .*, expected one or three \(x, y, z\) numbers in Å, 0 or more"
    with pytest.raises(ValueError, match=says):
        mrcz.open(tmp_path / "a.mrc", "w", pixel_size=wrong)
    with pytest.raises(ValueError, match=says):
        mrcz.write(tmp_path / "a.mrcz", np.zeros((2, 4, 4), "f4"), pixel_size=wrong)
    assert os.listdir(tmp_path) == []
