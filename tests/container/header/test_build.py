"""Headers that other programs accept, from values and from other headers."""

import io
import re
import struct

import numpy as np
import pytest
from made_headers import contents, edited, inventory, plain
from rewriting import rewrite
from wrong_arguments import WRONG_PIXEL_SIZES

from mrcz import FormatError
from mrcz.container.header.header import HEADER_DTYPE, MRCZ_LABEL, Header
from mrcz.container.modes import MODES, format_for, format_of_mode

WRITTEN = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "float16", "float32", "complex64"]

# ---- writing -----------------------------------------------------------------------------------------------------


KINDS = [("image", (1, 3, 5), None), ("stack", (4, 3, 5), None), ("volume", (4, 3, 5), None)]
KINDS += [("volume stack", (4, 3, 5), 2), ("stack", (1, 3, 5), None), ("volume", (1, 3, 5), None)]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", WRITTEN)
def test_written_headers_are_valid(dtype, order, tmp_path, rng):
    """By mrcfile's validation where it knows the mode, and by our own reading."""
    import mrcfile

    for kind, shape, mz in KINDS:
        pixels = format_for(dtype, max_value=100, byteorder=order)
        data = rng.integers(0, 2 if dtype == "bool" else 100, shape).astype(pixels.stored)
        stats = None if data.dtype.kind == "c" else (data.min(), data.max(), data.mean(), data.std(dtype=float))
        header = Header.build(shape, pixels, pixel_size=(1.5, 2, 3), kind=kind, mz=mz, stats=stats, byteorder=order)
        assert not header.oddities
        assert header == Header.parse(header.tobytes(), file_size=1024 + data.nbytes)
        assert header.kind == ("image" if kind == "stack" and shape[0] == 1 else kind)
        assert header.pixel_size == pytest.approx((1.5, 2, 3))
        assert (header["ispg"], header["mz"]) == {
            "image": (0, 1),
            "stack": (0, 1),
            "volume": (1, shape[0]),
            "volume stack": (401, 2),
        }[kind]
        assert (header["nversion"], header["map"], header["cellb"]) == (20141, b"MAP ", (90, 90, 90))
        assert header.labels == [MRCZ_LABEL]
        if pixels.mode in (7, 8):
            continue
        path = tmp_path / f"{kind}.mrc"
        rewrite(path, header.tobytes() + data.tobytes())
        report = io.StringIO()
        assert mrcfile.validate(path, report), report.getvalue()
        with mrcfile.open(path) as file:
            assert np.array_equal(file.data.reshape(shape), data)
            assert file.is_volume() == (kind == "volume")
            assert file.is_volume_stack() == (kind == "volume stack")
            assert file.voxel_size.tolist() == pytest.approx((1.5, 2, 3))


def test_imod_stamp():
    for dtype, flags in (("int8", 1), ("uint8", 0), ("bool", 0)):
        header = Header.build((1, 2, 3), format_for(dtype, max_value=1))
        assert (header["imod_stamp"], header.imod_flags) == (1146047817, flags)
    assert plain(1)["imod_stamp"] == 0
    # The other flags are the file's own.
    like = Header.parse(edited(plain(0), imod_flags=1 | 4 | 8))
    unsigned = Header.build(like.shape, format_of_mode(0, unsigned_bytes=True), like=like)
    assert unsigned.imod_flags == 12


def test_statistics():
    assert plain().stats == (0, -1, -2, -1)
    assert plain(stats=(1, 2, 1.5, 0.25)).stats == (1, 2, 1.5, 0.25)
    assert plain(stats=(-1e300, 1e300, 0, 1)).stats[1] == float("inf")
    assert plain(like=plain(stats=(1, 2, 3, 4))).stats == (0, -1, -2, -1)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"shape": (0, 6, 8)}, "shape"),
        ({"shape": (1, 6, 2**31)}, "shape"),
        ({"kind": "movie"}, "kind is 'movie'"),
        ({"kind": "volume stack"}, "needs mz="),
        ({"kind": "volume stack", "mz": 3}, "whole volumes"),
        *(
            ({"pixel_size": wrong}, r"pixel_size is .*, expected one or three \(x, y, z\) numbers in Å, 0 or more")
            for wrong in WRONG_PIXEL_SIZES
        ),
        ({"byteorder": ">"}, "contradicts"),
        ({"byteorder": "big"}, "byteorder"),
        ({"exttyp": "CCP4X"}, "exttyp"),
        ({"nsymbt": -1}, "nsymbt"),
        ({"labels": ["x"] * 10}, "9 labels"),
        ({"codec": "gzip"}, "no codec"),
        ({"shape": (1, 30000, 30000), "codec": "zstd"}, "too large to compress"),
    ],
)
def test_wrong_arguments(kwargs, message):
    kwargs = {"shape": (4, 6, 8), **kwargs}
    with pytest.raises(ValueError, match=message):
        Header.build(kwargs.pop("shape"), format_of_mode(2), **kwargs)


def test_byte_order_of_the_pixels_is_the_files():
    assert Header.build((1, 2, 3), format_of_mode(2, byteorder=">")).byteorder == ">"
    assert Header.build((1, 2, 3), format_of_mode(0), byteorder=">").byteorder == ">"
    like = plain(byteorder=">")
    assert Header.build((1, 2, 3), format_of_mode(0), like=like).byteorder == ">"


def test_labels():
    header = plain(labels=["first", "zweites: µm", "", "x" * 100])
    assert header.labels == [MRCZ_LABEL, "first", "zweites: µm", "x" * 80]
    assert header["nlabl"] == 4
    like = Header.parse(edited(header, label=[b"caf\xe9", b"", b"two"] + [b""] * 7, nlabl=3))
    assert like.labels == ["café", "two"]
    assert "NLABL 3, but 2 labels hold text" in like.oddities
    assert not like.is_mrcz
    assert plain(like=like, labels=["new"]).labels == ["café", "two", MRCZ_LABEL, "new"]
    # At byte 224 in a compressed file, where older readers look; the others move on.
    assert plain(like=like, codec="zstd").labels == [MRCZ_LABEL, "café", "two"]
    full = Header.parse(edited(header, label=[b"%d" % i for i in range(10)], nlabl=10))
    assert plain(like=full).labels == [str(i) for i in range(10)]
    assert plain(like=full).voltage is None
    assert plain(like=full, codec="zstd").labels == [MRCZ_LABEL, *map(str, range(9))]
    # An older version's label would make readers distrust MZ.
    old = Header.parse(edited(header, label=[b"MRCZ0.4.1", b"two"] + [b""] * 8, nlabl=2))
    assert (old.mrcz_version, old.slices) == ("0.4.1", 1)
    assert plain(like=old).labels == [MRCZ_LABEL, "two"]


def read_by_0_6_0(raw: bytes) -> dict:
    """What readMRCHeader of mrcz 0.6.0 makes of these bytes (observed on the released package)."""
    order = "<" if struct.unpack_from("<i", raw, 12)[0] <= 16000000 else ">"
    nx, ny, nz, word = struct.unpack_from(order + "4i", raw)
    cell = struct.unpack_from(order + "3f", raw, 40)
    label = raw[224:304].decode("utf-8").rstrip(" \t\r\n\0")
    assert re.fullmatch(r"MRCZ\d+\.\d+\.\d+", label)
    old = tuple(map(int, label[4:].split("."))) < (0, 5, 0)
    return {
        "dimensions": (nz, ny, nx),
        "mode": word % 1000,
        "codec": word // 1000,
        "slices": 1 if old else struct.unpack_from(order + "i", raw, 36)[0],
        "pixelsize": (cell[2] / nz, cell[1] / ny, cell[0] / nx),
        "microscope": struct.unpack_from(order + "3f", raw, 132),
        "packedBytes": struct.unpack_from(order + "q", raw, 144)[0],
    }


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "shape", "mz"), KINDS)
def test_compressed_as_older_versions_read_them(kind, shape, mz, order):
    pixels = format_of_mode(6, byteorder=order)
    header = Header.build(
        shape,
        pixels,
        kind=kind,
        mz=mz,
        codec="zstd",
        pixel_size=(1.5, 2, 3),
        packed_bytes=12345678901,
        voltage=300,
        c3=2.7,
        gain=1.5,
    )
    nz, ny, nx = shape
    seen = read_by_0_6_0(header.tobytes())
    assert seen["pixelsize"] == pytest.approx((3, 2, 1.5))
    assert seen["microscope"] == pytest.approx((300, 2.7, 1.5))
    assert (seen["slices"], seen["packedBytes"], seen["codec"], seen["mode"]) == (0, 12345678901, 6, 6)
    # And nobody else divides by nothing.
    assert (header["mx"], header["my"]) == (nx, ny)
    assert header.pixel_size == pytest.approx((1.5, 2, 3))
    assert header.mz == (mz or (nz if kind == "volume" else 1))
    assert (header.slices, header.packed_bytes) == (0, 12345678901)
    assert header.kind == ("image" if kind == "stack" and nz == 1 else kind)
    assert not header.oddities


def test_slices():
    """Lists: in MZ where older versions look for it, elsewhere in plain files, whose MZ is the standard's."""
    compressed = plain(codec="lz4", slices=2, pixel_size=1.5)
    assert (compressed["mz"], compressed.slices, compressed.mz) == (2, 2, 1)
    assert read_by_0_6_0(compressed.tobytes())["pixelsize"] == pytest.approx((1.5, 1.5, 1.5))
    uncompressed = plain(slices=2, pixel_size=1.5)
    assert (uncompressed["mz"], uncompressed.slices) == (1, 2)
    assert compressed.pixel_size == uncompressed.pixel_size == pytest.approx((1.5, 1.5, 1.5))
    assert plain().slices == 0
    assert Header.parse(edited(plain(), label=[b""] * 10)).slices is None


def test_whole_cell():
    """Plain stacks of the old surface: MZ is the standard's 1, the cell is divided by NZ as mrcz before 1.0 does."""
    header = plain(pixel_size=1.5, whole_cell=True)
    assert (header["mz"], header["cella"][2], header.pixel_size) == (1, 6, (1.5, 1.5, 1.5))
    assert read_by_0_6_0(header.tobytes())["pixelsize"] == (1.5, 1.5, 1.5)
    standard = plain(like=header)
    assert (standard["cella"][2], standard.pixel_size, standard["mrcz_mz"]) == (1.5, (1.5, 1.5, 1.5), 0)
    packed = plain(like=header, codec="zstd")
    assert (packed.pixel_size, packed.mz) == ((1.5, 1.5, 1.5), 1)


def test_microscope_needs_a_label():
    header = plain(voltage=200, c3=2.7, gain=1.1)
    assert (header.voltage, header.c3, header.gain) == pytest.approx((200, 2.7, 1.1))
    assert plain(like=header, gain=2).voltage == 200
    assert plain(like=header, gain=2).gain == 2
    bare = Header.parse(edited(header, label=[b""] * 10, nlabl=0))
    assert (bare.voltage, bare.c3, bare.gain, bare.packed_bytes, bare.mrcz_version) == (None,) * 5
    # What IMOD once kept there is no voltage.
    assert plain(like=bare).voltage == 0


# ---- like= -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "shape", "mz"), KINDS)
def test_there_and_back_without_a_footer(kind, shape, mz, order):
    """Plain -> compressed -> plain gives all 1024 bytes back from the header alone."""
    for mode in MODES:
        header = Header.build(
            shape,
            format_of_mode(mode, byteorder=order),
            kind=kind,
            mz=mz,
            pixel_size=(1.1, 2.2, 3.3),
            voltage=300,
            stats=(1, 2, 1.5, 0.5),
            labels=["a label"],
            exttyp="FEI1",
            nsymbt=768,
            byteorder=order,
        )
        packed = Header.build(shape, header.pixel_format, like=header, codec="zstd", stats=header.stats)
        again = Header.build(shape, packed.pixel_format, like=packed, stats=packed.stats)
        assert again.tobytes() == header.tobytes()
        assert packed.pixel_format == header.pixel_format


SPECIMEN = (
    "nxstart",
    "nystart",
    "nzstart",
    "mx",
    "my",
    "mz",
    "cella",
    "cellb",
    "mapc",
    "mapr",
    "maps",
    "ispg",
    "nsymbt",
    "exttyp",
    "origin",
    "nint",
    "nreal",
    "idtype",
    "lens",
    "tiltangles",
)


def test_real_headers_are_kept(some_data_dir):
    for path, _ in inventory(some_data_dir):
        raw = contents(path)
        try:
            header = Header.parse(raw, file_size=len(raw))
        except FormatError:
            continue
        for codec in (None, "zstd"):
            new = Header.build(header.shape, header.pixel_format, like=header, codec=codec, stats=header.stats)
            for name in SPECIMEN:
                if name not in ("mz", "cella") or codec is None:
                    assert new[name] == header[name], (path, name)
            assert (new.shape, new.pixel_format, new.kind) == (header.shape, header.pixel_format, header.kind), path
            assert (new.pixel_size, new.mz) == (pytest.approx(header.pixel_size, rel=1e-6), header.mz), path
            assert new.stats == header.stats
            assert set(header.labels) <= set(new.labels)
            again = Header.build(header.shape, new.pixel_format, like=new, stats=new.stats)
            for name in SPECIMEN:
                if name != "cella":
                    assert again[name] == header[name], (path, name)
            assert again["cella"] == pytest.approx(header["cella"], rel=1e-6)


def test_like_for_another_size():
    volume = plain(shape=(4, 6, 8), kind="volume", pixel_size=(1, 2, 3), origin=(7, 8, 9))
    cropped = plain(shape=(2, 3, 4), like=volume)
    assert (cropped["mx"], cropped["my"], cropped["mz"], cropped.kind) == (4, 3, 2, "volume")
    assert (cropped.pixel_size, cropped.origin) == ((1, 2, 3), (7, 8, 9))
    # A cell that is sampled beyond the map stays the cell.
    crystal = Header.parse(edited(volume, mx=100, my=100, mz=100, cella=(50, 60, 70), ispg=19))
    cropped = plain(shape=(2, 3, 4), like=crystal)
    assert (cropped["mx"], cropped["mz"], cropped["ispg"], cropped["cella"]) == (100, 100, 19, (50, 60, 70))
    # An image makes stacks, a stack stays one.
    image = plain(shape=(1, 6, 8), kind="image", pixel_size=1.5)
    stack = plain(shape=(9, 6, 8), like=image)
    assert (stack["mz"], stack.kind, stack.pixel_size) == (1, "stack", (1.5, 1.5, 1.5))
    # RELION's stacks have MZ = NZ.
    relion = Header.parse(edited(stack, mz=9, cella=(12, 9, 13.5)))
    assert plain(shape=(3, 6, 8), like=relion)["mz"] == 3
    assert plain(shape=(3, 6, 8), like=relion).pixel_size == (1.5, 1.5, 1.5)
    stacked = plain(shape=(4, 6, 8), like=volume, kind="stack")
    assert (stacked["mz"], stacked["ispg"], stacked.pixel_size) == (1, 0, (1, 2, 3))
    volumes = plain(shape=(8, 6, 8), like=volume, kind="volume stack", mz=4)
    assert (volumes["mz"], volumes["ispg"], volumes.pixel_size) == (4, 401, (1, 2, 3))
    assert plain(shape=(12, 6, 8), like=volumes)["mz"] == 4
    assert plain(shape=(10, 6, 8), like=volumes).kind == "stack"
    assert (plain(shape=(3, 6, 8), like=volumes).kind, plain(shape=(3, 6, 8), like=volumes)["mz"]) == ("volume", 3)
    with pytest.raises(ValueError, match="whole volumes"):
        plain(shape=(10, 6, 8), like=volumes, kind="volume stack")
    # A source that contradicts itself is copied as it is.
    broken = Header.parse(edited(volumes, mz=3))
    assert (plain(shape=(8, 6, 8), like=broken)["mz"], plain(shape=(8, 6, 8), like=broken, codec="lz4").mz) == (3, 3)
    assert plain(shape=(4, 6, 8), like=volume, pixel_size=2)["cella"] == (16, 12, 8)


def test_like_repairs_what_is_no_header():
    raw = edited(plain(), map=b"", machst=(0, 0, 0, 0), nversion=0, mapc=0, mapr=0, maps=0, ispg=-7, nlabl=99)
    odd = Header.parse(raw)
    assert len(odd.oddities) == 6
    assert not plain(like=odd).oddities
    # IMOD reads FEI's files of 20140 upside down, so the number is not ours to change.
    assert plain(like=Header.parse(edited(plain(), nversion=20140)))["nversion"] == 20140


def test_like_in_the_other_byte_order():
    little = plain(pixel_size=1.5, origin=(1, 2, 3), labels=["x"], stats=(1, 2, 3, 4))
    big = Header.build(little.shape, format_of_mode(2, byteorder=">"), like=little, stats=little.stats)
    assert big.byteorder == ">"
    for name in HEADER_DTYPE.names:
        assert big[name] == little[name] or name == "machst"


def test_any_header_can_be_copied(rng):
    """Random bytes around sound sizes: copied, compressed and back, pixels and pixel size stay what they are."""
    copied = 0
    for _ in range(400):
        order = str(rng.choice(["<", ">"]))
        record = np.frombuffer(bytearray(rng.bytes(1024)), HEADER_DTYPE.newbyteorder(order))
        record["nx"], record["ny"], record["nz"] = rng.integers(1, 50, 3)
        record["mapc"], record["mapr"], record["maps"] = rng.permutation([1, 2, 3])
        record["mx"], record["my"], record["mz"] = rng.integers(-2, 60, 3)
        record["cella"] = rng.random(3) * 1000
        record["mode"] = rng.choice(list(MODES)) + rng.choice([0, 6000])
        record["ispg"] = rng.choice([0, 1, 19, 401, -1])
        record["nsymbt"] = rng.choice([0, 160])
        if rng.random() < 0.5:
            record["label"][0] = [b"MRCZ0.6.0", b"MRCZ1.0.0", b"x"][rng.integers(3)]
        header = Header.parse(record.tobytes())
        for codec in (None, "zstd"):
            new = Header.build(header.shape, header.pixel_format, like=header, codec=codec)
            assert (new.shape, new.pixel_format, new.nsymbt) == (header.shape, header.pixel_format, header.nsymbt)
            assert new.pixel_size == pytest.approx(header.pixel_size, rel=1e-5)
            assert new["nversion"] in (20140, 20141)
            assert 0 <= new["ispg"] <= 630
            assert new["nlabl"] == len(new.labels)
            back = Header.build(header.shape, new.pixel_format, like=new)
            assert (back["mx"], back["my"], back["mz"]) == (new["mx"], new["my"], new.mz)
            copied += 1
    assert copied == 800


# ---- limits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"mz": 0}, "sampling .* is out of range"),
        ({"mz": 2**31}, "sampling .* is out of range"),
        ({"nsymbt": 2**31}, "nsymbt is 2147483648, expected 0 to 2147483647"),
        ({"exttyp": "CCP4 "}, "exttyp is 'CCP4 '"),
        ({"exttyp": "µm€"}, "exttyp is 'µm€'"),
        ({"kind": ""}, "kind is '', expected one of image, stack, volume, volume stack"),
    ],
)
def test_values_that_do_not_fit_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        plain(**kwargs)


def test_the_largest_values_that_fit():
    assert plain(mz=2**31 - 1, kind="volume")["mz"] == 2**31 - 1
    assert plain(nsymbt=2**31 - 1).nsymbt == 2**31 - 1 and plain(nsymbt=0).nsymbt == 0
    assert plain(exttyp="µm é").exttyp == "µm é"
    header = Header.build((2**31 - 1, 1, 1), format_of_mode(0))
    assert header.shape == (2**31 - 1, 1, 1)
    assert plain(labels=[str(k) for k in range(9)]).labels == [MRCZ_LABEL, *(str(k) for k in range(9))]
    for labels in (["x"] * 11, ["x"] * 12):
        with pytest.raises(ValueError, match=f"a header holds 10 labels, not {len(labels)}"):
            plain().replace(label=labels)
    assert len(plain().replace(label=["x"] * 10).labels) == 10


def test_labels_are_cut_between_characters():
    for text, kept in (
        ("x" * 80, 80),
        ("x" * 81, 80),
        ("µ" * 40, 40),
        ("µ" * 41, 40),
        ("x" + "µ" * 40, 40),
        ("€" * 27, 26),
    ):
        assert plain(labels=[text]).labels[1] == text[:kept], text
    raw = "µ".encode("latin-1") * 90
    assert bytes(plain().replace(label=[MRCZ_LABEL, raw])["label"][1]) == raw[:80]
    assert plain(labels=[" ", "\t"]).labels == [MRCZ_LABEL]


@pytest.mark.parametrize(
    ("kind", "ispg", "kept"),
    [
        ("volume", 1, 1),
        ("volume", 230, 230),
        ("volume", 400, 400),
        ("volume", 401, 1),
        ("volume", 0, 1),
        ("volume stack", 401, 401),
        ("volume stack", 630, 630),
        ("volume stack", 631, 401),
        ("volume stack", 400, 401),
        ("stack", 1, 0),
        ("image", 630, 0),
    ],
)
def test_a_space_group_stays_if_it_is_of_the_kind(kind, ispg, kept):
    like = Header.parse(edited(plain(), ispg=ispg))
    assert plain(like=like, kind=kind, mz=2 if kind == "volume stack" else None)["ispg"] == kept


def test_volumes_of_one_section():
    like = plain(shape=(8, 6, 8), kind="volume stack", mz=1)
    assert (plain(shape=(7, 6, 8), like=like).kind, plain(shape=(7, 6, 8), like=like)["mz"]) == ("volume stack", 1)


def test_no_image_of_many_frames():
    assert plain(shape=(2, 6, 8), kind="image").kind == "stack"
    assert plain(shape=(1, 6, 8), kind="image").kind == "image"


def test_byte_order_is_one_of_two():
    like = plain(0, byteorder=">")
    assert plain(0, like=like, byteorder="<").byteorder == "<"
    assert Header.build((1, 2, 3), format_of_mode(0)).byteorder == "<"
    for wrong in ("=", "|", "", "little"):
        with pytest.raises(ValueError, match=f"byteorder is '{re.escape(wrong)}', expected '<' or '>'"):
            Header.build((1, 2, 3), format_of_mode(0), byteorder=wrong)
    with pytest.raises(ValueError, match="byteorder '<' of the header contradicts '>' of the pixels"):
        Header.build((1, 2, 3), format_of_mode(2, byteorder=">"), byteorder="<")


def test_an_extended_header_that_goes_takes_its_type_along():
    like = plain(exttyp="FEI1", nsymbt=768)
    assert (plain(like=like).exttyp, plain(like=like).nsymbt) == ("FEI1", 768)
    gone = plain(like=like, nsymbt=0)
    assert (gone.exttyp, gone.nsymbt, bytes(gone["exttyp"])) == ("", 0, b"")
    assert plain(like=like, nsymbt=0, exttyp="json").exttyp == "json"
    assert plain(like=like, nsymbt=80).exttyp == "FEI1"
    # What stood in these bytes before they had a meaning stays, if there was no extended header to take it along.
    old = Header.parse(edited(plain(), exttyp=b"  x "))
    assert bytes(plain(like=old, nsymbt=0)["exttyp"]) == bytes(plain(like=old, exttyp="x")["exttyp"]) == b"  x "
    assert bytes(plain(like=old, exttyp="")["exttyp"]) == b""


def test_sampling_of_sources_that_have_none():
    """MX, MY, MZ of 0 or less say nothing: those of the new size are taken; images have MZ 1."""
    like = Header.parse(edited(plain(pixel_size=1.5), mx=0, my=-3, mz=0))
    new = plain(shape=(9, 6, 8), like=like)
    assert (new["mx"], new["my"], new["mz"]) == (8, 6, 1)
    volume = Header.parse(edited(plain(kind="volume"), mz=0))
    assert plain(shape=(9, 6, 8), like=volume)["mz"] == 9
    image = plain(shape=(1, 6, 8), kind="image")
    assert plain(shape=(5, 6, 8), like=image, kind="volume")["mz"] == 5


def test_a_source_that_contradicts_itself_is_copied_and_nothing_more():
    volumes = plain(shape=(8, 6, 8), kind="volume stack", mz=4)
    broken = Header.parse(edited(volumes, mz=3))
    assert plain(shape=(8, 6, 8), like=broken)["mz"] == 3
    for kwargs in (
        {"shape": (8, 6, 8), "like": broken, "mz": 3},
        {"shape": (7, 6, 8), "like": broken, "kind": "volume stack"},
        {"shape": (8, 6, 8), "kind": "volume stack", "mz": 3},
        {"shape": (8, 6, 8), "like": plain(shape=(8, 6, 8)), "kind": "volume stack", "mz": 3},
    ):
        with pytest.raises(ValueError, match="does not hold whole volumes of mz=3"):
            plain(**kwargs)
    with pytest.raises(ValueError, match="needs mz="):
        plain(shape=(8, 6, 8), like=plain(shape=(8, 6, 8)), kind="volume stack")
    assert plain(shape=(8, 6, 8), like=broken, mz=2)["mz"] == 2


def test_flags_of_imod_follow_the_pixels():
    """The signed bit of bytes is ours, the 4-bit one goes, the others stay; without the stamp flags say nothing."""
    for mode, flags, stamped, expected in (
        (0, 0, True, 1),
        (0, 2 | 16, True, 3),
        (0, 2 | 16, False, 1),
        (1, 1 | 2 | 16, True, 3),
        (2, 8, True, 8),
        (2, 8, False, None),
    ):
        like = Header.parse(edited(plain(1), imod_stamp=1146047817 if stamped else 0, imod_flags=flags))
        assert plain(mode, like=like).imod_flags == expected, (mode, flags, stamped)


def test_pixel_sizes_in_all_their_forms():
    record = np.rec.array((1.5, 2.0, 3.0), dtype=[("x", "f4"), ("y", "f4"), ("z", "f4")])
    for size in ((1.5, 2, 3), [1.5, 2, 3], np.array([1.5, 2, 3]), record):
        assert plain(kind="volume", pixel_size=size).pixel_size == (1.5, 2, 3)
        assert plain(kind="volume", pixel_size=size)["cella"] == (12, 12, 12)
    for size in (2, np.float32(2), [2], np.array([[2]])):
        assert plain(kind="volume", pixel_size=size)["cella"] == (16, 12, 8)
    assert plain(pixel_size=0).pixel_size == (0, 0, 0)
    like = plain(pixel_size=2)
    assert plain(like=like, pixel_size=0)["cella"] == (0, 0, 0)
