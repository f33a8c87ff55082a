"""Zarr 2 and 3, against the package zarr; what is not stored; and what we write."""

from __future__ import annotations

import json
import os
import shutil
import sys
from types import SimpleNamespace

import numcodecs
import numpy as np
import pytest
import zarr
from rewriting import rewrite

import mrcz
from mrcz.formats import _chunks, _zarrwrite
from mrcz.formats import zarr as ours

STACK = np.random.default_rng(7).poisson(3, (5, 9, 7)).astype("<u2") + 1

V3 = {
    "plain": {"chunks": (1, 9, 7), "compressors": None},
    "zstd a frame": {"chunks": (1, 9, 7)},
    "blosc a frame": {"chunks": (1, 9, 7), "compressors": zarr.codecs.BloscCodec(cname="zstd", shuffle="bitshuffle")},
    "gzip a frame": {"chunks": (1, 9, 7), "compressors": zarr.codecs.GzipCodec()},
    "tiles": {"chunks": (2, 4, 5)},
    "shards": {"chunks": (2, 5, 7), "shards": (4, 10, 7)},
}
V2 = {
    "plain": {"chunks": (1, 9, 7), "compressors": None},
    "blosc a frame": {"chunks": (1, 9, 7), "compressors": numcodecs.Blosc(cname="lz4")},
    "zstd a frame": {"chunks": (1, 9, 7), "compressors": numcodecs.Zstd()},
    "columns first": {"chunks": (1, 9, 7), "order": "F"},
    "delta": {"chunks": (3, 9, 7), "filters": numcodecs.Delta(dtype="<u2")},
}


def make(path, data=STACK, zarr_format=3, **words):
    shutil.rmtree(path, ignore_errors=True)
    array = zarr.create_array(
        path, shape=data.shape, dtype=data.dtype, zarr_format=zarr_format, config={"write_empty_chunks": True}, **words
    )
    array[...] = data
    return path


def same(path, expected, **words):
    with mrcz.open(path, **words) as reader:
        assert (reader.format, reader.shape) == ("zarr", expected.shape)
        assert reader.dtype.newbyteorder("=") == expected.dtype.newbyteorder("=")
        np.testing.assert_array_equal(reader.read(n_threads=3), expected)
        np.testing.assert_array_equal(reader[-1, 2:5, 1:4], expected[-1, 2:5, 1:4])
        return reader


@pytest.mark.parametrize("dtype", ["<u2", "u1", "<i4", "<f4", "<f8", "<f2", "?", "<c8"])
@pytest.mark.parametrize("kind", V3)
def test_version_3(tmp_path, kind, dtype):
    reader = same(make(tmp_path / "a.zarr", STACK.astype(dtype), **V3[kind]), STACK.astype(dtype))
    assert reader.original.concurrent == (kind in ("plain", "zstd a frame", "blosc a frame"))


@pytest.mark.parametrize(
    ("kind", "dtype"), [*((kind, "<u2") for kind in V2), ("blosc a frame", ">u2"), ("plain", ">u2")]
)
def test_version_2(tmp_path, kind, dtype):
    reader = same(make(tmp_path / "a.zarr", STACK.astype(dtype), 2, **V2[kind]), STACK)
    assert reader.original.concurrent == (kind in ("plain", "zstd a frame", "blosc a frame"))


def test_big_endian_chunks_of_version_3(tmp_path):
    for kind in ("plain", "tiles"):
        words = {**V3[kind], "serializer": zarr.codecs.BytesCodec(endian="big")}
        same(make(tmp_path / "a.zarr", **words), STACK)


def test_axes(tmp_path):
    with mrcz.open(make(tmp_path / "a.zarr", STACK[0], chunks=(9, 7))) as reader:
        assert (reader.shape, reader.kind) == ((1, 9, 7), "image")
        np.testing.assert_array_equal(reader.data, STACK[0])
    scan = np.arange(2 * 3 * 4 * 5, dtype="u2").reshape(2, 3, 4, 5)
    for chunks in ((1, 1, 4, 5), (2, 2, 2, 2)):
        with mrcz.open(make(tmp_path / "a.zarr", scan, chunks=chunks)) as reader:
            np.testing.assert_array_equal(reader.read(), scan.reshape(6, 4, 5))
    with pytest.raises(mrcz.FormatError, match="1 axes"):
        mrcz.open(make(tmp_path / "a.zarr", np.arange(4), chunks=(4,)))


@pytest.mark.parametrize("version", [2, 3])
def test_groups(tmp_path, version):
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=version)
    group.create_array("one", data=STACK, chunks=(1, 9, 7))
    group.create_group("two").create_array("three", data=STACK[:2] + 1)
    group.create_group("c").create_array("four", data=STACK[:1])
    group.create_array("line", data=np.arange(3))
    reader = same(tmp_path / "a.zarr", STACK)
    assert reader.oddities == (
        "one is the largest array; dataset= opens the others: two/three (2, 9, 7), c/four (1, 9, 7)",
    )
    for name in ("two/three", "/two/three", "two"):
        same(tmp_path / "a.zarr", STACK[:2] + 1, dataset=name)
    with pytest.raises(mrcz.FormatError, match="there is no six in this store; there are"):
        mrcz.open(tmp_path / "a.zarr", dataset="six")
    group.create_array("five", data=STACK)
    with pytest.raises(mrcz.FormatError, match="2 arrays are equally large: five, one; say which with dataset="):
        mrcz.open(tmp_path / "a.zarr")
    with pytest.raises(mrcz.FormatError, match="no array of 2 to 5 axes"):
        zarr.create_group(tmp_path / "b.zarr", zarr_format=version)
        mrcz.open(tmp_path / "b.zarr")


@pytest.mark.parametrize("version", [2, 3])
def test_ome_zarr(tmp_path, version):
    """https://ngff.openmicroscopy.org, 0.4 in version 2 and 0.5 in version 3: t, c, z, y, x."""
    data = STACK[:4].reshape(1, 2, 2, 9, 7)
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=version)
    for level in range(2):
        group.create_array(str(level), data=data[..., :: level + 1, :: level + 1])
    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "tczyx"]
    scale = [{"type": "scale", "scale": [1, 1, 3, 0.5, 0.25]}]
    levels = [{"path": str(k), "coordinateTransformations": scale} for k in range(2)]
    multiscales = [{"axes": axes, "datasets": levels}]
    group.attrs.update({"multiscales": multiscales} if version == 2 else {"ome": {"multiscales": multiscales}})
    reader = same(tmp_path / "a.zarr", STACK[:4])
    assert reader.pixel_size == (2.5, 5, 30) and reader.oddities == ("the first of 2 levels",)
    same(tmp_path / "a.zarr", STACK[:4, ::2, ::2], dataset="1")
    axes[-1]["name"], axes[-2]["name"] = "y", "x"
    group.attrs.update({"multiscales": multiscales} if version == 2 else {"ome": {"multiscales": multiscales}})
    with pytest.raises(mrcz.FormatError, match="expected y, x at the end"):
        mrcz.open(tmp_path / "a.zarr")


def test_a_zip(tmp_path):
    for kind, version in (("tiles", 3), ("blosc a frame", 3), ("shards", 3), ("plain", 2)):
        make(tmp_path / "a.zarr", zarr_format=version, **(V3 if version == 3 else V2)[kind])
        shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path / "a.zarr")
        same(tmp_path / "a.zip", STACK)
        raw = (tmp_path / "a.zip").read_bytes()
    for place in range(4, len(raw), 41):
        damaged = bytearray(raw)
        damaged[place] ^= 0xFF
        rewrite(tmp_path / "b.zip", damaged)
        try:
            with mrcz.open(tmp_path / "b.zip") as reader:
                assert reader.read().nbytes < 1 << 20
        except mrcz.MrczError:
            pass
    for n in range(4, len(raw), 97):
        rewrite(tmp_path / "b.zip", raw[:n])
        with pytest.raises(mrcz.FormatError, match=r"b\.zip"):
            mrcz.open(tmp_path / "b.zip")


def test_other_zips_and_folders_are_no_zarr(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("words")
    shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path / "in")
    with pytest.raises(mrcz.FormatError, match="looks like a zip archive"):
        mrcz.open(tmp_path / "a.zip")
    with pytest.raises(IsADirectoryError):
        mrcz.open(tmp_path / "in")


# ---- what is not stored, and what lies -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["blosc a frame", "tiles", "shards"])
def test_a_chunk_that_is_not_stored(tmp_path, kind):
    make(tmp_path / "a.zarr", fill_value=9, **V3[kind])
    lost = tmp_path / "a.zarr/c/1/0/0"
    lost.unlink()
    with pytest.raises(
        mrcz.FormatError, match=r"lacks 1 of its \d+ chunks, the first of them c/1/0/0; with permissive"
    ):
        mrcz.open(tmp_path / "a.zarr")
    expected = zarr.open(tmp_path / "a.zarr", mode="r")[...]
    assert (expected == 9).all((1, 2)).any() or kind == "tiles"
    with pytest.warns(mrcz.FormatWarning, match="read as the fill value"):
        same(tmp_path / "a.zarr", expected, permissive=True)


def test_a_chunk_within_a_shard_that_is_not_stored(tmp_path):
    for version in ("end", "start"):
        shutil.rmtree(tmp_path / "a.zarr", ignore_errors=True)
        shards = {"shape": (4, 10, 7), "index_location": version}
        array = zarr.create_array(
            tmp_path / "a.zarr", shape=STACK.shape, dtype="u2", chunks=(2, 5, 7), shards=shards, fill_value=0
        )
        array[...] = STACK
        same(tmp_path / "a.zarr", STACK)
        array[0:2, 5:] = 0  # is left out by Zarr
        with pytest.raises(mrcz.FormatError, match=r"has a shard c/0/0/0 that lacks chunks"):
            mrcz.open(tmp_path / "a.zarr")


def test_claims_take_no_memory(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", shape=(10**6, 10**6, 10**6), dtype="f8", chunks=(1, 10**6, 10**6))
    for permissive in (False, True):
        with pytest.raises(mrcz.FormatError, match=r"lacks 1000000 of its 1000000 chunks|claims 8000000000000 bytes"):
            mrcz.open(tmp_path / "a.zarr", permissive=permissive)
    make(tmp_path / "a.zarr", **V3["blosc a frame"])
    text = (tmp_path / "a.zarr/zarr.json").read_text()
    for n in (2**15, 2**30):
        (tmp_path / "a.zarr/zarr.json").write_text(text.replace("9,", f"{n},").replace("7\n", f"{n}\n"))
        with pytest.raises(mrcz.FormatError, match=r"claims \d+ bytes a frame or chunk, and has \d+ bytes stored"):
            mrcz.open(tmp_path / "a.zarr")


@pytest.mark.parametrize("kind", ["plain", "zstd a frame", "blosc a frame", "gzip a frame", "tiles"])
def test_truncated_chunks_are_errors(tmp_path, kind):
    path = make(tmp_path / "a.zarr", **V3[kind]) / "c/1/0/0"
    raw = path.read_bytes()
    for n in range(0, len(raw), 3):
        rewrite(path, raw[:n])
        with (
            mrcz.open(tmp_path / "a.zarr") as reader,
            pytest.raises(mrcz.FormatError, match=r"a\.zarr: frame 1:|frame 2"),
        ):
            reader.read()


@pytest.mark.parametrize("kind", ["plain", "zstd a frame", "blosc a frame", "gzip a frame", "shards"])
def test_changed_bytes_are_errors_of_ours_or_pixels(tmp_path, kind):
    """Of chunks only zstd's and gzip's have a checksum."""
    make(tmp_path / "a.zarr", **V3[kind])
    for name in ("c/0/0/0", "zarr.json"):
        raw = (tmp_path / "a.zarr" / name).read_bytes()
        for place in range(0, len(raw), 11):
            damaged = bytearray(raw)
            damaged[place] ^= (1, 0x80, 0xFF)[place % 3]
            rewrite(tmp_path / "a.zarr" / name, damaged)
            try:
                with mrcz.open(tmp_path / "a.zarr") as reader:
                    assert reader.nbytes < 1 << 24 if hasattr(reader, "nbytes") else True
                    reader.read()
            except mrcz.MrczError:
                pass
        rewrite(tmp_path / "a.zarr" / name, raw)


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes in folders")
def test_a_pipe_is_not_waited_for(tmp_path):
    make(tmp_path / "a.zarr", **V3["plain"])
    for name, words in (("c/1/0/0", "lacks 1 of its 5"), ("zarr.json", "no regular file")):
        (tmp_path / "a.zarr" / name).unlink()
        os.mkfifo(tmp_path / "a.zarr" / name)
        with pytest.raises(mrcz.FormatError, match=words):
            mrcz.open(tmp_path / "a.zarr")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"zarr_format": 9}', '{"zarr_format": 3}', "[" * 5000])
def test_metadata_that_are_none(tmp_path, text):
    for name in ("zarr.json", ".zarray", ".zgroup"):
        (tmp_path / f"{name}.zarr").mkdir(exist_ok=True)
        (tmp_path / f"{name}.zarr" / name).write_text(text)
        with pytest.raises(mrcz.FormatError, match=rf"{name}\.zarr: "):
            mrcz.open(tmp_path / f"{name}.zarr")


# ---- writing -------------------------------------------------------------------------------------------------


def frames_of(stack, **words):
    return SimpleNamespace(shape=stack.shape, dtype=stack.dtype, read=lambda k: stack[k], **words)


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "u1", "i1", "<i4", "<f4", ">f4", "<f8", "<f2", "<c8", "?"])
@pytest.mark.parametrize("compression", _zarrwrite.COMPRESSIONS)
def test_zarr_reads_what_is_written(tmp_path, compression, dtype):
    stack = STACK.astype(dtype)
    stack[2] = 0
    ours.write_frames(tmp_path / "a.zarr", frames_of(stack), compression=compression)
    array = zarr.open(tmp_path / "a.zarr", mode="r")
    assert array.chunks == (1, 9, 7) and array.dtype == stack.dtype.newbyteorder("=")
    np.testing.assert_array_equal(array[...], stack)
    same(tmp_path / "a.zarr", stack)


@pytest.mark.parametrize("dtype", ["u1", "<u2", "<f4", "<c8"])
def test_chunks_of_mrcz_are_copied_as_they_are(tmp_path, monkeypatch, dtype):
    stack = STACK.astype(dtype)
    mrcz.write(tmp_path / "a.mrcz", stack, pixel_size=1.5)
    monkeypatch.setattr(_chunks, "encoded", None)
    with mrcz.open(tmp_path / "a.mrcz") as reader:
        monkeypatch.setattr(reader, "read", None)
        ours.write_frames(tmp_path / "a.zarr", reader)
        for k in range(5):
            assert (tmp_path / f"a.zarr/c/{k}/0/0").read_bytes() == reader.stored(k)
    np.testing.assert_array_equal(zarr.open(tmp_path / "a.zarr", mode="r")[...], stack)
    assert same(tmp_path / "a.zarr", stack).pixel_size == (1.5, 1.5, 1.5)


def test_metadata_go_along(tmp_path):
    said = {
        "voltage": 300.0,
        "camera": "K3",
        "mine": {"a": [1, None]},
        "nan": float("nan"),
        "original": {"dm": {"b": 1}},
    }
    ours.write_frames(tmp_path / "a.zarr", frames_of(STACK, pixel_size=(0.5, 0.6, 0), metadata=said, kind="stack"))
    attributes = dict(zarr.open(tmp_path / "a.zarr", mode="r").attrs)
    assert (attributes["pixel_size"], attributes["pixel_size_unit"], attributes["kind"]) == (
        [0.5, 0.6, 0],
        "angstrom",
        "stack",
    )
    with mrcz.open(tmp_path / "a.zarr") as reader:
        got = reader.metadata
        assert (got["voltage"], got["camera"], got["pixel_size"]) == (300, "K3", [0.5, 0.6])
        assert got["original"]["mrcz"] == {"mine": {"a": [1, None]}, "nan": "nan"}
        assert got["original"]["dm"] == {"b": 1}


@pytest.mark.parametrize("compression", _zarrwrite.COMPRESSIONS)
def test_the_same_frames_give_the_same_files(tmp_path, compression):
    trees = []
    for name in ("a", "b"):
        frames = frames_of(STACK, metadata={"b": 1, "a": 2}, pixel_size=(1, 1, 1))
        ours.write_frames(tmp_path / name, frames, compression=compression, n_threads=1 + 2 * (name == "b"))
        trees.append(
            {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()}
        )
    assert trees[0] == trees[1] and len(trees[0]) == 6
    assert json.loads((tmp_path / "a/zarr.json").read_text())["zarr_format"] == 3


def test_what_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected one of blosc, zstd, none"):
        ours.write_frames(tmp_path / "a", frames_of(STACK), compression="lzma")
    with pytest.raises(ValueError, match="not written to Zarr"):
        ours.write_frames(tmp_path / "a", frames_of(STACK[0]))
    assert not (tmp_path / "a").exists()
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b").write_text("")
    with pytest.raises(FileExistsError):
        ours.write_frames(tmp_path / "a", frames_of(STACK))
