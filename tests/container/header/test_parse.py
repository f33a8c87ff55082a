"""1024 bytes read: every real file as its inventory says, byte order, signs, 4 bits."""

import pickle
import re
import struct

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from made_headers import contents, edited, inventory, plain

from mrcz import FormatError, FormatWarning, HeaderError
from mrcz.container.header.header import HEADER_DTYPE, Header
from mrcz.container.modes import MODES, format_of_mode

# ---- real files --------------------------------------------------------------------------------------------------


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
@example((65536, 65536, 65536), 2, ">", b"DD\0\0")
@example((65536, 65536, 65535), 0, ">", b"DD\0\0")
@example((65536, 65536, 65537), 0, ">", b"DD\0\0")
def test_byte_order_follows_from_the_sizes(size, mode, order, stamp):
    """The stamp is a hint: every stamp found in the wild, with every size but one."""
    assume((size, mode) != ((65536, 65536, 65536), 0))
    header = Header.build(size, format_of_mode(mode, byteorder=order), byteorder=order)
    raw = bytearray(header.tobytes())
    raw[212:216] = stamp
    found = Header.parse(bytes(raw))
    assert (found.byteorder, found.shape, found.mode) == (order, size, mode)


@pytest.mark.parametrize("order", ["<", ">"])
def test_one_size_where_the_stamp_decides(order):
    """65536 is 256 in the other order, mode 0 is 0: as many fields make sense in one as in the other."""
    header = Header.build((65536,) * 3, format_of_mode(0), byteorder=order)
    assert Header.parse(header.tobytes()).shape == (65536,) * 3
    foreign = edited(header, machst=(0x11, 0x11, 0, 0) if order == "<" else (0x44, 0x44, 0, 0))
    assert Header.parse(foreign).shape == (256,) * 3


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
        plain(0, (2, 6, 8)),
        nx=nx,
        ny=ny,
        mx=nx,
        my=ny,
        cella=(nx * 0.5, ny * 0.5, 1),
        imod_stamp=0,
        nlabl=1,
        label=[b"SerialEMCCD: Dose fractionated image, 4 bits packed"] + [b""] * 9,
    )
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


# ---- sizes -------------------------------------------------------------------------------------------------------


def test_trailing_bytes_are_an_oddity():
    header = plain()
    assert Header.parse(header.tobytes(), file_size=1024 + 768 + 512).oddities == ("512 bytes after the last frame",)
