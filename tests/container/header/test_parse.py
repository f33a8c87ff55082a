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


def test_sizes_that_both_orders_take_without_axes():
    """(256, 65536, 300) is (65536, 256, …) the other way round: the mode tells."""
    for order in "<>":
        raw = bytearray(1024)
        struct.pack_into(order + "4i", raw, 0, 256, 65536, 300, 2)
        assert Header.parse(bytes(raw)).shape == (300, 65536, 256)


def test_one_pixel_is_missed_where_the_file_ends_with_the_header():
    with pytest.raises(HeaderError, match="nz is 1, expected at most 0: 0 bytes after the headers"):
        Header.parse(plain(0, (1, 1, 1)).tobytes(), file_size=1024)


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
    assert header.oddities == ("4-bit pixels stored as bytes, 8 a row of 16 (SerialEM)",)
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
    assert Header.parse(header.tobytes(), file_size=1024 + 768).oddities == ()
    assert Header.parse(header.tobytes(), file_size=1024 + 769).oddities == ("1 bytes after the last frame",)
    assert Header.parse(header.tobytes(), file_size=1024 + 768 + 512).oddities == ("512 bytes after the last frame",)


# ---- what no pixel depends on ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "changes", "note"),
    [
        ({}, {"map": b"MAPS"}, "no 'MAP ' at byte 208: b'MAPS'"),
        ({}, {"machst": (0, 0, 0, 0)}, "machine stamp 00 00 00 00 is unknown; the byte order follows from the sizes"),
        ({}, {"machst": (17, 17, 0, 0)}, "machine stamp 11 11 00 00 contradicts the byte order of the sizes"),
        ({}, {"machst": (68, 68, 68, 68)}, "machine stamp 44 44 44 44 has more than two bytes"),
        ({}, {"machst": (68, 68, 0, 1)}, "machine stamp 44 44 00 01 has more than two bytes"),
        ({}, {"machst": (68, 65, 0, 0)}, None),
        ({}, {"nversion": 0}, "NVERSION 0: older than MRC2014"),
        ({}, {"nversion": 20139}, "NVERSION 20139: no version of MRC2014"),
        ({}, {"nversion": 20140}, None),
        ({}, {"mapc": 1, "mapr": 1, "maps": 3}, "MAPC, MAPR, MAPS [1, 1, 3] are no permutation of 1, 2, 3"),
        ({}, {"mapr": -2}, "MAPC, MAPR, MAPS [1, -2, 3] are no permutation of 1, 2, 3 (Y inverted)"),
        (
            {},
            {"mapc": 3, "mapr": 1, "maps": 2},
            "axes are permuted: columns, rows, sections run along z, x, y",
        ),
        ({}, {"ispg": -1}, "ISPG -1 is no space group"),
        ({}, {"ispg": 631}, "ISPG 631 is no space group"),
        ({"kind": "volume stack", "mz": 2}, {"ispg": 630}, None),
        ({}, {"mx": 0}, "MX, MY, MZ [0, 6, 1] are no sampling: no pixel size"),
        ({"kind": "volume"}, {"mz": -1}, "MX, MY, MZ [8, 6, -1] are no sampling: no pixel size"),
        ({}, {"mz": 4}, "MZ 4 for a stack of images, where MRC2014 has 1"),
        ({}, {"mz": 2}, "MZ 2 for a stack of images, where MRC2014 has 1"),
        ({"kind": "volume"}, {"mz": 5}, "MZ 5 differs from NZ 4"),
        ({"shape": (1, 6, 8)}, {"mz": 2}, "MZ 2 differs from NZ 1"),
        ({"kind": "volume stack", "mz": 2}, {"mz": 3}, "a volume stack of 4 sections is no multiple of MZ 3"),
        ({"kind": "volume stack", "mz": 2}, {"mz": 1}, None),
        ({}, {"cella": (1, -1, 1)}, "CELLA [1.0, -1.0, 1.0] is no cell: no pixel size"),
        ({}, {"cella": (1, 1, float("inf"))}, "CELLA [1.0, 1.0, inf] is no cell: no pixel size"),
        ({}, {"cella": (0, 0, 0)}, None),
        ({}, {"rms": float("nan")}, "statistics are not finite: [0.0, -1.0, -2.0, nan]"),
        ({}, {"nlabl": 2}, "NLABL 2, but 1 labels hold text"),
        ({}, {"nlabl": -1}, "NLABL -1, but 1 labels hold text"),
        ({"nsymbt": 160}, {"exttyp": b"ABCD"}, "extended header of 160 bytes has no known type: b'ABCD'"),
        ({"nsymbt": 160}, {}, "extended header of 160 bytes has no known type: b''"),
        ({}, {"exttyp": b"ABCD"}, None),
        *(
            ({"nsymbt": 160}, {"exttyp": code}, None)
            for code in (b"CCP4", b"MRCO", b"SERI", b"AGAR", b"FEI1", b"FEI2", b"HDF5", b"json")
        ),
    ],
    ids=str,
)
def test_what_is_odd_is_told(made, changes, note):
    header = Header.parse(edited(plain(**made), **changes))
    assert header.oddities == (() if note is None else (note,))


def test_oddities_of_the_other_byte_order():
    good = plain(byteorder=">")
    assert not good.oddities
    assert Header.parse(edited(good, machst=(68, 68, 0, 0))).oddities == (
        "machine stamp 44 44 00 00 contradicts the byte order of the sizes",
    )


# ---- what is no MRC file -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "header field nx is 0, expected at least 1"),
        ({"mode": 77}, "not an MRC file"),
        ({"mapr": 7}, "not an MRC file"),
        ({"map": b"MAP ", "mode": 77}, "header field mode is 77"),
        ({"map": b"MAP ", "mapr": 7}, "header field nx is 0"),
        ({"map": b"MAPX"}, "header field nx is 0"),
    ],
)
def test_sizes_that_are_none_in_either_byte_order(changes, message):
    """With axes and a mode, or 'MAP', it is a damaged MRC file; else it is none."""
    raw = edited(plain(), **({"nx": 0, "map": b""} | changes))
    with pytest.raises(FormatError, match=message):
        Header.parse(raw)


def test_other_files_are_called_by_their_names():
    raw = b"\x89HDF\r\n\x1a\n".ljust(1024, b"\0")
    with pytest.raises(FormatError, match=r"not an MRC file: it looks like an? HDF5 file"):
        Header.parse(raw)


# ---- sizes against the file --------------------------------------------------------------------------------------


FRAME = 6 * 8 * 4


@pytest.mark.parametrize(
    ("changes", "size", "message", "data_offset", "nz", "recoverable"),
    [
        ({"nsymbt": -1}, 1024 + 4 * FRAME, "nsymbt is -1, expected 0 or more", 1024, 4, True),
        (
            {"nsymbt": 5000},
            1024 + 4999,
            "nsymbt is 5000, expected at most 4999: the file ends inside the extended header",
            1024,
            4,
            True,
        ),
        (
            {"nsymbt": 8},
            1024 + 4 * FRAME,
            "nsymbt is 8, expected 0: 4 frames of 192 bytes fill the file from byte 1024 on",
            1024,
            4,
            True,
        ),
        ({"nz": 0}, 1024 + 4 * FRAME + 5, "nz is 0, expected at least 1", 1024, 4, True),
        ({"nz": -7}, None, "nz is -7, expected at least 1", 1024, 0, True),
        (
            {"nz": 5},
            1024 + 4 * FRAME + 191,
            "nz is 5, expected at most 4: 959 bytes after the headers hold 4 frames of 192 bytes, not 960 bytes",
            1024,
            4,
            True,
        ),
        (
            {"nsymbt": 100},
            1124 + FRAME - 1,
            "nz is 4, expected at most 0: 191 bytes after the headers hold 0 frames of 192 bytes, not 768 bytes",
            1124,
            0,
            False,
        ),
        (
            {"nx": 65535},
            1024 + FRAME,
            "nz is 4, expected at most 0: 192 bytes after the headers hold 0 frames of 1572840 bytes, not 6291360",
            1024,
            0,
            False,
        ),
        (
            {"nx": 65536},
            1024 + FRAME,
            "nx is 65536, expected frames of at most 192 bytes: 192 bytes after the headers hold 0 frames of "
            "1572864 bytes, not 6291456 bytes",
            1024,
            0,
            False,
        ),
        ({"ny": 65536}, 1024 + FRAME, "ny is 65536, expected frames of at most 192 bytes: ", 1024, 0, False),
    ],
)
def test_sizes_that_do_not_fit_the_file(changes, size, message, data_offset, nz, recoverable):
    """An error that names field, expectation and finding; or, permissively, a warning and the frames that are there."""
    raw = edited(plain(), **changes)
    with pytest.raises(HeaderError, match=re.escape(f"header field {message}")) as info:
        Header.parse(raw, file_size=size)
    assert info.value.recoverable == recoverable
    with pytest.warns(FormatWarning, match=re.escape(message)) as caught:
        header = Header.parse(raw, file_size=size, permissive=True)
    assert (len(caught), header.data_offset, header.nz) == (1, data_offset, nz)
    assert message in header.oddities[0]
    assert caught[0].filename == __file__  # it points at whoever asked for the header


def test_chunks_that_do_not_fit_the_file():
    raw = plain(codec="zstd", packed_bytes=300).tobytes()
    assert Header.parse(raw, file_size=1024 + 300).packed_bytes == 300
    for size, message in (
        (1024 + 299, "packed_bytes is 300, expected at most 299: the file ends inside the chunks"),
        (1024 + 63, "nz is 4, expected at most 3: 63 bytes after the headers hold 3 chunk headers at most"),
    ):
        with pytest.raises(HeaderError, match=message):
            Header.parse(raw, file_size=size)
    # What a file of another program has in these bytes is not the size of its chunks.
    foreign = edited(raw, label=[b""] * 10, nlabl=0)
    assert Header.parse(foreign, file_size=1024 + 64).nz == 4
    assert not Header.parse(raw, file_size=1024 + 5000).oddities  # a footer, perhaps
    with pytest.warns(FormatWarning, match="nz is 4, expected at most 0") as caught:
        Header.parse(foreign, file_size=1024, permissive=True)
    assert len(caught) == 1


def test_the_largest_sizes_there_are():
    """Bytes are counted in 64 bits, those of a chunk in 31."""
    side = 2**31 - 1
    assert Header.parse(edited(plain(1), nx=side, ny=side, nz=1)).shape == (1, side, side)  # 2**63 - 2**33 + 2 bytes
    with pytest.raises(HeaderError, match=rf"nx is {side}, expected frames of at most {2**63 - 1} bytes"):
        Header.parse(edited(plain(2), nx=side, ny=side, nz=1))
    with pytest.raises(HeaderError, match=f"ny is {side}, expected frames of at most {2**63 - 1} bytes"):
        Header.parse(edited(plain(2), nx=side - 1, ny=side, nz=1))
    most = (2**63 - 1) // (2 * 60000 * side)
    assert Header.parse(edited(plain(1), nx=60000, ny=side, nz=most)).nz == most
    with pytest.raises(
        HeaderError, match=rf"nz is {most + 1}, expected at most {most}: frames of {120000 * side} bytes"
    ):
        Header.parse(edited(plain(1), nx=60000, ny=side, nz=most + 1))
    with pytest.raises(HeaderError, match="nz is 131072, expected at most 131071"):  # 2**63 bytes, one too many
        Header.parse(edited(plain(1), nx=2**15, ny=2**30, nz=2**17))


@pytest.mark.parametrize(
    ("shape", "size", "said"),
    [((2, 3, 5), 16, True), ((2, 3, 5), 17, False), ((2, 3, 4), 11, False), ((3, 3, 5), 24, True)],
)
def test_nibbles_packed_across_rows_are_told(shape, size, said):
    with pytest.raises(HeaderError) as info:
        Header.parse(plain(101, shape).tobytes(), file_size=1024 + size)
    assert ("packed across rows, as RELION does" in str(info.value)) == said


@pytest.mark.parametrize(("off", "found"), [(0, True), (2, True), (3, False)])
def test_super_resolution_frames_may_be_trimmed_by_two_pixels(off, found):
    """What SerialEM leaves out at the edges; more is another detector."""
    for nx, ny in ((5760 - off, 8184), (5760 + off, 8184), (5760, 8184 - off), (5760, 8184 + off), (8184 + off, 5760)):
        raw = edited(plain(0, (1, 6, 8)), nx=nx, ny=ny, imod_stamp=0, nlabl=1, label=[b"4 bits packed"] + [b""] * 9)
        assert Header.parse(raw).is_half_width == found, (nx, ny)
