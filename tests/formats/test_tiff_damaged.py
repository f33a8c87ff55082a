"""TIFF files that are damaged or lie: an error with file, frame and byte, and no memory for what is merely claimed."""

from __future__ import annotations

import io
import struct
import sys
import time
import tracemalloc

import imagecodecs
import numpy as np
import pytest
import tifffile
from formats.seeds import seeds_tiff
from reference import lzw_plain

import mrcz
from mrcz.formats.base import FormatOptions
from mrcz.formats.tiff import TiffFrames

GREY = {"photometric": "minisblack", "metadata": None}


class Bytes:
    """A source of bytes in memory."""

    name = "made.tif"

    def __init__(self, raw):
        self.raw, self.size = bytes(raw), len(raw)

    def read(self, offset, n):
        return self.raw[offset : offset + n]


def load(raw, **options):
    """All frames of a file, (nz, ny, nx)."""
    frames = TiffFrames(Bytes(raw), FormatOptions(**options))
    frames.check_claims(np.arange(frames.shape[0]))
    stack = np.empty(frames.shape, frames.dtype)
    for k in range(len(stack)):
        frames.read_frame(k, stack[k])
    return stack


def made(stack, **how):
    file = io.BytesIO()
    tifffile.imwrite(file, stack, **{**GREY, **how})
    return file.getvalue()


def directory(tags, after=0, order="<"):
    """A directory of (code, type, count, value), as bytes."""
    entries = b"".join(struct.pack(f"{order}HHII", *tag) for tag in tags)
    return struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", after)


def page(nx, ny, **more):
    """Tags of a page of bytes, one strip from byte 0 on; `more` by code: ``t279=(4, 1, 99)``; None leaves one out."""
    tags = {256: (4, 1, nx), 257: (4, 1, ny), 258: (3, 1, 8), 273: (4, 1, 0), 278: (4, 1, ny), 279: (4, 1, nx * ny)}
    tags.update({int(code[1:]): value for code, value in more.items()})
    return [(code, *value) for code, value in sorted(tags.items()) if value is not None]


def file_of(tags, size=2000, first=8, **words):
    return (b"II*\0" + struct.pack("<I", first) + directory(tags, **words)).ljust(size, b"\1")


STACK = np.random.default_rng(3).poisson(1, (3, 9, 11)).astype("u2")


@pytest.mark.parametrize("name", ["plain", "lzw", "deflate", "zstd", "packbits", "tiles", "imagej", "rgb", "float"])
def test_every_truncation_is_an_error_or_changes_no_pixel(tmp_path, name):
    path = next(path for path in seeds_tiff(tmp_path) if path.stem == name)
    raw = path.read_bytes()
    whole, errors = load(raw), 0
    for n in range(len(raw)):
        try:
            stack = load(raw[:n])
        except mrcz.FormatError as error:
            errors += 1
            assert error.path == "made.tif" or isinstance(error, mrcz.ChunkError)
        else:
            # What stands behind the pixels, such as a resolution, may be cut off.
            np.testing.assert_array_equal(stack, whole)
    assert errors > len(raw) * 0.9


@pytest.mark.parametrize("name", ["plain", "lzw", "deflate", "zstd", "packbits", "tiles", "imagej", "ome", "four"])
def test_flipped_bits_crash_nothing(tmp_path, name):
    path = next(path for path in seeds_tiff(tmp_path) if path.stem == name)
    raw = bytearray(path.read_bytes())
    rng, errors = np.random.default_rng(5), 0
    for place in rng.permutation(len(raw))[:400].tolist():
        bit = 1 << int(rng.integers(8))
        raw[place] ^= bit
        try:
            load(raw)
        except (mrcz.FormatError, mrcz.MissingDependencyError):
            errors += 1
        raw[place] ^= bit
    assert errors > 5


def test_flipped_bits_of_deflate_are_found():
    raw = bytearray(made(STACK, compression="deflate"))
    with tifffile.TiffFile(io.BytesIO(raw)) as file:
        page = file.pages[1].aspage()
    start, count = page.dataoffsets[0], page.databytecounts[0]
    for place in range(start, start + count):
        for bit in range(8):
            raw[place] ^= 1 << bit
            try:
                stack = load(raw)
            except mrcz.ChunkError as error:
                assert (error.frame, error.offset) == (1, start)
            else:  # bits of zlib's header that say nothing of the data
                np.testing.assert_array_equal(stack, STACK[:, ::-1])
            raw[place] ^= 1 << bit


@pytest.mark.parametrize("compression", ["lzw", "deflate", "zstd", "packbits"])
def test_a_strip_of_another_size_is_no_frame(tmp_path, compression):
    encode = {"deflate": imagecodecs.zlib_encode}.get(compression) or getattr(imagecodecs, f"{compression}_encode")
    code = {"lzw": 5, "deflate": 8, "zstd": 50000, "packbits": 32773}[compression]
    for found, words in ((98, "98 bytes"), (100, "more than 99|damaged")):
        packed = encode(bytes(range(found)))
        tags = page(11, 9, t259=(3, 1, code), t273=(4, 1, 500), t279=(4, 1, len(packed)))
        raw = file_of(tags, 500) + packed
        (tmp_path / "a.tif").write_bytes(raw)
        with mrcz.open(tmp_path / "a.tif") as reader, pytest.raises(mrcz.ChunkError, match=words) as caught:
            reader.read()
        assert (caught.value.frame, caught.value.offset) == (0, 500)
        assert "a.tif: frame 0, offset 500: " in str(caught.value)
    packed = encode(bytes(range(99)))
    raw = file_of(page(11, 9, t259=(3, 1, code), t273=(4, 1, 500), t279=(4, 1, len(packed))), 500) + packed
    assert (load(raw).ravel()[:11] == np.arange(88, 99)).all()


def test_a_last_strip_filled_up_to_the_height_of_the_others():
    packed = [imagecodecs.zlib_encode(bytes(range(k, k + 50))) for k in (0, 50)]
    where = struct.pack("<4I", 600, 600 + len(packed[0]), *map(len, packed))
    tags = page(10, 8, t259=(3, 1, 8), t278=(3, 1, 5), t273=(4, 2, 500), t279=(4, 2, 508))
    raw = (file_of(tags, 500) + where).ljust(600, b"\0") + b"".join(packed)
    np.testing.assert_array_equal(load(raw)[0, ::-1], np.arange(80, dtype="u1").reshape(8, 10))


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        (page(0, 9), "an image of 0 x 9"),
        (page(11, 9, t256=None), "an image of 0 x 9"),
        (page(2**31, 2**31, t279=(4, 1, 99)), "cannot hold"),
        (page(11, 9, t279=(4, 1, 98)), "claims 99 bytes of pixels, the 98"),
        (page(11, 9, t279=(4, 1, 0)), "strip 0 is 0 bytes"),
        (page(11, 9, t279=(4, 1, 2001)), "strip 0 is 2001 bytes from byte 0 on, the file ends at 2000"),
        (page(11, 9, t273=(4, 1, 1950)), "the file ends at 2000"),
        (page(11, 9, t273=(4, 1, 2**32 - 1)), "the file ends at 2000"),
        (page(11, 9, t273=None), "offsets of its strips are missing"),
        (page(11, 9, t279=None, t259=(3, 1, 8)), "byte counts of its strips are missing"),
        (page(11, 9, t278=(4, 1, 3)), "1 offsets of strips, 3 are needed"),
        (page(11, 9, t278=(4, 1, 0)), "strips of 0 rows"),
        (page(11, 9, t273=(4, 2, 100)), "2 offsets of strips, 1 are needed"),
        (page(11, 9, t273=(4, 2**32 - 1, 100)), "tag 273 claims 17179869180 bytes"),
        (page(11, 9, t273=(11, 1, 0)), "1 offsets of strips"),
        (page(11, 9, t322=(4, 1, 0), t323=(4, 1, 16)), "tiles of 0 x 16"),
        (page(11, 9, t322=(4, 1, 16), t323=(4, 1, 16)), "offsets of its tiles are missing"),
        (
            page(11, 9, t322=(4, 1, 2**31), t323=(4, 1, 2**31), t324=(4, 1, 8), t325=(4, 1, 99)),
            "tile 0 at byte 8 claims",
        ),
        (page(11, 9, t277=(3, 1, 4)), "4 samples a pixel"),
        (page(11, 9, t277=(3, 1, 3)), "3 samples a pixel of photometric interpretation 1"),
        (page(11, 9, t262=(3, 1, 2)), "1 samples a pixel of photometric interpretation 2"),
        (page(11, 9, t284=(3, 1, 3)), "planar configuration 3"),
        (page(11, 9, t258=(3, 1, 7)), "7-bit samples"),
        (page(11, 9, t258=(3, 2, 8 | 16 << 16)), "samples of different sizes"),
        (page(11, 9, t258=(5, 1, 8)), "samples of different sizes"),
        (page(11, 9, t339=(3, 1, 3)), "8-bit samples of format 3"),
        (page(11, 9, t32997=(4, 1, 2)), "ImageDepth"),
        (page(11, 9, t259=(3, 1, 7)), r"compression 7 \(JPEG\)"),
        (page(11, 9, t259=(3, 1, 5), t317=(3, 1, 3)), "predictor 3 of 8-bit"),
        (page(11, 9, t259=(3, 1, 5), t317=(3, 1, 34892)), "predictor 34892"),
    ],
)
def test_tags_that_cannot_be(tmp_path, tags, words):
    (tmp_path / "a.tif").write_bytes(file_of(tags))
    with pytest.raises(mrcz.FormatError, match=rf"a\.tif: frame 0, directory 0 at byte 8: .*{words}"):
        mrcz.open(tmp_path / "a.tif")


def test_the_same_tags_without_a_lie_are_a_frame():
    assert load(file_of(page(11, 9))).shape == (1, 9, 11)
    assert load(file_of(page(11, 9, t279=None))).shape == (1, 9, 11)  # the only plain strip needs no count
    assert load(file_of(page(11, 9, t65000=(99, 1, 1)))).shape == (1, 9, 11)  # a type that is to be passed over


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"II*\0", "ends within its header"),
        (b"II+\0\x08\0\0\0", "ends within its header"),
        (b"II+\0\x04\0\0\0" + bytes(8), "offsets are not of 8 bytes"),
        (b"II*\0\0\0\0\0", "no directory"),
        (b"II*\0\x08\0\0\0", "directory 0 at byte 8: 2 bytes from byte 8 on"),
        (b"II*\0\xff\xff\xff\xff", "directory 0 at byte 4294967295"),
        (b"II*\0\x08\0\0\0\0\0\0\0\0\0", "no entries"),
        (b"II*\0\x08\0\0\0\xff\xff\0\0\0\0", "claims 65535 entries, 6 bytes remain"),
        (b"MM\0+\0\x08\0\0" + b"\0" * 7 + b"\x10" + b"\xff" * 8, "claims 18446744073709551615 entries"),
        (file_of(page(11, 9), after=8), "directory 1 at byte 8 was in the chain before: it is a loop"),
        (file_of(page(11, 9), after=1999), "directory 1 at byte 1999"),
        (file_of(page(11, 9, t258=(3, 3, 9999))), "directory 0 at byte 8: tag 258 is at byte 9999"),
    ],
)
def test_chains_that_cannot_be(raw, words):
    with pytest.raises(mrcz.FormatError, match=rf"made\.tif: .*{words}"):
        load(raw)


def test_directories_that_overlap_are_no_million_pages():
    # A directory of 256 entries at every eighth byte: its count in bytes 0 and 1, another's link in bytes 2 to 5.
    raw = bytearray(b"II*\0\x08\0\0\0" + bytes(1 << 20))
    for start in range(8, 1_000_000, 8):
        struct.pack_into("<H", raw, start, 256)
        struct.pack_into("<I", raw, start + 2 + 256 * 12, start + 8)
    begun = time.monotonic()
    with pytest.raises(mrcz.FormatError, match=r"directory 340 at byte 2728 overlaps others"):
        load(raw)
    assert time.monotonic() - begun < 5


def test_values_that_overlap_are_read_once_at_most():
    # 3000 pages of 1 x 100,000 pixels with the same list of a strip a row: 800 kB of list for each.
    n = 100_000
    tags = page(1, n, t278=(4, 1, 1), t273=(4, n, 8), t279=(4, n, 8))
    size = len(directory(tags))
    start = 8 + 4 * n
    parts = [directory(tags, start + (k + 1) * size if k < 2999 else 0) for k in range(3000)]
    raw = b"II*\0" + struct.pack("<I", start) + struct.pack("<I", 1) * n + b"".join(parts)
    tracemalloc.start()
    with pytest.raises(mrcz.FormatError, match="overlap"):
        load(raw)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


@pytest.mark.parametrize(("compression", "times"), [("deflate", 1010), ("zstd", 30_000)])
def test_claims_take_no_memory(compression, times):
    """Pixels a thousand times as many as the bytes, of which there is only a megabyte: known before they are made."""
    encode, code = {"deflate": (imagecodecs.zlib_encode, 8), "zstd": (imagecodecs.zstd_encode, 50000)}[compression]
    data = encode(bytes(1 << 20)) + (bytes(100_000) if compression == "deflate" else b"")
    nx = len(data)
    raw = file_of(page(nx, times, t259=(3, 1, code), t273=(4, 1, 500), t279=(4, 1, nx)), 500) + data
    assert nx * times > 1 << 20
    with mrcz.open(io.BytesIO(raw)) as reader:
        tracemalloc.start()
        with pytest.raises(mrcz.ChunkError, match=r"1048576 bytes came out|more than") as caught:
            reader.read()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert (caught.value.frame, caught.value.offset) == (0, 500)
    assert peak < 8e6


@pytest.mark.parametrize(("compression", "code"), [("lzw", 5), ("deflate", 8), ("zstd", 50000), ("packbits", 32773)])
def test_claims_that_no_bytes_could_hold(compression, code):
    raw = file_of(page(30_000, 30_000, t259=(3, 1, code), t273=(4, 1, 500), t279=(4, 1, 1000)), 1500)
    with pytest.raises(mrcz.FormatError, match=rf"claims 900000000 bytes of pixels, the 1000 .* \({compression}\)"):
        load(raw)


@pytest.mark.parametrize("compression", ["lzw", "deflate", "zstd"])
def test_empty_frames_are_no_lie(compression):
    stack = np.zeros((2, 3000, 3000), "u2")
    np.testing.assert_array_equal(load(made(stack, compression=compression)), stack)


@pytest.mark.parametrize("compression", [None, "lzw"])
def test_permissive_takes_the_frames_that_are_there(tmp_path, compression):
    stack = np.repeat(STACK, 20, 0)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for frame in stack:
            file.write(frame, contiguous=False, compression=compression, **GREY)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        cut = file.pages[40].aspage().dataoffsets[0] + 3
    (tmp_path / "b.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:cut])
    with pytest.raises(mrcz.FormatError, match=r"b\.tif: directory 41 at byte"):
        mrcz.open(tmp_path / "b.tif")
    with pytest.warns(mrcz.FormatWarning, match=r"are read"):
        reader = mrcz.open(tmp_path / "b.tif", permissive=True)
    with reader:
        np.testing.assert_array_equal(reader.read(), stack[:40, ::-1])


def test_a_codec_that_is_not_there_is_named(monkeypatch, tmp_path):
    for compression in (None, "lzw", "deflate", "zstd", "packbits"):
        tifffile.imwrite(tmp_path / f"{compression}.tif", STACK, compression=compression, **GREY)
    for package in ("imagecodecs", "tifffile"):
        monkeypatch.setitem(sys.modules, package, None)
    for compression in ("deflate", "zstd", "packbits"):
        with mrcz.open(tmp_path / f"{compression}.tif") as reader:
            message = rf"packed by {compression} .*imagecodecs: pip install 'mrcz\[tiff\]'"
            with pytest.raises(mrcz.MissingDependencyError, match=message):
                reader.read()
    for ours in (None, "lzw"):
        np.testing.assert_array_equal(mrcz.read(tmp_path / f"{ours}.tif"), STACK[:, ::-1])


def test_lzw_that_means_nothing_names_frame_and_byte(tmp_path):
    stack = np.zeros((2, 8, 16), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", stack, compression="lzw", **GREY)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        offset = file.pages[1].dataoffsets[0]
    raw = bytearray((tmp_path / "a.tif").read_bytes())
    raw[offset : offset + 6] = lzw_plain.pack([256, 0, 256, 301, 9])
    (tmp_path / "a.tif").write_bytes(raw)
    with mrcz.open(tmp_path / "a.tif") as reader:
        assert not reader[0].any()
        with pytest.raises(mrcz.ChunkError, match=r"a\.tif.*code 301 at bit 27 is in no table yet") as caught:
            reader[1]
    assert (caught.value.frame, caught.value.offset) == (1, offset)


def test_imagecodecs_without_a_decoder(monkeypatch, tmp_path):
    def absent(*args, **kwargs):
        raise imagecodecs.DelayedImportError("zstd_decode")

    tifffile.imwrite(tmp_path / "a.tif", STACK, compression="zstd", **GREY)
    monkeypatch.setattr(imagecodecs, "zstd_decode", absent)
    with mrcz.open(tmp_path / "a.tif") as reader, pytest.raises(mrcz.MissingDependencyError, match="zstd"):
        reader.read()
