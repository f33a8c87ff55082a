"""Where mrcz 0.6.0 took more time or memory than it had to, or got in the way of others: docs/differences.md."""

import threading
import tracemalloc

import blosc
import numpy as np
import pytest
from legacy.lazy import Lazy

import mrcz
from mrcz import ioMRC


@pytest.fixture
def counts(rng):
    return rng.poisson(2.0, size=(5, 33, 47)).astype("int16")


def test_typesize_is_that_of_the_stored_pixels(tmp_path, counts):
    path = tmp_path / "a.mrcz"
    mrcz.writeMRC(counts.astype("f4"), path, dtype="int16", compressor="lz4")
    with open(path, "rb") as file:
        file.seek(1024)
        (nbytes, _, _), (version, _, _, typesize) = ioMRC.readBloscHeader(file)
    assert (version, typesize, nbytes) == (2, 2, counts[0].nbytes)


def test_bytes_do_not_depend_on_threads(tmp_path, rng):
    image = rng.poisson(2, size=(4, 300, 301)).astype("u2")
    for compressor in ("zstd", "lz4"):
        written = []
        for threads in (1, 2, 7):
            path = tmp_path / f"{threads}.mrcz"
            mrcz.writeMRC(image, path, compressor=compressor, n_threads=threads)
            with mrcz.open(path) as reader:
                written.append(path.read_bytes()[: int(reader.index.offsets[-1] + reader.index.sizes[-1])])
        assert written[0] == written[1] == written[2]


def test_no_globals_of_blosc_are_touched(tmp_path, counts):
    blosc.set_nthreads(3)
    blosc.set_blocksize(4096)
    try:
        mrcz.writeMRC(counts, tmp_path / "a.mrcz", compressor="zstd", n_threads=1)
        mrcz.readMRC(tmp_path / "a.mrcz", n_threads=1)
        assert blosc.get_blocksize() == 4096
        assert blosc.set_nthreads(3) == 3  # gives the number before
    finally:
        blosc.set_blocksize(0)


def test_calls_on_several_threads_do_not_disturb_each_other(tmp_path, rng):
    images = [rng.poisson(3, size=(6, 100 + k, 120)).astype("i2") for k in range(4)]
    failed = []

    def work(k):
        try:
            for _ in range(5):
                mrcz.writeMRC(images[k], tmp_path / f"{k}.mrcz", compressor="zstd", n_threads=k + 1)
                np.testing.assert_array_equal(mrcz.readMRC(tmp_path / f"{k}.mrcz", n_threads=4 - k)[0], images[k])
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def peak_of(call):
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_lazy_arrays_are_streamed(tmp_path):
    image = Lazy((96, 1024, 1024), "int16")  # 192 MiB
    path = tmp_path / "a.mrcz"
    assert peak_of(lambda: mrcz.writeMRC(image, path, compressor="zstd")) < 100 << 20
    assert image.largest <= 32
    with mrcz.open(path) as reader:
        assert reader.shape == image.shape
        assert [int(reader[k, 5, 5]) for k in (0, 40, 95)] == [0, 40, 95]


def test_dask_arrays(tmp_path, counts):
    from dask import array

    for compressor in (None, "zstd"):
        for image in (counts, counts[0], counts.astype("f8")):
            mrcz.writeMRC(array.from_array(image, chunks=2), tmp_path / "a.mrcz", compressor=compressor)
            np.testing.assert_array_equal(mrcz.readMRC(tmp_path / "a.mrcz")[0], image)


def test_reading_takes_the_memory_of_the_pixels(tmp_path, rng):
    image = rng.poisson(1, size=(24, 1024, 1024)).astype("u2")
    path = tmp_path / "a.mrcz"
    mrcz.writeMRC(image, path, compressor="zstd")
    assert peak_of(lambda: mrcz.readMRC(path)) < 1.2 * image.nbytes
    assert peak_of(lambda: mrcz.readMRC(path, idx=3)) < 3 * image[0].nbytes


@pytest.mark.parametrize("compressor", [None, "zstd"])
def test_lists_can_be_written_to(tmp_path, counts, compressor):
    path = tmp_path / "a.mrcz"
    for image in (list(counts), [counts[:2], counts[2:4]]):
        mrcz.writeMRC(image, path, compressor=compressor)
        for frame in mrcz.readMRC(path)[0]:
            frame += 1
    np.testing.assert_array_equal(mrcz.readMRC(path)[0][0], counts[:2])
