"""Readers inside other array libraries: NumPy, dask, xarray, and zarr through references."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

import mrcz
from mrcz.file.decoding import Decoder


@pytest.fixture
def movie(rng):
    return rng.poisson(1.0, (7, 40, 50)).astype(np.uint8)


@pytest.fixture
def path(tmp_path, movie):
    mrcz.write(tmp_path / "a.mrcz", movie, pixel_size=1.25, metadata={"dose": 1.5})
    return tmp_path / "a.mrcz"


def test_numpy(path, movie):
    with mrcz.open(path) as reader:
        assert np.array_equal(np.asarray(reader), movie)
        assert np.asarray(reader, dtype="f4").dtype == np.float32
        assert np.array_equal(np.stack(list(reader)), movie)


def test_dask(path, movie, tmp_path):
    from dask import array

    with mrcz.open(path) as reader:
        lazy = array.from_array(reader, chunks=(1, -1, -1))
        assert lazy.shape == movie.shape and lazy.dtype == movie.dtype
        assert np.array_equal(lazy[2:5, ::2].compute(scheduler="threads"), movie[2:5, ::2])
        assert np.allclose(lazy.mean(axis=0).compute(scheduler="threads"), movie.mean(axis=0))
        assert np.array_equal(lazy[[4, 1]].compute(scheduler="sync"), movie[[4, 1]])
        # and back: dask chunks into a file, a bounded batch at a time
        mrcz.write(tmp_path / "b.mrcz", (lazy + 1).astype("u1"))
    assert np.array_equal(mrcz.read(tmp_path / "b.mrcz"), movie + 1)


def test_dask_processes(path, movie):
    """A Reader crosses to other processes as its path."""
    from dask import array

    with mrcz.open(path) as reader:
        lazy = array.from_array(reader, chunks=(4, -1, -1))
        total = lazy.sum(axis=0).compute(scheduler="processes", num_workers=1)
    assert np.array_equal(total, movie.sum(axis=0))


def test_xarray(path, movie):
    import xarray

    with xarray.open_dataset(path, engine="mrcz") as dataset:
        data = dataset["data"]
        assert data.dims == ("z", "y", "x") and data.shape == movie.shape and data.dtype == movie.dtype
        assert np.allclose(dataset["x"], np.arange(50) * 1.25) and dataset["x"].attrs["units"] == "angstrom"
        assert "z" not in dataset.coords and dataset.attrs["dose"] == 1.5 and data.attrs["kind"] == "stack"
        assert np.array_equal(data[3], movie[3])
        assert np.array_equal(data.isel(z=[0, 4], y=slice(5, 9)), movie[[0, 4], 5:9])
    with xarray.open_dataset(path) as dataset:  # found by its suffix
        assert dataset["data"].shape == movie.shape


def test_xarray_is_lazy(path, monkeypatch):
    import xarray

    decoded = []
    original = Decoder.decode

    def decode(self, numbers, *rest, **keys):
        decoded.extend(numbers.tolist())
        return original(self, numbers, *rest, **keys)

    monkeypatch.setattr(Decoder, "decode", decode)
    with xarray.open_dataset(path, engine="mrcz", chunks=None) as dataset:
        assert decoded == []
        dataset["data"][2].values.sum()
        assert decoded == [2]


def open_zarr(references, name="data", **options):
    import fsspec
    import zarr

    files = fsspec.filesystem("reference", fo=references, asynchronous=True, **options)
    return zarr.open_group(zarr.storage.FsspecStore(files, path="", read_only=True), mode="r")[name]


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "f4", "f2", "c8", "i4"])
@pytest.mark.parametrize("codec", ["zstd", "lz4", "zlib", "none"])
def test_stock_zarr_reads_the_pixels(tmp_path, movie, version, dtype, codec):
    from mrcz.convert.zarr import references

    frames = movie.astype(dtype)
    path = tmp_path / "a.mrcz"
    mrcz.write(path, frames, pixel_size=1.25, metadata={"dose": 1.5}, codec=codec)
    with mrcz.open(path) as reader:
        array = open_zarr(references(reader, zarr_format=version), remote_protocol="file")
    assert array.shape == frames.shape and array.chunks == (1, 40, 50) and array.dtype == frames.dtype
    assert np.array_equal(array[:], frames) and np.array_equal(array[3, 5:9], frames[3, 5:9])
    assert array.attrs["pixel_size"] == [1.25, 1.25, 1.25] and array.attrs["metadata"]["dose"] == 1.5
    assert array.metadata.zarr_format == version


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_over_http(path, movie, version):
    from mrcz.convert.zarr import write_references

    spec = importlib.util.spec_from_file_location("servers", Path(__file__).parents[1] / "servers.py")
    servers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(servers)
    with servers.RangeServer(path.parent) as server:
        target = path.with_suffix(".json")
        write_references(path, target, url=f"{server.url}/a.mrcz", zarr_format=version)
        array = open_zarr(json.loads(target.read_text()), remote_protocol="http", remote_options={"asynchronous": True})
        assert np.array_equal(array[4], movie[4])
        # One frame: one request, of its chunk alone.
        with mrcz.open(path) as reader:
            assert [sent for *_, sent in server.requests] == [reader.index.sizes[4]]


def test_zarr_refuses_what_it_cannot_say(tmp_path, movie):
    from mrcz.convert.zarr import references

    for name, options in (("p.mrcz", {"pack": True}), ("b.mrcz", {"backend": "blosc2"})):
        mrcz.write(tmp_path / name, movie, **options)
        says = "Zarr reads Blosc 1" if options.get("backend") else "no Zarr equivalent"
        with mrcz.open(tmp_path / name) as reader, pytest.raises(ValueError, match=says):
            references(reader)
    mrcz.write(tmp_path / "c.mrcz", movie)
    with mrcz.open(tmp_path / "c.mrcz") as reader, pytest.raises(ValueError, match="zarr_format"):
        references(reader, zarr_format=1)


@pytest.mark.parametrize("dtype", ["u1", "f4"])
def test_dask_finds_frames_by_itself(tmp_path, dtype):
    """Without a word on chunks: whole frames, and of these as many as dask likes; an object without `chunks` is cut
    through its frames."""
    da = pytest.importorskip("dask.array")
    dask = pytest.importorskip("dask")
    frames = np.random.default_rng(1).poisson(2.0, (40, 64, 96)).astype(dtype)
    path = tmp_path / "a.mrcz"
    mrcz.write(path, frames)
    with dask.config.set({"array.chunk-size": f"{5 * frames[0].nbytes}B"}), mrcz.open(path) as reader:
        assert reader.chunks == (1, 64, 96)
        lazy = da.from_array(reader)
        assert lazy.chunksize[1:] == (64, 96) and 1 <= lazy.chunksize[0] <= 5
        assert np.array_equal(lazy.compute(), frames)
        assert da.from_array(reader, chunks=reader.chunks).numblocks == (40, 1, 1)


@pytest.mark.parametrize("options", [{}, {"codec": "none"}, {"pack": True}, {"dtype": "f4"}, {"dtype": "c8"}])
def test_sizes_are_those_of_the_array(tmp_path, options):
    frames = np.random.default_rng(1).integers(0, 16, (3, 5, 7)).astype("u1")
    path = tmp_path / ("a.mrc" if options.get("codec") else "a.mrcz")
    mrcz.write(path, frames, **options)
    with mrcz.open(path) as reader:
        array = np.asarray(reader)
        assert (reader.nbytes, reader.size, reader.ndim, len(reader)) == (array.nbytes, 105, 3, 3)
        assert reader.file_nbytes == path.stat().st_size
