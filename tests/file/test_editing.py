"""Headers changed in place: what follows, what is refused, and that the old or the new is there at every instant."""

import contextlib
import errno
import gzip
import os
import time
import warnings

import mrcfile
import numpy as np
import pytest
from rewriting import rewrite
from wrong_arguments import WRONG_PIXEL_SIZES

import mrcz
from mrcz import FormatError, FormatWarning, MrczError, cli
from mrcz.container.header.header import HEADER_DTYPE, Header
from mrcz.container.header.layout import FIXED, MEANINGS
from mrcz.container.modes import format_for
from mrcz.file.changing import changed_header
from mrcz.file.editing import edit_header
from mrcz.file.growing import GrowingFile
from mrcz.storage.disk import Disk


@pytest.fixture
def pixels(rng):
    return rng.poisson(3, (6, 17, 19)).astype(np.int16)


@pytest.fixture(params=["plain", "archive", "written", "no footer"])
def file(request, pixels, tmp_path):
    """The same frames in each kind of file that can be edited."""
    path = tmp_path / ("a.mrc" if request.param == "plain" else "a.mrcz")
    if request.param == "archive":
        with mrcfile.new(tmp_path / "source.mrc", pixels) as source:
            source.voxel_size = 1.5
            source.set_image_stack()
        mrcz.compress(tmp_path / "source.mrc", path)
    else:
        mrcz.write(path, pixels, pixel_size=1.5, metadata={"dose": 1.25}, kind="stack")
    if request.param == "no footer":
        with mrcz.open(path) as reader:
            end = reader.index.end
        os.truncate(path, end)
    return path


def restored(path):
    """The plain file it stands for."""
    if path.suffix == ".mrc":
        return path
    mrcz.decompress(path, path.with_suffix(".back"), overwrite=True)
    return path.with_suffix(".back")


def test_edits_follow_everywhere(file, pixels):
    size = file.stat().st_size
    done = mrcz.edit_header(
        file,
        pixel_size=(0.83, 0.83, 2.5),
        origin=(1, 2, 3),
        start=(-4, 5, 6),
        label="by hand",
        exttyp="json",
        statistics=(0, 20, 3, 2),
        cellb=(90, 90, 120),
        tiltangles=range(6),
        mapc=2,
        mapr=1,
        nversion=20140,
        idtype=1,
    )
    assert done.written and {change.field for change in done.changes} >= {"cella", "origin", "label", "mapc"}
    assert abs(file.stat().st_size - size) < 200
    for path in (file, restored(file)):
        with mrcz.open(path) as reader:  # every warning is an error
            assert reader.pixel_size == pytest.approx((0.83, 0.83, 2.5), rel=1e-6)
            header = reader.header
            assert (header.origin, header["nxstart"], header["nystart"]) == ((1, 2, 3), -4, 5)
            assert header.labels[-1] == "by hand" and header["nlabl"] == len(header.labels)
            assert (header["cellb"], header.axes) == ((90, 90, 120), (2, 1, 3))
            if path == file or (mrcz.open(file).footer is not None and mrcz.open(file).footer.source_header):
                assert header.stats == (0, 20, 3, 2)  # else they are computed anew
            assert (header["tiltangles"], header["nversion"], header["idtype"]) == ((0, 1, 2, 3, 4, 5), 20140, 1)
            assert np.array_equal(reader.read(), pixels)
            if reader.footer is not None:
                assert reader.footer.header_copy == header.tobytes()
                assert mrcz.verify(path).ok
    assert not mrcz.edit_header(file, label=(), origin=(1, 2, 3)).written  # is so already
    with mrcz.open(file) as reader:
        assert reader.metadata in ({"dose": 1.25}, {})


def test_what_an_archive_was_made_from_is_told_until_it_is_edited(file):
    """Size and checksum in the footer are of what decompressing gives: another file after an edit."""
    with mrcz.open(file) as reader:
        if reader.footer is None or reader.footer.source_header is None:
            pytest.skip("made from no file")
        assert {"source_name", "source_size", "source_xxh64"} <= set(reader.footer.extra)
    mrcz.edit_header(file, dry_run=True, label="x")
    with mrcz.open(file) as reader:
        assert "source_xxh64" in reader.footer.extra
    mrcz.edit_header(file, label="x")
    with mrcz.open(file) as reader:
        assert set(reader.footer.extra) == {"source_name"}


@pytest.mark.parametrize(
    ("kind", "options", "ispg", "mz"),
    [("volume", {}, 1, 6), ("stack", {}, 0, 1), ("volume stack", {"mz": 3}, 401, 3)],
)
def test_kind(file, kind, options, ispg, mz):
    before = mrcz.open(file).pixel_size
    mrcz.edit_header(file, kind=kind, **options)
    with mrcz.open(file) as reader:
        assert (reader.kind, reader.header["ispg"], reader.header.mz) == (kind, ispg, mz)
        assert reader.pixel_size == pytest.approx(before)
    with mrcfile.open(restored(file)) as other:
        assert other.header.ispg == ispg and other.header.mz == mz
        assert other.voxel_size.x == pytest.approx(before[0])


def test_statistics_computed_and_forgotten(file, pixels):
    mrcz.edit_header(file, statistics=(1, 2, 1.5, 0.5))
    mrcz.edit_header(file, statistics="compute")
    with mrcz.open(file) as reader:
        assert reader.header.stats == pytest.approx((pixels.min(), pixels.max(), pixels.mean(), pixels.std()))
    mrcz.edit_header(file, statistics="unknown")
    with mrcz.open(file) as reader:
        assert reader.header.stats == (0, -1, -2, -1)


def test_microscope_needs_the_label(file):
    mrcz.edit_header(file, voltage=300, c3=2.7, gain=0.9)
    with mrcz.open(file) as reader:
        assert (reader.header.voltage, reader.header.c3) == (300, pytest.approx(2.7))
    with mrcfile.new(file.with_name("other.mrc"), np.zeros((4, 4), np.float32)):
        pass
    before = file.with_name("other.mrc").read_bytes()
    with pytest.raises(ValueError, match="without an MRCZ label has no place for voltage"):
        mrcz.edit_header(file.with_name("other.mrc"), voltage=300)
    assert file.with_name("other.mrc").read_bytes() == before


def test_labels(file):
    there = [label for label in mrcz.open(file).header.labels if label.startswith("MRCZ")]
    mrcz.edit_header(file, labels=["one", "two"])
    assert mrcz.open(file).header.labels == [*there, "one", "two"]
    mrcz.edit_header(file, label=[str(i) for i in range(8 - len(there))])
    before = file.read_bytes()
    with pytest.raises(ValueError, match="ten labels, there would be 11"):
        mrcz.edit_header(file, label="eleventh")
    for wrong in ("µm", "x" * 81, "a\nb", "", "MRCZ2.0.0", b"bytes"):
        with pytest.raises((ValueError, TypeError), match="label"):
            mrcz.edit_header(file, labels=[wrong])
    assert file.read_bytes() == before
    mrcz.edit_header(file, labels=[])
    assert mrcz.open(file).header.labels == there


@pytest.mark.parametrize("name", [*FIXED, "no_such_field", "voxel_size"])
def test_what_is_not_set_says_why(file, name):
    before = file.read_bytes()
    if name == "mz":
        with pytest.raises(ValueError, match="goes with kind"):
            mrcz.edit_header(file, mz=1)
    elif name == "label":
        pytest.skip("a word of edit_header")
    else:
        with pytest.raises(TypeError, match=f"{name}"):
            mrcz.edit_header(file, **{name: 1})
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "changes",
    [
        {"pixel_size": 1e38},
        {"origin": (1, 2)},
        {"origin": (np.inf, 0, 0)},
        {"start": (0.5, 0, 0)},
        {"start": (2**31, 0, 0)},
        {"statistics": "guess"},
        {"statistics": (1, 2, 3)},
        {"kind": "film"},
        {"kind": "image"},
        {"kind": "volume stack"},
        {"ispg": 1},
        {"kind": "volume stack", "mz": 4},
        {"kind": "volume", "mz": 2},
        {"ispg": 300},
        {"mapc": 2},
        {"mapc": 7},
        {"cellb": (90, 90, 180)},
        {"nversion": 2014},
        {"map": "PAM "},
        {"machst": b"\x11\x11\0\0"},
        {"exttyp": "FEI12"},
        {"exttyp": "Ωabc"},
        {"idtype": 40000},
        {"dmin": "low"},
        {"dmin": 1e39},
        {"extra1": b"1234567"},
        {"nlabl": 9},
        {"imod_flags": True},
        {},
    ],
    ids=str,
)
def test_values_that_are_none(file, changes):
    before = file.read_bytes()
    says = r"expected|is no image|needs mz=|^nothing to change|makes a volume of a stack"
    with pytest.raises((ValueError, TypeError), match=says):
        mrcz.edit_header(file, **changes)
    assert file.read_bytes() == before


@pytest.mark.parametrize("wrong", WRONG_PIXEL_SIZES, ids=str)
def test_pixel_sizes_that_are_none(file, wrong, capsys):
    before = file.read_bytes()
    with pytest.raises(ValueError, match=r"pixel_size is .*, expected one or three .* numbers in Å, 0 or more"):
        mrcz.edit_header(file, pixel_size=wrong)
    if words := ",".join(map(str, np.atleast_1d(wrong))):
        assert cli.main(["header", "--set", f"pixel-size={words}", str(file)]) != 0
        assert "pixel_size is" in capsys.readouterr().err
    assert file.read_bytes() == before


def test_no_edit_makes_other_pixels(tmp_path):
    """DMAX, IMOD's stamp and a label say how bytes are read: a change of them that would is refused."""
    path = tmp_path / "a.mrc"
    with mrcfile.new(path, np.arange(-8, 8, dtype=np.int8).reshape(4, 4)):
        pass
    for changes in (
        {"dmin": 0, "dmax": 200},
        {"statistics": (0, 255, 1, 1)},
        {"imod_stamp": 1146047817},
        {"imod_stamp": 1146047817, "imod_flags": 17},
    ):
        with pytest.raises(ValueError, match="other pixels of the same bytes"):
            mrcz.edit_header(path, **changes)
    mrcz.edit_header(path, imod_stamp=1146047817, imod_flags=1)
    assert mrcz.read(path).min() == -8


def test_fields_that_were_no_valid_ones_can_be_put_right(tmp_path):
    path = tmp_path / "a.mrc"
    mrcz.write(path, np.ones((3, 4, 5), np.float32), kind="volume")
    raw = bytearray(path.read_bytes())
    raw[28:40] = bytes(12)  # MX, MY, MZ
    raw[208:216] = b"map\0\0\0\0\0"
    raw[220:224] = b"\7\0\0\0"
    path.write_bytes(raw)
    mrcz.edit_header(path, map="MAP", machst=b"\x44\x44\0\0", nlabl=1, pixel_size=2.0)
    assert mrcz.validate(path).ok and mrcfile.validate(path)
    assert mrcz.open(path).header["cella"] == (10, 8, 6)


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_byte_orders(tmp_path, byteorder):
    path = tmp_path / "a.mrc"
    mrcz.write(path, np.ones((2, 3, 4), f"{byteorder}i2"), byteorder=byteorder)
    mrcz.edit_header(path, pixel_size=1.25, start=(1, 2, 3))
    with mrcz.open(path) as reader:
        assert (reader.header.byteorder, reader.pixel_size, reader.header["nystart"]) == (byteorder, (1.25,) * 3, 2)


# ---- EXTTYP ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [b"\xcd\xcc\x8c\x3f", b"\0\0\x80\xff", b"  \xe9 ", b"\xff\0\xff\0", b"\0\0\0\0"])
def test_any_four_bytes_of_exttyp_survive(raw):
    """In files older than MRC2014 anything lies there; it is text, and the same bytes again."""
    pixels = format_for(np.int16)
    built = Header.build((2, 8, 8), pixels).tobytes()
    header = Header.parse(built[:104] + raw + built[108:])
    assert isinstance(header.exttyp, str) and header.tobytes()[104:108] == raw
    for codec in (None, "zstd"):
        copy = Header.build((2, 8, 8), pixels, like=header, exttyp=header.exttyp, nsymbt=0, codec=codec)
        assert copy.tobytes()[104:108] == raw
    with pytest.raises(ValueError, match="four characters at most"):
        Header.build((2, 8, 8), pixels, exttyp="json5")


# ---- where --------------------------------------------------------------------------------------------------------


def test_a_file_of_100_gb(tmp_path):
    """One write of 1024 bytes, whatever follows: nothing is copied, nothing else touched."""
    path = tmp_path / "large.mrc"
    shape = (1500, 8192, 8192)
    header = Header.build(shape, format_for(np.int8))
    with open(path, "wb") as file:
        file.write(header.tobytes())
        file.truncate(1024 + shape[0] * shape[1] * shape[2])
    blocks = path.stat().st_blocks
    started = time.perf_counter()
    mrcz.edit_header(path, pixel_size=0.83, label="large")
    assert time.perf_counter() - started < 1
    assert path.stat().st_blocks == blocks and path.stat().st_size > 100e9
    assert mrcz.open(path).pixel_size[0] == pytest.approx(0.83)


def test_where_it_is_refused(file, tmp_path, pixels):
    wrapped = tmp_path / "w.mrc.gz"
    wrapped.write_bytes(gzip.compress(file.read_bytes()))
    with pytest.raises(ValueError, match="unpack it first"):
        mrcz.edit_header(wrapped, label="x")
    with pytest.raises(ValueError, match="URL"):
        mrcz.edit_header("https://example.org/a.mrc", label="x")
    with pytest.raises(IsADirectoryError):
        mrcz.edit_header(tmp_path, label="x")
    with pytest.raises(FileNotFoundError):
        mrcz.edit_header(tmp_path / "absent.mrc", label="x")
    with open(file, "rb") as opened, pytest.raises(TypeError, match="file object"):
        mrcz.edit_header(opened, label="x")
    text = tmp_path / "text.mrc"
    text.write_text("no header\n" * 300)
    with pytest.raises(FormatError, match="not an MRC file"):
        mrcz.edit_header(text, label="x")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everything")
def test_a_file_that_may_not_be_written(file):
    file.chmod(0o400)
    with pytest.raises(PermissionError):
        mrcz.edit_header(file, label="x")


def test_a_file_that_is_being_appended_to(file):
    before = file.read_bytes()
    with mrcz.open(file, "a") as writer:
        with pytest.raises(MrczError, match="another process is writing this file"):
            mrcz.edit_header(file, label="x")
        assert file.read_bytes() == before
        writer.append(mrcz.read(file)[0])
    mrcz.edit_header(file, label="x")
    assert len(mrcz.open(file)) == 7 and mrcz.open(file).header.labels[-1] == "x"


def test_a_link_stays_a_link(file, tmp_path):
    link = tmp_path / "link.mrc"
    link.symlink_to(file)
    mrcz.edit_header(link, label="x")
    assert link.is_symlink() and mrcz.open(file).header.labels[-1] == "x"


def test_appended_after_an_edit(file, pixels):
    mrcz.edit_header(file, pixel_size=3.0)
    with mrcz.open(file, "a") as writer:
        writer.append(pixels[0])
    with mrcz.open(file) as reader:
        assert len(reader) == 7 and reader.pixel_size[0] == pytest.approx(3.0)


def test_a_damaged_header_is_not_blessed(pixels, tmp_path):
    path = tmp_path / "a.mrcz"
    mrcz.write(path, pixels)
    raw = bytearray(path.read_bytes())
    raw[144] ^= 1  # the bytes of all chunks, one less or more
    path.write_bytes(raw)
    with pytest.warns(FormatWarning), pytest.raises(FormatError, match=r"packed_bytes.*recover"):
        mrcz.edit_header(path, label="x")
    assert path.read_bytes() == raw


# ---- at every instant --------------------------------------------------------------------------------------------


class Tape(Disk):
    """Does what a disk does, and keeps what each step left: what a process killed there leaves."""

    def __init__(self, path, fail_at=None):
        self.path, self.states, self.fail_at, self.steps = path, [], fail_at, 0

    def step(self):
        self.steps += 1
        if self.steps == self.fail_at:
            raise OSError(errno.EIO, "the disk is broken")

    def pwrite(self, fd, data, offset):
        self.step()
        before = self.path.read_bytes()
        done = super().pwrite(fd, data, offset)
        if offset:  # one write of the header is one page; all else may be torn
            for cut in (1, 8, done // 2, done - 1):
                self.states.append(before[:offset] + bytes(data)[:cut] + before[offset + cut :])
        self.states.append(self.path.read_bytes())
        return done

    def truncate(self, fd, size):
        self.step()
        super().truncate(fd, size)
        self.states.append(self.path.read_bytes())

    def fsync(self, fd):
        self.step()


def test_killed_at_every_write(file, pixels, monkeypatch, tmp_path):
    old = Header.parse(file.read_bytes())
    tape = Tape(file)
    monkeypatch.setattr(GrowingFile, "disk", tape)
    mrcz.edit_header(file, pixel_size=0.83, label="new", kind="volume", voltage=200 if old.is_mrcz else None)
    monkeypatch.undo()
    new = Header.parse(file.read_bytes())
    assert tape.states and old != new
    seen = set()
    for i, state in enumerate(tape.states):
        left = tmp_path / f"left{file.suffix}"
        rewrite(left, state)
        with _edited_half(), mrcz.open(left) as reader:
            assert reader.header in (old, new), i
            assert np.array_equal(reader.read(), pixels), i
            seen.add(reader.header == new)
            plain = reader.footer is not None and reader.footer.source_header
            assert not plain or Header.parse(plain).shape == reader.shape
        with _edited_half():
            mrcz.edit_header(left, label="after", pixel_size=4.0)  # what was left can be edited, and is whole then
        with mrcz.open(left) as reader:
            assert reader.header.labels[-1] == "after" and np.array_equal(reader.read(), pixels)
        assert mrcz.verify(left).ok
        with mrcz.open(left, "a") as writer:
            writer.append(pixels[0])
        assert len(mrcz.open(left)) == 7
    assert True in seen


@contextlib.contextmanager
def _edited_half():
    """Between the writes of header and footer a reader says that the header was edited: true, and no error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).*the header does not match its checksum", FormatWarning)
        yield


def test_a_disk_that_fails_leaves_a_whole_header(file, pixels, monkeypatch):
    before = file.read_bytes()
    for at in range(1, 30):
        tape = Tape(file, fail_at=at)
        monkeypatch.setattr(GrowingFile, "disk", tape)
        try:
            mrcz.edit_header(file, pixel_size=0.83, label="new")
        except OSError as error:
            assert error.errno == errno.EIO and str(file) in str(error)
        else:
            break
        finally:
            monkeypatch.undo()
        with mrcz.open(file) as reader:
            new = reader.header.labels[-1:] == ["new"]
            assert new or reader.header.tobytes() == before[:1024], at
            if reader.footer is not None and reader.footer.source_header is not None:
                assert (Header.parse(reader.footer.source_header).labels[-1] == "new") == new
        assert np.array_equal(mrcz.read(file), pixels)
        assert mrcz.verify(file).ok
        file.write_bytes(before)
    assert at > 1 and mrcz.open(file).header.labels[-1] == "new"


# ---- the rest ----------------------------------------------------------------------------------------------------


def test_every_real_file_keeps_its_pixels(some_data_dir, tmp_path):
    """Edited in place, plain and compressed, the files of all programs hold the pixels they held."""
    n = 0
    for source in sorted(some_data_dir.rglob("*")):
        if source.suffix not in (".mrc", ".mrcs", ".map", ".ccp4", ".st", ".rec") or source.stat().st_size > 2e5:
            continue
        path = tmp_path / "a.mrc"
        rewrite(path, source.read_bytes())
        try:
            pixels = mrcz.read(path)
        except FormatError:
            continue
        n += 1
        packed = path.with_suffix(".mrcz")
        mrcz.compress(path, packed, overwrite="any", permissive=True)
        full = len(mrcz.open(path).header.labels) > 8
        for file in (path, packed):
            mrcz.edit_header(file, pixel_size=1.25, **({"labels": ["edited"]} if full else {"label": "edited"}))
            with mrcz.open(file) as reader:
                assert np.array_equal(reader.read(), pixels, equal_nan=pixels.dtype.kind in "fc"), source
                assert reader.header.labels[-1] == "edited"
                assert reader.pixel_size == pytest.approx((1.25,) * 3)
        mrcz.decompress(packed, path.with_suffix(".back"), overwrite=True)
        assert path.with_suffix(".back").read_bytes()[:1024] == path.read_bytes()[:1024], source
    assert n > 15


def test_every_field_has_a_meaning():
    assert list(MEANINGS) == list(HEADER_DTYPE.names) and set(FIXED) < set(MEANINGS)


def test_changed_header_is_another_one():
    header = Header.build((1, 4, 4), format_for(np.float32))
    assert changed_header(header, pixel_size=2).pixel_size == (2, 2, 2) and header.pixel_size == (0, 0, 0)
    assert edit_header is mrcz.edit_header


@pytest.mark.parametrize("name", [*HEADER_DTYPE.names, "pixel_size", "labels", "stats", "shape", "voxel_size", "foo"])
def test_assigning_to_a_header_names_the_way(name):
    header = Header.build((1, 4, 4), format_for(np.float32))
    before = header.tobytes()
    with pytest.raises(AttributeError, match=r"header.replace|mrcz.edit_header"):
        setattr(header, name, 3)
    with pytest.raises(TypeError, match=r"header.replace|mrcz.edit_header"):
        header[name] = 3
    with pytest.raises(AttributeError, match=r"header.replace|mrcz.edit_header"):
        delattr(header, name)
    with pytest.raises(TypeError, match="does not support item assignment"):
        header["label"][0] = b"x"
    assert header.tobytes() == before


# ---- the command -------------------------------------------------------------------------------------------------


def test_command_shows(file, capsys):
    assert cli.main(["header", str(file)]) == 0
    out = capsys.readouterr().out
    for name in HEADER_DTYPE.names:
        assert f" {name} " in out
    assert "MRCZ1.0.0" in out or "mrcfile" in out


def test_command_changes(file, capsys):
    import json

    before = file.read_bytes()
    arguments = ["header", "--set", "pixel-size=0.83", "--set", "origin=1,2,3", "--label", "by hand", str(file)]
    assert cli.main([*arguments, "--dry-run"]) == 0
    assert "would change" in capsys.readouterr().out and file.read_bytes() == before
    assert cli.main([*arguments, "--json"]) == 0
    record = json.loads(capsys.readouterr().out.splitlines()[0])
    assert record["written"] and record["path"] == str(file) and record["error"] is None
    assert {"field", "byte", "before", "after"} == set(record["changes"][0])
    assert mrcz.open(file).header.labels[-1] == "by hand"
    assert cli.main(["header", "--set", "labels=", "--set", "kind=volume-stack", "--set", "mz=2", str(file)]) == 0
    assert cli.main(["header", "--set", "exttyp=CCP4", "--set", "machst=44440000", str(file), "--json"]) == 0
    assert mrcz.open(file).header.mz == 2
    capsys.readouterr()
    for wrong, code in (
        ("voxel_size=1", 2),
        ("nx=3", 2),
        ("pixel-size", 2),
        ("pixel-size=a", 2),
        ("origin=", 2),
        ("pixel-size=-1", 1),
    ):
        assert cli.main(["header", "--set", wrong, str(file)]) == code, wrong
        assert "mrcz: " in capsys.readouterr().err
    assert cli.main(["header", str(file), "absent.mrc"]) == 1
