"""1024 bytes <-> Header: every real file as its inventory says, and headers that other programs accept."""

import bz2
import gzip
import io
import pickle
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrcz import FormatError, FormatWarning, HeaderError
from mrcz.container.header.header import HEADER_DTYPE, HEADER_NBYTES, MRCZ_LABEL, Header
from mrcz.container.modes import MODES, format_for, format_of_mode

WRITTEN = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "float16", "float32", "complex64"]


def field_offset(name: str) -> int:
    return (HEADER_DTYPE.fields or {})[name][1]


def edited(header: Header | bytes, **values: object) -> bytes:
    """The bytes of a header with some fields changed, whatever they then say."""
    raw = header if isinstance(header, bytes) else header.tobytes()
    order = "<" if isinstance(header, bytes) else header.byteorder
    record = np.frombuffer(bytearray(raw[:HEADER_NBYTES]), HEADER_DTYPE.newbyteorder(order))
    for name, value in values.items():
        record[name] = value
    return record.tobytes()


def plain(mode: int = 2, shape=(4, 6, 8), **kwargs) -> Header:
    return Header.build(shape, format_of_mode(mode, byteorder=kwargs.get("byteorder", "<")), **kwargs)


# ---- the layout --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "offset"),
    [
        ("nx", 0), ("mode", 12), ("nxstart", 16), ("mx", 28), ("cella", 40), ("cellb", 52), ("mapc", 64), ("dmin", 76),
        ("ispg", 88), ("nsymbt", 92), ("exttyp", 104), ("nversion", 108), ("nint", 128), ("voltage", 132), ("c3", 136),
        ("gain", 140), ("packed_bytes", 144), ("imod_stamp", 152), ("imod_flags", 156), ("origin", 196), ("map", 208),
        ("machst", 212), ("rms", 216), ("nlabl", 220), ("label", 224),
    ],
)  # fmt: skip
def test_offsets(field, offset):
    assert field_offset(field) == offset


# ---- real files --------------------------------------------------------------------------------------------------

_ENTRY = re.compile(
    r"^- \*\*(?P<name>.+?)\*\* \(.*?MRC mode (?P<mode>-?\d+), (?P<nx>\d+)x(?P<ny>\d+)x(?P<nz>\d+)"
    r".*?stamp (?P<stamp>\w+), MAP=(?P<map>\w+)"
    r", nsymbt (?P<nsymbt>\d+) (?:no exttyp|exttyp (?P<exttyp>.{1,4})), ispg (?P<ispg>-?\d+)"
    r", nversion (?P<nversion>-?\d+), axes \[(?P<axes>[^]]*)\]\. mrcfile: (?P<verdict>.*)$"
)


def inventory(data_dir: Path) -> list[tuple[Path, dict[str, str]]]:
    """Every file that the inventory describes as MRC, with what it says."""
    files = []
    folder = data_dir
    for line in (data_dir / "INVENTORY.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            folder = data_dir / line[3:].split("  ")[0].strip()
        elif found := _ENTRY.match(line):
            files.append((folder / found["name"], found.groupdict()))
    return files


def contents(path: Path) -> bytes:
    raw = path.read_bytes()
    return {".gz": gzip.decompress, ".bz2": bz2.decompress}.get(path.suffix, bytes)(raw)


def test_every_real_file_as_the_inventory_says(some_data_dir):
    files = inventory(some_data_dir)
    assert len(files) > (60 if (some_data_dir / "fei").is_dir() else 18)
    refused = {}
    for path, says in files:
        raw = contents(path)
        try:
            header = Header.parse(raw, file_size=len(raw), path=path)
        except FormatError as error:
            assert "data=None" in says["verdict"], path
            assert str(path) in str(error)
            refused[path.name] = error
            continue
        assert "data=None" not in says["verdict"], path
        assert (header.nx, header.ny, header.nz) == tuple(int(says[n]) for n in ("nx", "ny", "nz")), path
        assert (header.mode, header["ispg"], header["nversion"]) == tuple(
            int(says[n]) for n in ("mode", "ispg", "nversion")
        ), path
        assert (header.nsymbt, header.exttyp) == (int(says["nsymbt"]), says["exttyp"] or ""), path
        assert header.axes == tuple(int(a) for a in says["axes"].split(",")), path
        assert ("no 'MAP '" in " ".join(header.oddities)) == (says["map"] == "NO"), path
        assert bytes(header["machst"]).hex() == says["stamp"], path
        assert header.tobytes() == raw[:1024]
        dtype, shape = re.match(r"ok (\w+) \[([\d, ]*)\]", says["verdict"]).groups()
        assert header.pixel_format.dtype == np.dtype(dtype), path
        assert header.shape[-len(shape.split(",")) :] == tuple(int(n) for n in shape.split(",")), path
        assert header.data_offset + header.nz * header.frame_nbytes <= len(raw)
    gains = {name for name in refused if name.endswith(("gain.mrc", "dark.mrc"))}
    broken = {"MRC.mrc", "leginoncatcheck.mrc", "header_only.mrc", "test_data_corrupt_header.map"}
    assert set(refused) - gains == broken & {path.name for path, _ in files}
    assert "leginoncatcheck.mrc" in refused
    for name, error in refused.items():
        if name == "leginoncatcheck.mrc":
            assert "text file" in str(error)
        else:
            assert (error.field, error.expected) == ("nz", f"at most {error.expected.split()[-1]}"), name


def test_damaged_real_files_give_what_is_there(data_dir):
    frames = {
        "exiftool/MRC.mrc": 0,
        "pytom/header_only.mrc": 0,
        "sfftk/test_data_corrupt_header.map": 0,
        "rsciio-de-celeritas/data/test.seq.gain.mrc": 8,
        "rsciio-de-celeritas/128x256_PRebuffer128/test.seq.dark.mrc": 1,
        "rsciio-de-celeritas/256x256_Prebuffer1/Movie_00785.seq.dark.mrc": 1,
    }
    for name, nz in frames.items():
        path = data_dir / name
        with path.open("rb") as file:
            raw = file.read(1024)
        with pytest.warns(FormatWarning, match="header field nz is") as caught:
            header = Header.parse(raw, file_size=path.stat().st_size, permissive=True, path=path)
        assert (header.nz, len(caught)) == (nz, 1), name
        assert header["nz"] == struct.unpack("<i", raw[8:12])[0]
    text = (data_dir / "leginon" / "leginoncatcheck.mrc").read_bytes()
    with pytest.raises(FormatError, match="not an MRC file: it looks like a text file"):
        Header.parse(text, file_size=len(text), permissive=True)


def test_pixel_sizes_of_real_files(data_dir):
    """CELLA / MX, MY, MZ and never / NX, NY, NZ; what 0.6.0 means by MX = 0; nothing where the cell is none."""
    sizes = {
        "ngl/3pqr-mode0.ccp4": (0.9585, 0.9585, 0.9155),
        "magellon/24dec03a_topaz_ds8.mrc": (0.79, 0.79, 0.79),
        "mrcfile/EMD-3001.map": (0.4483, 0.3925, 0.4588),
        "fei/fei-extended.mrc": (0.8538, 0.8538, 0),
        "cryojax/trpv1_small_stack.mrcs": (4.88, 4.88, 4.88),
        "mrcz-generated/pymrcz_trpv1_f32_lz4_5.mrcz": (4.88, 4.88, 4.88),
        "mrcz-generated/pymrcz_trpv1_f32_be_zlib.mrcz": (0.1, 0.1, 0.1),
        "mrcz-generated/cmrcz_trpv1_f32_lz4_bitshuf.mrcz": (4.88, 4.88, 4.88),
        "mrcz-generated/rsciio_desim_u16_zstd.mrcz": (10, 10, 10),
        "rsciio-mrc/Custom_movie.mrc": (0, 0, 0),
        "cryodrgn/empiar_10076_7.mrc": (0, 0, 0),
    }
    for name, size in sizes.items():
        header = Header.parse((data_dir / name).read_bytes())
        assert header.pixel_size == pytest.approx(size, abs=1e-4), name


def test_compressed_files_of_other_programs(data_dir):
    for path in sorted((data_dir / "mrcz-generated").glob("*.mrcz")):
        raw = path.read_bytes()
        header = Header.parse(raw, file_size=len(raw))
        assert header.compressed
        assert header.byteorder == (">" if "_be_" in path.name else "<")
        ours = path.name.startswith("cmrcz")  # c-mrcz writes no label, no 'MAP ', and copies the rest
        assert header.is_mrcz != ours
        assert header.slices == (None if ours else 0)
        assert (header.packed_bytes or 0) <= len(raw)
        if not ours:
            assert header.mrcz_version == "0.6.0"
            assert header.packed_bytes == len(raw) - header.data_offset
            assert (header.voltage, header.c3, header.gain) == (0, 0, 1)
        assert header.kind == ("volume" if "cmrcz_desim" in path.name else "stack")


# ---- byte order --------------------------------------------------------------------------------------------------


STAMPS = [b"DD\0\0", b"DA\0\0", b"\x11\x11\0\0", b"\0\0DD", b"DDDD", b"D\0\0\0", b"\0\0\0\0", b"this"]


@given(
    size=st.tuples(*[st.integers(1, 70000)] * 3),
    mode=st.sampled_from(sorted(MODES)),
    order=st.sampled_from("<>"),
    stamp=st.sampled_from(STAMPS),
)
def test_byte_order_follows_from_the_sizes(size, mode, order, stamp):
    """The stamp is a hint: every stamp found in the wild, with every size."""
    header = Header.build(size, format_of_mode(mode, byteorder=order), byteorder=order)
    raw = bytearray(header.tobytes())
    raw[212:216] = stamp
    found = Header.parse(bytes(raw))
    assert (found.byteorder, found.shape, found.mode) == (order, size, mode)


def test_mixed_order_of_older_versions():
    """mrcz before 0.6 wrote single numbers of big-endian files in the order of the machine; bytes stay as they were."""
    good = plain(byteorder=">", codec="zstd", voltage=300, packed_bytes=64).replace(label=["MRCZ0.5.7"], mz=0)
    little = np.frombuffer(bytearray(good.tobytes()), HEADER_DTYPE.newbyteorder("<"))
    for name in ("mode", "mz", "dmin", "dmax", "dmean", "voltage", "c3", "gain", "packed_bytes", "nlabl"):
        little[name] = good[name]
    header = Header.parse(little.tobytes())
    assert (header.byteorder, header.mode, header.codec_number) == (">", 2, 6)
    assert (header.voltage, header.packed_bytes, header["nlabl"]) == (300, 64, 1)
    assert header.tobytes() == little.tobytes()
    assert header.replace(nxstart=0).voltage == 300
    assert plain(like=header).voltage == 300
    copy = pickle.loads(pickle.dumps(header))
    assert (copy.voltage, copy.tobytes()) == (300, little.tobytes())


def test_stamp_breaks_ties():
    """All sizes multiples of 65536 and no axes: both orders make sense of it, so mode, then stamp decide."""
    for order, stamp in (("<", b"DD"), (">", b"\x11\x11")):
        raw = bytearray(1024)
        struct.pack_into(order + "4i", raw, 0, 256, 256, 256, 0)
        raw[212:214] = stamp
        assert Header.parse(bytes(raw)).byteorder == order
        struct.pack_into(order + "i", raw, 12, 2)
        raw[212:214] = b"\0\0"
        assert Header.parse(bytes(raw)).byteorder == order


def test_inverted_y_of_imod():
    header = Header.parse(edited(plain(), mapr=-2))
    assert header.axes == (1, 2, 3)
    assert "Y inverted" in " ".join(header.oddities)


# ---- signed bytes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stamp", "flags", "low", "high", "argument", "dtype", "rule"),
    [
        (True, 1, 0, 255, None, "i1", "IMOD's stamp: signed bit set"),
        (True, 0, 0, 0, None, "u1", "IMOD's stamp: signed bit not set"),
        (True, 12, -5, 5, None, "u1", "IMOD's stamp: signed bit not set"),
        (False, 1, 0, 255, None, "u1", "DMIN and DMAX"),  # flags without the stamp say nothing
        (False, 0, 0, 128, None, "u1", "DMIN and DMAX"),
        (False, 0, 0, 127, None, "i1", "MRC2014"),
        (False, 0, -1, 255, None, "i1", "MRC2014"),
        (False, 0, 0, 300, None, "i1", "MRC2014"),
        (False, 0, 200, 100, None, "i1", "MRC2014"),  # not computed
        (False, 0, float("nan"), 200, None, "i1", "MRC2014"),
        (False, 0, 0, 255, True, "i1", "the caller"),
        (True, 1, -5, 5, False, "u1", "the caller"),
    ],
)
def test_signed_or_unsigned(stamp, flags, low, high, argument, dtype, rule):
    raw = edited(plain(0), imod_stamp=1146047817 if stamp else 0, imod_flags=flags, dmin=low, dmax=high)
    header = Header.parse(raw, signed_bytes=argument)
    assert header.pixel_format.dtype == np.dtype(dtype)
    assert rule in header.bytes_rule
    assert header.replace(nxstart=3).pixel_format == header.pixel_format
    assert pickle.loads(pickle.dumps(header)) == header


def test_other_modes_need_no_rule():
    assert plain(1).bytes_rule == ""
    assert Header.parse(plain(1).tobytes(), signed_bytes=False).pixel_format.dtype == np.int16


# ---- 4 bits ------------------------------------------------------------------------------------------------------

SERIALEM = [(3838, 7420), (3710, 7676), (3840, 7424), (3712, 7680), (11520, 4092), (5760, 8184)]


@pytest.mark.parametrize("size", [*SERIALEM, *[(ny, nx) for nx, ny in SERIALEM], (3836, 7422)])
def test_half_width_by_label(size):
    nx, ny = size
    raw = edited(
        plain(0, (2, 6, 8)), nx=nx, ny=ny, mx=nx, my=ny, cella=(nx * 0.5, ny * 0.5, 1), imod_stamp=0, nlabl=1,
        label=[b"SerialEMCCD: Dose fractionated image, 4 bits packed"] + [b""] * 9,
    )  # fmt: skip
    header = Header.parse(raw, file_size=1024 + 2 * nx * ny)
    assert (header.shape, header.mode, header.is_half_width) == ((2, ny, 2 * nx), 101, True)
    assert header.frame_nbytes == nx * ny
    assert header.pixel_size[:2] == pytest.approx((0.5, 0.5))
    assert header["mode"] == 0
    # Copied, it becomes mode 101 with the columns it has.
    copy = Header.build(header.shape, header.pixel_format, like=header)
    assert (copy["mode"], copy["nx"], copy["mx"]) == (101, 2 * nx, 2 * nx)
    assert copy.pixel_size == pytest.approx(header.pixel_size)
    assert not copy.is_half_width
    # Whoever says that these are bytes has the last word; and so has another size, or a second label.
    assert Header.parse(raw, signed_bytes=False).shape == (2, ny, nx)
    assert Header.parse(edited(raw, nx=nx - 50)).mode == 0
    assert Header.parse(edited(raw, label=[b"4 bits packed", b"two"] + [b""] * 8, nlabl=2)).mode == 0


def test_half_width_by_flag():
    raw = edited(plain(0, (2, 6, 8)), imod_stamp=1146047817, imod_flags=16)
    header = Header.parse(raw, file_size=1024 + 2 * 6 * 8)
    assert (header.shape, header.mode) == ((2, 6, 16), 101)
    assert Header.parse(edited(raw, imod_stamp=0)).shape == (2, 6, 8)
    copy = Header.build(header.shape, header.pixel_format, like=header)
    assert (copy.imod_flags, copy.shape, copy["mx"]) == (0, header.shape, 16)


def test_4_bit_with_odd_columns():
    header = plain(101, (2, 3, 5))
    assert header.frame_nbytes == 9
    assert Header.parse(header.tobytes(), file_size=1024 + 18).shape == (2, 3, 5)
    with pytest.raises(HeaderError, match="packed across rows, as RELION does"):
        Header.parse(header.tobytes(), file_size=1024 + 16)


# ---- writing -----------------------------------------------------------------------------------------------------

KINDS = [("image", (1, 3, 5), None), ("stack", (4, 3, 5), None), ("volume", (4, 3, 5), None)]
KINDS += [("volume stack", (4, 3, 5), 2), ("stack", (1, 3, 5), None), ("volume", (1, 3, 5), None)]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", WRITTEN)
def test_written_headers_are_valid(dtype, order, tmp_path, rng):
    """By mrcfile's validation where it knows the mode, and by our own reading."""
    mrcfile = pytest.importorskip("mrcfile")
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
            "image": (0, 1), "stack": (0, 1), "volume": (1, shape[0]), "volume stack": (401, 2),
        }[kind]  # fmt: skip
        assert (header["nversion"], header["map"], header["cellb"]) == (20141, b"MAP ", (90, 90, 90))
        assert header.labels == [MRCZ_LABEL]
        if pixels.mode in (7, 8):
            continue
        path = tmp_path / f"{kind}.mrc"
        path.write_bytes(header.tobytes() + data.tobytes())
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
        ({"pixel_size": (1, 2)}, "pixel_size"),
        ({"pixel_size": -1}, "pixel_size"),
        ({"pixel_size": float("nan")}, "pixel_size"),
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
        shape, pixels, kind=kind, mz=mz, codec="zstd", pixel_size=(1.5, 2, 3), packed_bytes=12345678901, voltage=300,
        c3=2.7, gain=1.5,
    )  # fmt: skip
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
            shape, format_of_mode(mode, byteorder=order), kind=kind, mz=mz, pixel_size=(1.1, 2.2, 3.3), voltage=300,
            stats=(1, 2, 1.5, 0.5), labels=["a label"], exttyp="FEI1", nsymbt=768, byteorder=order,
        )  # fmt: skip
        packed = Header.build(shape, header.pixel_format, like=header, codec="zstd", stats=header.stats)
        again = Header.build(shape, packed.pixel_format, like=packed, stats=packed.stats)
        assert again.tobytes() == header.tobytes()
        assert packed.pixel_format == header.pixel_format


SPECIMEN = ("nxstart", "nystart", "nzstart", "mx", "my", "mz", "cella", "cellb", "mapc", "mapr", "maps", "ispg",
            "nsymbt", "exttyp", "origin", "nint", "nreal", "idtype", "lens", "tiltangles")  # fmt: skip


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


# ---- values ------------------------------------------------------------------------------------------------------


def test_replace():
    header = plain(codec="zstd", pixel_size=1.5)
    new = header.replace(packed_bytes=99, nz=7, origin=(1, 2, 3), label=["MRCZ1.0.0", "ä"], exttyp="json", extra1=b"ab")
    assert (new.packed_bytes, new.nz, new.origin, new.labels, new.exttyp) == (
        99, 7, (1, 2, 3), ["MRCZ1.0.0", "ä"], "json",
    )  # fmt: skip
    assert new["extra1"] == b"ab\0\0\0\0"
    assert header.nz == 4
    with pytest.raises(KeyError, match="no header field is called 'colour'"):
        header.replace(colour=1)
    with pytest.raises(HeaderError, match="mode"):
        header.replace(mode=5)
    with pytest.warns(FormatWarning):
        clipped = Header.parse(plain().tobytes(), file_size=1024 + 200, permissive=True)
    assert clipped.nz == 1
    assert clipped.replace(nxstart=1).nz == 1
    assert clipped.replace(nz=2).nz == 2


def test_a_header_is_a_value():
    header = plain(pixel_size=1.5)
    assert header == Header.parse(header.tobytes())
    assert hash(header) == hash(Header.parse(header.tobytes()))
    assert header != plain(pixel_size=2)
    assert header != "a header"
    copy = pickle.loads(pickle.dumps(header))
    assert (copy, copy.pixel_size, copy["cella"]) == (header, header.pixel_size, header["cella"])
    assert dict(header)["nx"] == 8
    assert ("mx" in header, "colour" in header, len(header)) == (True, False, len(HEADER_DTYPE.names))
    assert repr(header) == "<Header stack nz=4 ny=6 nx=8 mode=2 <f4>"
    with pytest.raises(HeaderError, match="1023 bytes found, 1024 expected"):
        Header.parse(header.tobytes()[:1023])


def test_trailing_bytes_are_an_oddity():
    header = plain()
    assert Header.parse(header.tobytes(), file_size=1024 + 768 + 512).oddities == ("512 bytes after the last frame",)
