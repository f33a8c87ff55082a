"""HDF5: plain data sets, against h5py and hdf5plugin; links, what is not stored, and what a file only claims."""

from __future__ import annotations

import io
import os
import shutil
import sys

import h5py
import hdf5plugin
import numpy as np
import pytest
from rewriting import rewrite

import mrcz
from mrcz.formats.base import FormatOptions
from mrcz.formats.hdf5 import open_frames
from mrcz.storage.source import ObjectSource

STACK = np.random.default_rng(1).poisson(3, (5, 9, 7)).astype("<u2")

#: How h5py is asked for each kind of storage.
KINDS = {
    "contiguous": {},
    "gzip a frame": {"chunks": (1, 9, 7), "compression": "gzip"},
    "shuffled gzip a frame": {"chunks": (1, 9, 7), "compression": "gzip", "shuffle": True},
    "plain chunk a frame": {"chunks": (1, 9, 7)},
    "several frames a chunk": {"chunks": (3, 4, 5), "compression": "gzip", "fletcher32": True},
    "lzf": {"chunks": (2, 9, 7), "compression": "lzf"},
    "szip": {"chunks": (1, 8, 4), "compression": "szip"},
    "scaleoffset": {"chunks": (1, 9, 7), "scaleoffset": 0},
    "blosc a frame": {"chunks": (1, 9, 7), **hdf5plugin.Blosc(cname="zstd", shuffle=hdf5plugin.Blosc.BITSHUFFLE)},
    "blosc lz4": {"chunks": (2, 9, 7), **hdf5plugin.Blosc(cname="lz4")},
    "blosc2": {"chunks": (1, 9, 7), **hdf5plugin.Blosc2()},
    "bitshuffle": {"chunks": (1, 9, 7), **hdf5plugin.Bitshuffle(cname="lz4")},
    "bitshuffle zstd": {"chunks": (2, 9, 7), **hdf5plugin.Bitshuffle(cname="zstd")},
    "bitshuffle alone": {"chunks": (1, 9, 7), **hdf5plugin.Bitshuffle(cname="none")},
    "lz4": {"chunks": (1, 9, 7), **hdf5plugin.LZ4()},
    "shuffled zstd of tiles": {"chunks": (1, 5, 5), "shuffle": True, **hdf5plugin.Zstd()},
    "zstd": {"chunks": (1, 9, 7), **hdf5plugin.Zstd()},
    "can grow": {"maxshape": (None, 9, 7), "chunks": (1, 9, 7), "compression": "gzip"},
}


def make(path, data=STACK, name="entry/data", **words):
    with h5py.File(path, "w") as file:
        file.create_dataset(name, data=data, **words)
    return path


def same(path, expected, **words):
    with mrcz.open(path, **words) as reader:
        assert (reader.format, reader.shape, reader.dtype) == ("hdf5", expected.shape, expected.dtype)
        np.testing.assert_array_equal(reader.read(n_threads=3), expected)
        np.testing.assert_array_equal(reader[-1, 2:5, 1:4], expected[-1, 2:5, 1:4])
        return reader


#: Of numbers of other kinds szip knows none, and scaleoffset takes one byte order.
TYPES = [
    (kind, dtype)
    for kind in KINDS
    for dtype in ("<u2", ">u2", "u1", "<i4", "<f4", ">f4", "<f8", "<f2", "?", "<c8")
    if dtype in ("<u2", "u1", "<i4") or kind not in ("szip", "scaleoffset")
]


@pytest.mark.parametrize(("kind", "dtype"), TYPES)
def test_pixels_are_those_of_h5py(tmp_path, kind, dtype):
    words = KINDS[kind]
    data = STACK.astype(dtype)
    make(tmp_path / "a.h5", data, **words)
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["entry/data"][...], data)
    same(tmp_path / "a.h5", data)


def test_frames_in_one_piece_are_read_without_hdf5s_lock(tmp_path):
    for kind in (
        "contiguous",
        "gzip a frame",
        "plain chunk a frame",
        "blosc a frame",
        "bitshuffle",
        "zstd",
        "can grow",
    ):
        assert same(make(tmp_path / "a.h5", **KINDS[kind]), STACK).original.concurrent, kind
    for kind in ("lzf", "several frames a chunk", "blosc lz4"):
        assert not same(make(tmp_path / "a.h5", **KINDS[kind]), STACK).original.concurrent, kind


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 9), (2, 6, 1), (300, 2, 3)])
def test_odd_sizes(tmp_path, shape):
    data = np.arange(np.prod(shape), dtype="i2").reshape(shape)
    for words in ({}, {"chunks": (1, *shape[1:]), "compression": "gzip"}):
        with mrcz.open(make(tmp_path / "a.h5", data, **words)) as reader:
            np.testing.assert_array_equal(reader.read(), data)


def test_two_axes_are_an_image_and_four_a_scan(tmp_path):
    with mrcz.open(make(tmp_path / "a.h5", STACK[0])) as reader:
        assert (reader.shape, reader.kind) == ((1, 9, 7), "image")
        np.testing.assert_array_equal(reader.data, STACK[0])
    scan = np.arange(2 * 3 * 4 * 5, dtype="u2").reshape(2, 3, 4, 5)
    for words in ({}, {"chunks": (1, 1, 4, 5), "compression": "gzip"}, {"chunks": (2, 2, 2, 2)}):
        with mrcz.open(make(tmp_path / "a.h5", scan, **words)) as reader:
            assert reader.shape == (6, 4, 5)
            np.testing.assert_array_equal(reader.read(), scan.reshape(6, 4, 5))


def test_compact_and_old_and_new_files(tmp_path):
    for libver in ("earliest", "latest"):
        with h5py.File(tmp_path / "a.h5", "w", libver=libver) as file:
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plist.set_layout(h5py.h5d.COMPACT)
            space = h5py.h5s.create_simple(STACK.shape)
            made = h5py.h5d.create(file.id, b"small", h5py.h5t.NATIVE_UINT16, space, plist)
            made.write(h5py.h5s.ALL, h5py.h5s.ALL, STACK)
        same(tmp_path / "a.h5", STACK)
        for kind in ("gzip a frame", "several frames a chunk", "can grow"):
            with h5py.File(tmp_path / "a.h5", "w", libver=libver) as file:
                file.create_dataset("a", data=STACK, **KINDS[kind])
            same(tmp_path / "a.h5", STACK)


def test_integers_of_fewer_bits_are_unpacked(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        stored = h5py.h5t.STD_U16LE.copy()
        stored.set_precision(12)
        stored.set_offset(4)
        made = h5py.h5d.create(file.id, b"a", stored, h5py.h5s.create_simple(STACK.shape))
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, STACK)
    same(tmp_path / "a.h5", STACK)


def test_enumerations_are_numbers(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a", data=STACK.astype("i1"), dtype=h5py.enum_dtype({"NO": 0, "YES": 1}, "i1"))
    same(tmp_path / "a.h5", STACK.astype("i1"))


def test_a_file_object(tmp_path):
    for kind in ("contiguous", "gzip a frame", "lzf"):
        raw = make(tmp_path / "a.h5", **KINDS[kind]).read_bytes()
        same(io.BytesIO(raw), STACK)


def test_a_file_that_h5py_has_open_and_may_open_again(tmp_path):
    make(tmp_path / "a.h5")
    with (
        h5py.File(tmp_path / "a.h5") as before,
        mrcz.open(tmp_path / "a.h5") as reader,
        h5py.File(tmp_path / "a.h5") as after,
    ):
        np.testing.assert_array_equal(before["entry/data"][1], reader[1])
        np.testing.assert_array_equal(after["entry/data"][1], reader[1])


@pytest.mark.parametrize("size", [1, 7, 8, 1000, 4096, 20001])
@pytest.mark.parametrize("dtype", ["u1", "<u2", "<f4", "<f8"])
def test_blocks_of_bitshuffle_and_lz4(tmp_path, dtype, size):
    """Decoded here, encoded by hdf5plugin: blocks of each length, pixels that shrink and that do not."""
    rng = np.random.default_rng(size)
    noise = np.frombuffer(rng.bytes(2 * size * 8), "u1")[: 2 * size * np.dtype(dtype).itemsize].view(dtype)
    for data in (noise, rng.poisson(1, 2 * size).astype(dtype)):
        data = data.reshape(2, 1, size)
        filters = [hdf5plugin.Bitshuffle(nelems=n, cname=name) for n in (0, 8, 512) for name in ("lz4", "zstd")]
        for words in (*filters, hdf5plugin.LZ4(), hdf5plugin.LZ4(nbytes=100)):
            make(tmp_path / "a.h5", data, chunks=(1, 1, size), **words)
            with mrcz.open(tmp_path / "a.h5") as reader:
                assert reader.original.concurrent
                assert reader.read().tobytes() == data.tobytes()


def test_blocks_that_lie(tmp_path):
    """hdf5plugin ends the process for some of these."""
    make(tmp_path / "a.h5", **KINDS["bitshuffle"])
    with h5py.File(tmp_path / "a.h5") as file:
        place = file["entry/data"].id.get_chunk_info(2).byte_offset
        size = file["entry/data"].id.get_chunk_info(2).size
    whole = (tmp_path / "a.h5").read_bytes()
    found = 0
    for k in range(size):
        for bits in (1, 0x80, 0xFF):
            raw = bytearray(whole)
            raw[place + k] ^= bits
            rewrite(tmp_path / "b.h5", raw)
            try:
                with mrcz.open(tmp_path / "b.h5") as reader:
                    assert reader.read().shape == STACK.shape
            except mrcz.ChunkError as error:
                assert error.frame == 2 and error.offset == place
                found += 1
    assert found > 12 * 3 - 8  # all of the sizes, but for those of a block that may be any large number


# ---- which data set ------------------------------------------------------------------------------------------


def test_a_path_chooses(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["one"], file["two/three"], file["line"] = STACK, STACK[:2] + 1, np.arange(1000)
        file["text"] = "words"
        file["one"].attrs["units"] = "counts"
    reader = same(tmp_path / "a.h5", STACK)
    assert reader.oddities == ("/one is the largest data set; dataset= opens the others: /two/three (2, 9, 7)",)
    assert reader.metadata["original"]["hdf5"]["/one"] == {"units": "counts"}
    same(tmp_path / "a.h5", STACK[:2] + 1, dataset="two/three")
    same(tmp_path / "a.h5", STACK[:2] + 1, dataset="/two/three")
    for path, words in [
        ("/two", "is a group"),
        ("/three", "no /three"),
        ("/line", "1 axes"),
        ("/text", "0 axes"),
        ("/one/deeper", "no /one/deeper"),
    ]:
        with pytest.raises(mrcz.FormatError, match=words):
            mrcz.open(tmp_path / "a.h5", dataset=path)


def test_equally_good_ones_are_listed(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["one"], file["two"] = STACK, STACK + 1
    with pytest.raises(mrcz.FormatError, match=r"/one \(5, 9, 7\) uint16, /two .*dataset='/one'"):
        mrcz.open(tmp_path / "a.h5")
    same(tmp_path / "a.h5", STACK + 1, dataset="/two")


def test_a_file_without_frames(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["line"], file["words"], file["empty"] = np.arange(4), np.array([[b"a", b"b"]]), np.zeros((0, 3, 4))
        file["pairs"] = np.zeros((2, 2), [("a", "f4"), ("b", "i4")])
        file["null"] = h5py.Empty("f4")
    with pytest.raises(mrcz.FormatError, match="no data set of 2 to 4 axes"):
        mrcz.open(tmp_path / "a.h5")
    for name, words in [("empty", "no pixels"), ("words", "no pixels"), ("pairs", "no pixels"), ("null", "0 axes")]:
        with pytest.raises(mrcz.FormatError, match=words):
            mrcz.open(tmp_path / "a.h5", dataset=name)


# ---- links ---------------------------------------------------------------------------------------------------


def test_links_are_followed_or_named(tmp_path):
    make(tmp_path / "b.h5", name="deep/data", **KINDS["gzip a frame"])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = h5py.ExternalLink("b.h5", "/deep/data")
        file["soft"] = h5py.SoftLink("/x")
        file["around"] = h5py.SoftLink("/around")
        file.create_group("g")["up"] = h5py.SoftLink("/soft")
    for path in ("/x", "/soft", "/g/up"):
        same(tmp_path / "a.h5", STACK, dataset=path)
    with pytest.raises(mrcz.FormatError, match="links lead to links"):
        mrcz.open(tmp_path / "a.h5", dataset="/around")
    (tmp_path / "b.h5").rename(tmp_path / "c.h5")
    with pytest.raises(
        mrcz.FormatError, match=r"a\.h5: the link /x leads to b\.h5, which is not there: looked for .*b\.h5"
    ):
        mrcz.open(tmp_path / "a.h5", dataset="/x")
    with pytest.raises(mrcz.FormatError, match=r"the link /soft leads nowhere: the link /x leads to b\.h5"):
        mrcz.open(tmp_path / "a.h5", dataset="/soft")
    make(tmp_path / "b.h5", name="other")
    with pytest.raises(mrcz.FormatError, match=r"b\.h5: there is no /deep in this file"):
        mrcz.open(tmp_path / "a.h5", dataset="/x")
    (tmp_path / "b.h5").write_bytes(b"no HDF5")
    with pytest.raises(mrcz.FormatError, match=r"b\.h5: HDF5 does not open this file"):
        mrcz.open(tmp_path / "a.h5", dataset="/x")


def test_a_file_whose_one_movie_is_elsewhere_says_so(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["movie"] = h5py.ExternalLink("gone.h5", "/data")
    with pytest.raises(mrcz.FormatError, match=r"the link /movie leads to gone\.h5, which is not there"):
        mrcz.open(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["here"] = STACK
    assert "gone.h5" in same(tmp_path / "a.h5", STACK).oddities[0]


def test_an_absolute_link_is_looked_for_beside_the_file_too(tmp_path):
    make(tmp_path / "b.h5", name="data")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = h5py.ExternalLink("/nowhere/at/all/b.h5", "/data")
    same(tmp_path / "a.h5", STACK)


def test_links_from_a_file_object_have_no_folder(tmp_path):
    make(tmp_path / "b.h5", name="data")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = h5py.ExternalLink("b.h5", "/data")
    with pytest.raises(mrcz.FormatError, match="no folder is known"):
        mrcz.open(io.BytesIO((tmp_path / "a.h5").read_bytes()))


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes in folders")
def test_a_link_to_a_pipe_or_device_is_not_opened(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.h5")
    for name in ("pipe.h5", "/dev/zero"):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["x"] = h5py.ExternalLink(name, "/data")
        with pytest.raises(mrcz.FormatError, match="is not there"):
            mrcz.open(tmp_path / "a.h5")


def test_circles_of_groups_end(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["g/data"] = STACK
        file["g/again"] = file["g"]
        file["g/self"] = h5py.ExternalLink("a.h5", "/")
    same(tmp_path / "a.h5", STACK)


# ---- what is not stored --------------------------------------------------------------------------------------


def test_virtual_data_sets_and_their_missing_sources(tmp_path):
    for k in range(2):
        make(tmp_path / f"part{k}.h5", STACK + k, name="data", **KINDS["gzip a frame"])
    layout = h5py.VirtualLayout((10, 9, 7), "<u2")
    for k in range(2):
        layout[5 * k : 5 * k + 5] = h5py.VirtualSource(f"part{k}.h5", "data", STACK.shape)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_virtual_dataset("all", layout)
    same(tmp_path / "a.h5", np.concatenate([STACK, STACK + 1]))
    (tmp_path / "part1.h5").rename(tmp_path / "other.h5")
    with pytest.raises(mrcz.FormatError, match=r"/all is virtual, and a source of it leads to part1\.h5"):
        mrcz.open(tmp_path / "a.h5")
    make(tmp_path / "part1.h5", name="wrong")
    with pytest.raises(mrcz.FormatError, match="/all is virtual, and misses a source: there is no /data"):
        mrcz.open(tmp_path / "a.h5")
    with h5py.File(tmp_path / "part1.h5", "w") as file:
        file.create_dataset("data", STACK.shape, "<u2", chunks=(1, 9, 7))[:3] = STACK[:3]
    with pytest.raises(mrcz.FormatError, match=r"/data has 3 of its 5 chunks; frame 3 is the first"):
        mrcz.open(tmp_path / "a.h5")


def test_a_virtual_data_set_of_the_same_file(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("parts/one", data=STACK, chunks=(2, 9, 7))
        file["line"] = np.arange(7, dtype="<u2")
        layout = h5py.VirtualLayout((6, 9, 7), "<u2")
        layout[1:] = h5py.VirtualSource(".", "parts/one", STACK.shape)
        layout[0] = h5py.VirtualSource(".", "/parts/one", STACK.shape)[2]
        file.create_virtual_dataset("all", layout)
        rows = h5py.VirtualLayout((2, 7), "<u2")
        for k in range(2):
            rows[k] = h5py.VirtualSource(".", "line", (7,))
        file.create_virtual_dataset("rows", rows)
        lost = h5py.VirtualLayout((1, 7), "<u2")
        file.create_dataset("gone", (7,), "<u2", chunks=(3,))
        lost[0] = h5py.VirtualSource(".", "gone", (7,))
        file.create_virtual_dataset("lost", lost)
    same(tmp_path / "a.h5", np.concatenate([STACK[2:3], STACK]))
    with mrcz.open(tmp_path / "a.h5", dataset="rows") as reader:
        np.testing.assert_array_equal(reader[0], [np.arange(7)] * 2)
    with pytest.raises(mrcz.FormatError, match="its source /gone is not stored"):
        mrcz.open(tmp_path / "a.h5", dataset="lost")
    with pytest.raises(mrcz.FormatError, match="local files only"):
        mrcz.open(io.BytesIO((tmp_path / "a.h5").read_bytes()))


def test_parts_of_a_virtual_data_set_without_source(tmp_path):
    make(tmp_path / "part.h5", name="data")
    layout = h5py.VirtualLayout((6, 9, 7), "<u2")
    layout[:5] = h5py.VirtualSource("part.h5", "data", STACK.shape)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_virtual_dataset("all", layout, fillvalue=9)
    with pytest.raises(mrcz.FormatError, match="63 of its pixels have no source"):
        mrcz.open(tmp_path / "a.h5")
    with pytest.warns(mrcz.FormatWarning, match="have no source: it is read as the fill value"):
        same(tmp_path / "a.h5", np.concatenate([STACK, np.full((1, 9, 7), 9, "<u2")]), permissive=True)


def test_pixels_in_raw_files(tmp_path):
    STACK.tofile(tmp_path / "raw.bin")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a", STACK.shape, "<u2", external=[("raw.bin", 0, h5py.h5f.UNLIMITED)])
    same(tmp_path / "a.h5", STACK)
    (tmp_path / "one.bin").write_bytes(b"xyz" + STACK.tobytes()[:500])
    (tmp_path / "two.bin").write_bytes(STACK.tobytes()[500:])
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("a", STACK.shape, "<u2", external=[("one.bin", 3, 500), ("two.bin", 0, 130)])
    same(tmp_path / "b.h5", STACK)
    (tmp_path / "raw.bin").write_bytes(STACK.tobytes()[:-10])
    with pytest.raises(mrcz.FormatError, match=r"stored in raw\.bin, of which 10 bytes are missing"):
        mrcz.open(tmp_path / "a.h5")
    (tmp_path / "raw.bin").unlink()
    with pytest.raises(mrcz.FormatError, match=r"leads to raw\.bin, which is not there"):
        mrcz.open(tmp_path / "a.h5")
    (tmp_path / "in").mkdir()
    STACK.tofile(tmp_path / "raw.bin")
    with h5py.File(tmp_path / "in/a.h5", "w") as file:
        file.create_dataset("a", STACK.shape, "<u2", external=[("../raw.bin", 0, h5py.h5f.UNLIMITED)])
    with pytest.raises(mrcz.FormatError, match="outside of the folder"):
        mrcz.open(tmp_path / "in/a.h5")


def test_what_was_never_written_is_no_movie(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("plain", STACK.shape, "<u2")
        file.create_dataset("chunks", STACK.shape, "<u2", chunks=(1, 9, 7), fillvalue=5)[[0, 1, 3]] = STACK[[0, 1, 3]]
        file.create_dataset("tiles", STACK.shape, "<u2", chunks=(2, 5, 7), fillvalue=5)[:2] = STACK[:2]
        file.create_dataset("huge", (10**6, 10**4, 10**4), "<f8", chunks=(1, 10**4, 10**4))
        file.create_dataset("line", (1, 10**12), "<f8", chunks=(1, 10**4))
    with pytest.raises(mrcz.FormatError, match="/plain was never written"):
        mrcz.open(tmp_path / "a.h5", dataset="plain")
    with pytest.raises(mrcz.FormatError, match="/chunks has 3 of its 5 chunks; frame 2 is the first"):
        mrcz.open(tmp_path / "a.h5", dataset="chunks")
    with pytest.raises(mrcz.FormatError, match="/tiles has 2 of its 6 chunks; frame 2 is the first"):
        mrcz.open(tmp_path / "a.h5", dataset="tiles")
    for name in ("huge", "line"):
        for permissive in (False, True):
            with pytest.raises(mrcz.FormatError, match=rf"/{name} has 0 of its \d+ chunks"):
                mrcz.open(tmp_path / "a.h5", dataset=name, permissive=permissive)
    expected = STACK.copy()
    expected[[2, 4]] = 5
    with pytest.warns(mrcz.FormatWarning, match="/chunks has 3 of its 5 chunks.*read as the fill value"):
        same(tmp_path / "a.h5", expected, dataset="chunks", permissive=True)


def test_a_large_frame_of_a_few_bytes_is_not_believed(tmp_path):
    """One stored chunk that claims 2 GB: nothing shrinks so."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = file.create_dataset("a", (1, 2**15, 2**15), "u2", chunks=(1, 2**15, 2**15), compression="gzip")
        made.id.write_direct_chunk((0, 0, 0), b"x" * 100)
    with pytest.raises(mrcz.FormatError, match="/a claims 2147483648 bytes a frame or chunk, and has 100 bytes"):
        mrcz.open(tmp_path / "a.h5")


def test_chunks_that_lie(tmp_path):
    frame = STACK[0].tobytes()
    import zlib

    whole = zlib.compress(frame)
    for raw, words in [
        (zlib.compress(frame + b"x"), "127 bytes of pixels, 126 are expected"),
        (zlib.compress(frame + b"xy"), "does not end where"),
        (zlib.compress(frame[:-1]), "125 bytes of pixels, 126 are expected"),
        (whole[:-1], "does not end where"),
        (whole[:-1] + b"\0", "does not inflate"),
    ]:
        with h5py.File(tmp_path / "a.h5", "w") as file:
            made = file.create_dataset("a", STACK.shape, "<u2", chunks=(1, 9, 7), compression="gzip")
            for k in range(5):
                made.id.write_direct_chunk((k, 0, 0), raw if k == 3 else whole)
        with pytest.raises(mrcz.FormatError, match=words), mrcz.open(tmp_path / "a.h5") as reader:
            np.testing.assert_array_equal(reader.read([0, 1]), STACK[[0, 0]])
            reader.read(3)
    with pytest.raises(mrcz.ChunkError, match=r"a\.h5: frame 3, offset \d+: /a: the chunk") as caught:
        with h5py.File(tmp_path / "a.h5", "w") as file:
            made = file.create_dataset("a", STACK.shape, "<u2", chunks=(1, 9, 7), compression="gzip")
            for k in range(5):
                made.id.write_direct_chunk((k, 0, 0), whole[:-1] if k == 3 else whole)
        with mrcz.open(tmp_path / "a.h5") as reader:
            reader.read()
    assert (tmp_path / "a.h5").read_bytes()[caught.value.offset :].startswith(whole[:-1])


@pytest.mark.parametrize("number", [32008, 12345])
def test_a_filter_that_is_not_there_is_named(tmp_path, monkeypatch, number):
    """Another process: once loaded, HDF5 keeps a filter."""
    import subprocess

    if number == 32008:
        make(tmp_path / "a.h5", **KINDS["bitshuffle"])
    else:
        with h5py.File(tmp_path / "a.h5", "w") as file:
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plist.set_chunk((1, 9, 7))
            plist.set_filter(number, h5py.h5z.FLAG_OPTIONAL, ())
            space = h5py.h5s.create_simple(STACK.shape)
            made = h5py.h5d.create(file.id, b"a", h5py.h5t.NATIVE_UINT16, space, plist)
            for k in range(5):
                made.write_direct_chunk((k, 0, 0), b"some bytes")
    code = "import sys, mrcz\n"
    code += "sys.modules['hdf5plugin'] = None\n" if number == 32008 else ""
    code += "try:\n    mrcz.open(sys.argv[1])\nexcept mrcz.MrczError as error: print(type(error).__name__, error)"
    said = subprocess.run([sys.executable, "-c", code, tmp_path / "a.h5"], capture_output=True, text=True, check=True)
    if number == 32008:
        assert said.stdout.startswith("MissingDependencyError ") and "a.h5: /entry/data is compressed" in said.stdout
        assert "bitshuffle (32008)" in said.stdout and "pip install 'mrcz[hdf5]'" in said.stdout
    else:
        assert said.stdout.startswith("FormatError ") and "number (12345)" in said.stdout


# ---- damage --------------------------------------------------------------------------------------------------


def attempt(raw: bytes, expected, *, exact: bool) -> bool:
    """Open, read, and say whether the pixels are the same; any error has to be ours."""
    try:
        frames = open_frames(ObjectSource(io.BytesIO(raw), "a.h5", owned=True), FormatOptions())
    except mrcz.MrczError:
        return False
    try:
        assert np.prod(frames.shape, dtype=object) * frames.dtype.itemsize < 1 << 20
        out = np.empty(frames.shape, frames.dtype)
        for k in range(frames.shape[0]):
            frames.read_frame(k, out[k])
        equal = out.shape == expected.shape and np.array_equal(out, expected)
        assert equal or not exact
        return equal
    except mrcz.MrczError:
        return False
    finally:
        frames.close()


SMALL = STACK[:2, :4, :3]
EVERY = bool(os.environ.get("MRCZ_EVERY_BYTE"))  # all of them take minutes


@pytest.mark.parametrize("kind", ["contiguous", "gzip a frame", "several frames a chunk"])
def test_every_truncation_is_an_error(tmp_path, kind):
    words = {k: ((1, 4, 3) if k == "chunks" else v) for k, v in KINDS[kind].items()}
    raw = make(tmp_path / "a.h5", SMALL, **words).read_bytes()
    for n in range(8, len(raw), 1 if EVERY else 11):
        assert not attempt(raw[:n], SMALL, exact=True), n


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("kind", ["contiguous", "gzip a frame", "several frames a chunk", "blosc a frame"])
def test_every_changed_byte_is_an_error_of_ours_or_takes_little_memory(tmp_path, kind, libver):
    """Plain pixels have no checksum, and neither have the old structures: there is nothing that could tell."""
    words = {k: ((1, 4, 3) if k == "chunks" else v) for k, v in KINDS[kind].items()}
    with h5py.File(tmp_path / "a.h5", "w", libver=libver) as file:
        file.create_dataset("a", data=SMALL, **words)
    raw = (tmp_path / "a.h5").read_bytes()
    whole = changed = 0
    for place in range(8, len(raw), 1 if EVERY else 23):
        damaged = bytearray(raw)
        damaged[place] ^= (1, 0x80, 0xFF)[place % 3]
        whole += attempt(bytes(damaged), SMALL, exact=False)
        changed += 1
    assert 0 < whole < changed


def test_damaged_heaps_of_texts_end(tmp_path):
    """HDF5 2.0 walks through some of these for ever: texts of variable length lie in a global heap.

    And where the length of a text is changed, it takes as much memory as that claims.
    """
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = SMALL
        file["a"].attrs["words"], file.attrs["more"] = "some words", "x" * 100
        file["text"] = "a text"
    raw = (tmp_path / "a.h5").read_bytes()
    heap = raw.index(b"GCOL")
    lengths = [k for word in (b"words\0", b"more\0") for k in range(raw.index(word), raw.index(word) + 64)]
    kept = 0
    for place in (*lengths, *range(heap, heap + 32), *range(heap + 32, heap + 240, 3)):
        for bits in (1, 0x80, 0xFF):
            damaged = bytearray(raw)
            damaged[place] ^= bits
            kept += attempt(bytes(damaged), SMALL, exact=True)
    assert kept  # the pixels are there, whatever is said of them


def test_the_first_bytes_decide(tmp_path):
    make(tmp_path / "a.h5")
    shutil.copy(tmp_path / "a.h5", tmp_path / "a.mrc")
    same(tmp_path / "a.mrc", STACK)


@pytest.mark.parametrize("size", [0, 512, 1024, 2048, 1 << 16, 1 << 20])
@pytest.mark.parametrize("how", [{}, {"chunks": (1, 20, 30), "compression": "gzip"}])
def test_a_user_block_before_the_file(tmp_path, size, how):
    """As MATLAB 7.3 and others write: the signature stands at 512 bytes or a power of two more."""
    stack = np.arange(3 * 20 * 30, dtype=np.uint16).reshape(3, 20, 30)
    path = tmp_path / "a.dat"
    with h5py.File(path, "w", userblock_size=size) as file:
        file.create_dataset("movie", data=stack, **how)
    raw = bytearray(path.read_bytes())
    raw[:size] = (b"MATLAB 7.3 MAT-file, Platform: GLNXA64 " * (size // 38 + 1))[:size]
    path.write_bytes(raw)
    with mrcz.open(path) as reader:
        assert reader.format == "hdf5"
        assert np.array_equal(reader.read(), stack)
        assert np.array_equal(reader[1, 3:7, 5:], stack[1, 3:7, 5:])
    if size:
        path.write_bytes(raw[: size + 4])
        with pytest.raises(mrcz.FormatError):
            mrcz.open(path)


def test_a_signature_at_another_place_is_none(tmp_path):
    (tmp_path / "a.dat").write_bytes(bytes(700) + b"\x89HDF\r\n\x1a\n" + bytes(4000))
    with pytest.raises(mrcz.FormatError, match="header field nx"):
        mrcz.open(tmp_path / "a.dat")
