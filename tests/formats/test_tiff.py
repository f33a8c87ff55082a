"""TIFF is read as tifffile reads it, with the rows as of an MRC file."""

from __future__ import annotations

import gzip
import io
import struct

import fsspec
import numpy as np
import pytest
import tifffile
from formats.seeds import packed_tiff, seeds_tiff

import mrcz
from _cmrcz import lzw
from mrcz.formats._tiff_pages import holds_pairs

GREY = {"photometric": "minisblack", "metadata": None}


def same(path, expected, **words):
    """The file opens as these frames, whose rows are in the order of the file; the Reader's attributes are returned."""
    expected = expected[:, ::-1]
    with mrcz.open(path, **words) as reader:
        assert (reader.format, reader.shape, reader.dtype) == ("tiff", expected.shape, expected.dtype)
        np.testing.assert_array_equal(reader.read(), expected)
        np.testing.assert_array_equal(reader.read(n_threads=3), expected)
        np.testing.assert_array_equal(reader[-1, 2:7, 3:8], expected[-1, 2:7, 3:8])
        np.testing.assert_array_equal(reader[0, ::-2, :1], expected[0, ::-2, :1])
        return reader


PACKED = [(None, None), ("packbits", None), *((c, p) for c in ("lzw", "deflate", "zstd") for p in (None, 2))]


@pytest.mark.parametrize(("compression", "predictor"), PACKED)
@pytest.mark.parametrize("cut", [{}, {"rowsperstrip": 4}, {"tile": (16, 32)}], ids=["whole", "strips", "tiles"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_pixels_are_those_of_tifffile(tmp_path, rng, compression, predictor, cut, order):
    for dtype in ("u1", "i1", "u2", "i2", "u4", "f4", "f2", "f8", "i8", "c8"):
        kind = np.dtype(dtype).kind
        if predictor and (kind == "c" or (kind == "f" and cut)):
            continue  # a predictor of floats is one for whole strips too, once is enough
        stack = (rng.integers(-50, 50, (3, 21, 37)) * (1.37 if kind in "fc" else 1)).astype(order + dtype)
        how = {"compression": compression, "predictor": 3 if predictor and kind == "f" else predictor, **cut}
        tifffile.imwrite(tmp_path / "a.tif", stack, byteorder=order, bigtiff=dtype == "u2", **how, **GREY)
        reader = same(tmp_path / "a.tif", stack)
        assert reader.codec == (compression or "none")
        assert reader.kind == "stack" and reader.oddities == ()


def test_integer_differences_of_floats(tmp_path):
    # libtiff takes the bits of a float as a whole number there; tifffile does not write it.
    whole = np.arange(2 * 5 * 7, dtype="<i4").reshape(2, 5, 7) * 54321 + 0x3F800000
    tifffile.imwrite(tmp_path / "a.tif", whole, compression="lzw", predictor=2, **GREY)
    raw = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        for page in file.pages:
            page = page.aspage()
            raw[page.tags[339].valueoffset] = 3
    (tmp_path / "a.tif").write_bytes(raw)
    same(tmp_path / "a.tif", whole.view("<f4"))


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 10, 12, 14])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_packed_integers(tmp_path, rng, bits, order, compression):
    stack = rng.integers(0, 2**bits, (2, 9, 11)).astype("u1" if bits < 8 else "u2")
    packed_tiff(tmp_path / "a.tif", stack, bits, order, compression)
    same(tmp_path / "a.tif", stack)
    assert (tifffile.imread(tmp_path / "a.tif") == stack).all()


def test_reversed_bits(tmp_path):
    stack = np.arange(2 * 8 * 16, dtype="u1").reshape(2, 8, 16)
    turned = np.array([int(f"{k:08b}"[::-1], 2) for k in range(256)], "u1")[stack]
    tifffile.imwrite(tmp_path / "a.tif", turned, extratags=[(65500, 3, 1, 2, False)], **GREY)
    raw = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        for page in file.pages:
            struct.pack_into("<H", raw, page.aspage().tags[65500].offset, 266)
    (tmp_path / "a.tif").write_bytes(raw)
    same(tmp_path / "a.tif", stack)


@pytest.mark.parametrize("compression", [None, "zstd"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_colours(tmp_path, rng, compression, planar):
    stack = rng.integers(0, 255, (2, 21, 37, 3)).astype("u1")
    stored = stack if planar == "contig" else stack.transpose(0, 3, 1, 2)
    how = {"photometric": "rgb", "planarconfig": planar, "compression": compression, "metadata": None}
    tifffile.imwrite(tmp_path / "a.tif", stored, rowsperstrip=5, **how)
    same(tmp_path / "a.tif", stack)


def test_one_pixel_and_many_frames(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.full((1, 1), 7, "u1"), **GREY)
    with mrcz.open(tmp_path / "a.tif") as reader:
        assert (reader.shape, reader.kind, reader[0, 0, 0]) == ((1, 1, 1), "image", 7)
    stack = np.arange(700, dtype="<u2")[:, None, None] + np.zeros((1, 2, 3), "<u2")
    tifffile.imwrite(tmp_path / "b.tif", stack, compression="lzw", **GREY)
    with mrcz.open(tmp_path / "b.tif") as reader:
        np.testing.assert_array_equal(reader.read(), stack)
        np.testing.assert_array_equal(reader.sum(), stack.sum(0))


def test_seeds_open(tmp_path):
    for path in seeds_tiff(tmp_path):
        with mrcz.open(path) as reader:
            assert len(reader) == 3
            assert reader.read().max() > 0


class Counted(io.BytesIO):
    """A file that counts what is read of it."""

    def read(self, n=-1):
        data = super().read(n)
        self.count = getattr(self, "count", 0) + len(data)
        return data


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("cut", [{"rowsperstrip": 16}, {"tile": (32, 32)}])
def test_a_window_reads_what_it_needs(rng, compression, cut):
    stack = rng.integers(0, 2**16, (4, 512, 512)).astype("u2")
    file = Counted()
    tifffile.imwrite(file, stack, compression=compression, **cut, **GREY)
    with mrcz.open(file) as reader:
        before = file.count
        np.testing.assert_array_equal(reader[2, 500:505, 3:7], stack[2, ::-1][500:505, 3:7])
        assert 0 < file.count - before <= 512 * 32 * 2 * 1.1
        assert before < 200_000  # and opening reads no pixels


def test_plain_strips_are_read_in_part():
    stack = np.arange(512 * 512, dtype="u2").reshape(1, 512, 512)
    file = Counted()
    tifffile.imwrite(file, stack, **GREY)
    with mrcz.open(file) as reader:
        before = file.count
        np.testing.assert_array_equal(reader[0, 9:11], stack[0, ::-1][9:11])
        assert file.count - before == 2 * 512 * 2


def test_gz_url_and_file_object(tmp_path, rng):
    stack = rng.poisson(1, (3, 9, 11)).astype("u2")
    tifffile.imwrite(tmp_path / "a.tif", stack, compression="lzw", **GREY)
    raw = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif.gz").write_bytes(gzip.compress(raw))
    same(tmp_path / "a.tif.gz", stack)
    with (tmp_path / "a.tif").open("rb") as file:
        same(file, stack)
    with fsspec.open("memory://mrcz-test.tif", "wb") as file:
        file.write(raw)
    same("memory://mrcz-test.tif", stack)


# ---- packed bytes of SerialEM --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size",
    [(3838, 7420), (3710, 7676), (3840, 7424), (3712, 7680), (5760, 8184), (4092, 11520), (5762, 8182), (3836, 7418)],
)
def test_sizes_that_tell_pairs(size):
    assert holds_pairs((*size, 8, 1, 1, 1, 1, 0))
    assert not holds_pairs((*size, 16, 1, 1, 1, 1, 0))
    assert not holds_pairs((*size, 8, 2, 1, 1, 1, 0))
    assert not holds_pairs((size[0] * 2, size[1], 8, 1, 1, 1, 1, 0))
    assert not holds_pairs((size[0], size[1] + 9, 8, 1, 1, 1, 1, 0))


def test_pairs_of_pixels(tmp_path):
    stored = np.zeros((1, 7424, 3840), "u1")
    stored[0, 0, :3] = 0x21, 0x43, 0x65
    stored[0, -1, -2:] = 0xA9, 0xCB
    tifffile.imwrite(tmp_path / "a.tif", stored, compression="deflate", rowsperstrip=64, **GREY)
    with mrcz.open(tmp_path / "a.tif") as reader:
        assert (reader.shape, reader.dtype) == ((1, 7424, 7680), np.uint8)
        assert "two 4-bit pixels" in reader.oddities[0]
        assert reader[0, -1, :7].tolist() == [1, 2, 3, 4, 5, 6, 0]
        assert reader[0, -1, 1:4].tolist() == [2, 3, 4]
        assert reader[0, 0, -5:].tolist() == [0, 9, 10, 11, 12]
        assert reader[0, 0, -4:-1].tolist() == [9, 10, 11]
        assert reader[0, 7423, 3] == 4
        assert reader.read(0).sum(dtype=int) == sum(range(1, 7)) + 9 + 10 + 11 + 12


# ---- stacks of other programs, and series ----------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_imagej(tmp_path, rng, compression):
    stack = rng.integers(0, 999, (6, 9, 11)).astype("u2")
    meta = {"unit": "nm", "spacing": 0.5, "axes": "TZYX"}
    hyper = stack.reshape(2, 3, 9, 11)
    tifffile.imwrite(tmp_path / "a.tif", hyper, imagej=True, resolution=(4, 4), compression=compression, metadata=meta)
    with mrcz.open(tmp_path / "a.tif") as reader:
        np.testing.assert_array_equal(reader.read(), stack[:, ::-1])
        assert reader.pixel_size == (2.5, 2.5, 5)
        assert reader.metadata["pixel_size"] == [2.5, 2.5]
        assert reader.metadata["original"]["tiff"]["ImageDescription"].startswith("ImageJ=")


def imagej_without_directories(stack, claimed):
    """Above 4 GB ImageJ writes one directory, big-endian, and all pixels behind each other at the end (its FAQ)."""
    text = f"ImageJ=1.53t\nimages={claimed}\nslices={claimed}\n".encode() + b"\0"
    ny, nx = stack.shape[1:]
    tags = [(256, 4, 1, nx), (257, 4, 1, ny), (258, 3, 1, 16 << 16), (262, 3, 1, 1 << 16), (270, 2, len(text), 200)]
    tags += [(273, 4, 1, 200 + len(text)), (277, 3, 1, 1 << 16), (278, 3, 1, ny << 16), (279, 4, 1, ny * nx * 2)]
    raw = b"MM\0*\0\0\0\x08" + struct.pack(">H", len(tags)) + b"".join(struct.pack(">HHII", *tag) for tag in tags)
    return raw.ljust(200, b"\0") + text + stack.astype(">u2").tobytes()


def test_imagej_above_4_gb(tmp_path, rng):
    stack = rng.integers(0, 999, (5, 9, 11)).astype(">u2")
    (tmp_path / "a.tif").write_bytes(imagej_without_directories(stack, 5))
    same(tmp_path / "a.tif", stack)
    (tmp_path / "a.tif").write_bytes(imagej_without_directories(stack, 6))
    with pytest.raises(mrcz.FormatError, match=r"a\.tif: its description claims 6 images .* bytes for 5"):
        mrcz.open(tmp_path / "a.tif")
    with pytest.warns(mrcz.FormatWarning, match="claims 6 images"):
        same(tmp_path / "a.tif", stack, permissive=True)
    (tmp_path / "a.tif").write_bytes(imagej_without_directories(stack, 10**18))
    with pytest.raises(mrcz.FormatError, match="bytes for 5"):
        mrcz.open(tmp_path / "a.tif")


def test_truncated_series_of_tifffile(tmp_path, rng):
    stack = rng.integers(0, 999, (4, 9, 11)).astype("u2")
    tifffile.imwrite(tmp_path / "a.tif", stack, truncate=True, photometric="minisblack")
    same(tmp_path / "a.tif", stack)


def test_ome(tmp_path, rng):
    stack = rng.integers(0, 999, (6, 9, 11)).astype("u2")
    meta = {"axes": "TCYX", "PhysicalSizeX": 0.14, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.00014}
    tifffile.imwrite(tmp_path / "a.tif", stack.reshape(3, 2, 9, 11), ome=True, compression="deflate", metadata=meta)
    reader = same(tmp_path / "a.tif", stack)
    assert reader.original.pixel_size == (1.4, 1.4, 0)
    assert "<OME" in reader.original.metadata["original"]["tiff"]["ImageDescription"]
    assert reader.oddities == ()


def test_a_long_description_is_read_once(tmp_path, rng):
    stack = rng.integers(0, 999, (2, 9, 11)).astype("u2")
    meta = {"axes": "TYX", "PhysicalSizeX": 0.0002, "PhysicalSizeY": 0.0002, "Description": "x" * 3_000_000}
    tifffile.imwrite(tmp_path / "a.tif", stack, ome=True, metadata=meta)
    reader = same(tmp_path / "a.tif", stack)
    assert reader.original.pixel_size == (2, 2, 0)
    assert len(reader.original.metadata["original"]["tiff"]["ImageDescription"]) > 3_000_000


def test_planes_of_ome_in_other_files_are_told(tmp_path, rng):
    stack = rng.integers(0, 999, (2, 9, 11)).astype("u2")
    text = '<?xml version="1.0"?><OME xmlns="o"><Image><Pixels SizeZ="3" SizeC="1" SizeT="2"/></Image></OME>'
    tifffile.imwrite(tmp_path / "a.tif", stack, description=text, **GREY)
    assert same(tmp_path / "a.tif", stack).oddities == ("its OME-XML speaks of 6 planes: 2 are in this file",)


def test_pages_that_differ_are_series(tmp_path, rng):
    a, b = rng.integers(0, 99, (3, 9, 11)).astype("u2"), rng.integers(0, 99, (2, 5, 4)).astype("u1")
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(b[0], subfiletype=1, **GREY)  # a thumbnail comes first
        for frame in (a[0], b[0], a[1], b[1], a[2]):
            file.write(frame, contiguous=False, **GREY)
    reader = same(tmp_path / "a.tif", a)
    assert reader.oddities == (
        "series 0 is left out: 1 page of 4 x 5, 8 bits",
        "series 2 is left out: 2 pages of 4 x 5, 8 bits",
    )
    with mrcz.open(tmp_path / "a.tif", dataset="2") as reader:
        np.testing.assert_array_equal(reader.read(), b[:, ::-1])
    for dataset in ("3", "-1", "movie"):
        with pytest.raises(ValueError, match="series 0 to 2"):
            mrcz.open(tmp_path / "a.tif", dataset=dataset)


def test_a_series_that_is_not_read_hides_no_other(tmp_path, rng):
    colours = rng.integers(0, 99, (9, 11, 4)).astype("u1")
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(np.ones((4, 4), "u1"), **GREY)
        file.write(colours, photometric="rgb", extrasamples=["unassalpha"], metadata=None)
    with mrcz.open(tmp_path / "a.tif") as reader:
        assert reader.shape == (1, 4, 4)
    with pytest.raises(mrcz.FormatError, match="4 samples a pixel"):
        mrcz.open(tmp_path / "a.tif", dataset="1")


def test_an_orientation_is_told_and_not_followed(tmp_path, rng):
    stack = rng.integers(0, 999, (2, 9, 11)).astype("u2")
    tifffile.imwrite(tmp_path / "a.tif", stack, extratags=[(274, 3, 1, 4, True)], **GREY)
    assert "orientation 4" in same(tmp_path / "a.tif", stack).oddities[0]


# ---- metadata ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resolution", "unit", "expected"),
    [
        (8e7, "CENTIMETER", 1.25),
        ((254 * 10**6 // 2, 1), "INCH", 2),
        (72, "INCH", 0),  # of a screen
        (2400, "INCH", 0),  # of a printer
        (118, "CENTIMETER", 0),
        (8e7, "NONE", 0),
    ],
)
def test_resolution_is_a_pixel_size_where_it_can_be(tmp_path, resolution, unit, expected):
    how = {"resolution": (resolution, resolution), "resolutionunit": unit}
    tifffile.imwrite(tmp_path / "a.tif", np.ones((4, 4), "u1"), **how, **GREY)
    with mrcz.open(tmp_path / "a.tif") as reader:
        assert reader.pixel_size == (expected, expected, 0)
        assert reader.metadata.get("pixel_size") == ([expected, expected] if expected else None)
        assert reader.header.pixel_size[:2] == pytest.approx((expected, expected))


def test_what_tags_say(tmp_path):
    xml = '<?xml version="1.0"?><MicroscopeImage>µ</MicroscopeImage>'
    extra = [
        (65027, 2, None, xml.encode() + b"\0", True),
        (34680, 2, None, b"[User]\r\nDate=x\0", True),
        (65003, 2, None, b"nm\0", True),
        (65004, 2, None, b"nm\0", True),
        (65009, 12, 1, 0.14, True),
        (65010, 12, 1, 0.28, True),
    ]
    how = {"description": "SerialEM: Acquired on Krios", "datetime": "2024:05:06 07:08:09", "software": "S"}
    tifffile.imwrite(tmp_path / "a.tif", np.ones((4, 4), "u1"), extratags=extra, **how, **GREY)
    with mrcz.open(tmp_path / "a.tif") as reader:
        said = reader.metadata
    assert said["pixel_size"] == [1.4, 2.8]
    assert said["timestamp"] == "2024-05-06T07:08:09"
    tiff = said["original"]["tiff"]
    assert (tiff["FEI_TITAN"], tiff["FEI_SFEG"]) == (xml, "[User]\r\nDate=x")
    assert (tiff["ImageDescription"], tiff["Software"]) == ("SerialEM: Acquired on Krios", "S")
    assert tiff["65009"] == 0.14


@pytest.mark.parametrize("text", ["2024:13:06 07:08:09", "yesterday", "2024:05:06 07:08:09Z", ""])
def test_a_date_that_is_none_is_absent(tmp_path, text):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((4, 4), "u1"), extratags=[(306, 2, None, text, True)], **GREY)
    with mrcz.open(tmp_path / "a.tif") as reader:
        assert "timestamp" not in reader.metadata


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE a [<!ENTITY b "c">]><OME xmlns="o"><Pixels PhysicalSizeX="1" PhysicalSizeY="1"/></OME>',
        "<OME><Pixels",
        '<OME xmlns="o"><Image><Pixels PhysicalSizeX="x" PhysicalSizeY="1"/></Image></OME>',
        '<OME xmlns="o"><Image><Pixels PhysicalSizeX="1" PhysicalSizeXUnit="pixel" PhysicalSizeY="1"/></Image></OME>',
        "ImageJ=1\nunit=furlong\n",
        "ImageJ=1\nimages=x\nunit=nm\nspacing=1e400\n".replace("nm", ""),
        '{"shape": "x", "truncated": true}',
        '{"shape": [[1], 2, 3], "truncated": true}',
        "[" * 100000,
        '{"truncated": ' + "[" * 100000,
    ],
)
def test_descriptions_that_say_nothing(tmp_path, text):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((4, 4), "u1"), description=text, **GREY)
    with mrcz.open(tmp_path / "a.tif") as reader:
        assert reader.pixel_size == (0, 0, 0)
        assert reader.metadata["original"]["tiff"]["ImageDescription"] == text


def test_a_real_stack(data_dir):
    path = data_dir / "cylindra" / "13pf_MT.tif"
    reader = same(path, tifffile.imread(path))
    assert reader.original.pixel_size == pytest.approx((10.52, 10.52, 10.52))


@pytest.mark.parametrize("late", [0, 1, 2])
def test_ends_of_lzw_as_every_libtiff_wrote_them(tmp_path, rng, late):
    """Strips whose last text makes codes longer: before 4.0.10 the end was a bit too short then."""
    frame = rng.integers(0, 256, (6, 771), np.uint8)

    def packed(rows):
        out = np.empty(4 * rows.size, np.uint8)
        return out[: lzw.encode(rows.reshape(-1), out, late=late)].tobytes()

    widths = {"even": frame, "padded": frame[:5]}  # the last strip of the other is filled up with a row more
    for name, rows in widths.items():
        strips = [packed(row) for row in frame] if name == "even" else [packed(frame[k : k + 2]) for k in (0, 2, 4)]
        height = 1 if name == "even" else 2
        with tifffile.TiffWriter(tmp_path / f"{name}.tif") as file:
            how = {"shape": rows.shape, "dtype": np.uint8, "compression": "lzw", "rowsperstrip": height}
            file.write(iter(strips), **how, **GREY)
        np.testing.assert_array_equal(mrcz.read(tmp_path / f"{name}.tif")[0], rows[::-1])
    made = mrcz.compress(tmp_path / "even.tif", tmp_path / "a.mrcz")
    assert made.restores == "file"
    mrcz.decompress(tmp_path / "a.mrcz", tmp_path / "back.tif")
    assert (tmp_path / "back.tif").read_bytes() == (tmp_path / "even.tif").read_bytes()
