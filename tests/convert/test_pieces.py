"""Files of other formats given back byte for byte, or stored as pixels and said so; and what tries to prevent it."""

from __future__ import annotations

import filecmp
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import zstandard
from reference import lzw_plain
from rewriting import rewrite

import mrcz
from mrcz.archive.plan import plan
from mrcz.archive.run import run
from mrcz.check.origin import is_archive_of
from mrcz.check.verify import verify
from mrcz.cli import main
from mrcz.container.footer import encode_footer
from mrcz.container.metadata import unpack
from mrcz.container.pieces import COLUMN, ENTRY
from mrcz.convert import pieces
from mrcz.convert.pieces import can_be_pieces
from mrcz.errors import FormatError, FormatWarning, MrczError, OtherSourceError
from mrcz.formats.npy import NpyFrames

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("imagecodecs")


def there_and_back(path, tmp_path, **options):
    """The file once more, which is compared; what was said of the copy."""
    packed = tmp_path / f"{path.name}.mrcz"
    made = mrcz.compress(path, packed, overwrite="any", **options)
    assert made.restores == "file" and made.checked and made.notes == ()
    back = tmp_path / "back" / path.name
    back.parent.mkdir(exist_ok=True)
    given = mrcz.decompress(packed, back, overwrite=True)
    assert given.restores == "file" and given.destination_bytes == path.stat().st_size
    assert filecmp.cmp(path, back, shallow=False)
    assert is_archive_of(packed, path) is None and is_archive_of(packed, path, check=True) is None
    with mrcz.open(path) as mine, mrcz.open(packed) as theirs:
        assert mine.read().astype(theirs.dtype).tobytes() == theirs.read().tobytes()
        assert COLUMN not in theirs.metadata
    assert verify(packed).ok
    return made


def counts(rng, shape, dtype="u1"):
    return rng.poisson(0.7, shape).astype(dtype)


KINDS = {
    "plain": {"compression": None},
    "lzw": {"compression": "lzw"},
    "lzw-predictor": {"compression": "lzw", "predictor": True},
    "strips": {"compression": "lzw", "rowsperstrip": 7},
    "plain strips": {"compression": None, "rowsperstrip": 7},
    "tiles": {"compression": "lzw", "tile": (16, 32)},
    "tiles-predictor": {"compression": "lzw", "predictor": True, "tile": (32, 16)},
    "plain tiles": {"compression": None, "tile": (16, 16)},
}


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", KINDS)
def test_tiff(tmp_path, rng, kind, order, bigtiff):
    for dtype in ("u1", "i1", "u2", "i2", "f4"):
        if dtype == "f4" and "predictor" in kind:
            continue  # which is another one
        path = tmp_path / f"{dtype}.tif"
        stack = counts(rng, (3, 45, 70), order + dtype)
        tifffile.imwrite(
            path, stack, photometric="minisblack", byteorder=order, bigtiff=bigtiff, metadata=None, **KINDS[kind]
        )
        there_and_back(path, tmp_path)


def test_colours_and_other_pages(tmp_path, rng):
    path = tmp_path / "rgb.tif"
    tifffile.imwrite(path, rng.integers(0, 256, (20, 31, 3), "u1"), photometric="rgb", compression="lzw")
    there_and_back(path, tmp_path)
    with tifffile.TiffWriter(tmp_path / "two.tif") as file:
        for _ in range(3):
            file.write(counts(rng, (20, 30)), photometric="minisblack", compression="lzw", metadata=None)
            file.write(rng.integers(0, 9, (5, 6), "u2"), photometric="minisblack", compression="deflate", metadata=None)
    there_and_back(tmp_path / "two.tif", tmp_path)  # what is another series stays as it is


def test_two_pixels_a_byte(tmp_path, rng):
    path = tmp_path / "super.tif"
    stored = np.zeros((1, 7424, 3840), "u1")
    stored.reshape(-1)[rng.integers(0, stored.size, 100_000)] = rng.integers(0, 256, 100_000)
    tifffile.imwrite(path, stored, photometric="minisblack", compression="lzw", metadata=None)
    there_and_back(path, tmp_path, pack=True)
    with mrcz.open(tmp_path / "super.tif.mrcz") as reader:
        assert reader.shape == (1, 7424, 7680)


def test_libtiff_of_pillow(tmp_path, rng):
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "a.tif"
    pages = [image.fromarray(counts(rng, (300, 400))) for _ in range(3)]
    pages[0].save(path, compression="tiff_lzw", save_all=True, append_images=pages[1:])
    there_and_back(path, tmp_path)


@pytest.mark.skipif(shutil.which("relion_convert_to_tiff") is None, reason="relion is not installed")
def test_libtiff_of_relion(tmp_path, rng):
    for dtype in ("i1", "i2", "f4"):
        mrcz.write(tmp_path / "a.mrc", counts(rng, (4, 500, 600), dtype), overwrite=True)
        command = ["relion_convert_to_tiff", "--i", "a.mrc", "--o", "out/", "--compression", "lzw"]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
        there_and_back(tmp_path / "out" / "a.tif", tmp_path)


def test_numpy(tmp_path, rng):
    for dtype in ("u1", ">i2", "<u4", ">f4", "c8", "f2"):
        for shape in ((4, 9, 11), (9, 11)):
            np.save(tmp_path / "a.npy", counts(rng, shape, dtype))
            there_and_back(tmp_path / "a.npy", tmp_path)
    with open(tmp_path / "a.npy", "ab") as file:
        file.write(b"bytes behind the last frame")
    there_and_back(tmp_path / "a.npy", tmp_path)
    values = np.array([[np.nan, -0.0, np.inf, 1e-45], [0, 1, 2, 3]], "f4")
    values.view("u4")[1] = (0x7FC01234, 0xFFC00001, 0x7F800001, 0x80000001)
    np.save(tmp_path / "a.npy", values)
    there_and_back(tmp_path / "a.npy", tmp_path)


def test_real_files(tmp_path, data_dir):
    """Every one is proven; those that cannot be given back say so, and there are few of them."""
    paths = sorted((data_dir.parent / "movies").rglob("*"))
    wanted = [p for p in paths if p.suffix in (".mib", ".seq", ".dm3", ".dm4", ".ser") and p.stat().st_size < 9 << 20]
    if not wanted:
        pytest.skip("no real movies: MRCZ_TEST_DATA says where they are")
    said = {}
    for path in wanted:
        if can_be_pieces(path) is None:
            there_and_back(path, tmp_path)
        else:
            said[path.name] = mrcz.compress(path, tmp_path / "other.mrcz", overwrite="any")
    assert len(said) < len(wanted) / 10 and len(wanted) > 20
    assert all(made.restores == "pixels" and "not the" in made.notes[0] for made in said.values())


def test_what_cannot_be_given_back(tmp_path, rng):
    stack = counts(rng, (3, 20, 30))
    written = {
        "deflate gives other bytes": {"compression": "deflate"},
        "zstd gives other bytes": {"compression": "zstd"},
    }
    path = tmp_path / "a.tif"
    for why, how in written.items():
        tifffile.imwrite(path, stack, photometric="minisblack", metadata=None, **how)
        assert why in can_be_pieces(path)
        made = mrcz.compress(path, tmp_path / "a.mrcz", overwrite="any")
        assert made.restores == "pixels" and why in made.notes[0] and "not the TIFF file" in made.notes[0]
    np.save(tmp_path / "f.npy", np.asfortranarray(stack))
    assert "Fortran" in can_be_pieces(tmp_path / "f.npy")
    # An encoder nobody knows: the same pixels, and one Clear more.
    tifffile.imwrite(path, stack, photometric="minisblack", metadata=None, compression="lzw", rowsperstrip=20)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        start, size = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    bits = int.from_bytes(data[start : start + size], "big") & ~1
    data[start : start + size] = bits.to_bytes(size, "big")
    data[start + size - 1] ^= 1  # behind the end of the codes
    path.write_bytes(data)
    made = mrcz.compress(path, tmp_path / "a.mrcz", overwrite="any")
    assert made.restores == "pixels" and "encoder that is not known" in made.notes[0]


def test_a_later_frame_that_differs_is_found(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(pieces, "_TRIED", 0)  # as of large frames: the first is looked at
    path = tmp_path / "a.tif"
    stack = counts(rng, (3, 20, 30))
    tifffile.imwrite(path, stack, photometric="minisblack", metadata=None, compression="lzw", rowsperstrip=20)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        end = file.pages[2].dataoffsets[0] + file.pages[2].databytecounts[0] - 1
    data[end] ^= 1
    path.write_bytes(data)
    assert can_be_pieces(path) is None  # by its first frame
    made = mrcz.compress(path, tmp_path / "a.mrcz")
    assert made.restores == "pixels" and "made again, it differs" in made.notes[0]
    with mrcz.open(tmp_path / "a.mrcz") as reader:
        assert ENTRY not in reader.footer.extra and np.array_equal(reader.read(), stack[:, ::-1])
    with pytest.raises(MrczError, match="may hold more"):
        mrcz.compress(path, tmp_path / "b.mrcz", remove=True)
    assert path.exists() and sorted(p.name for p in tmp_path.iterdir()) == ["a.mrcz", "a.tif"]


def test_a_format_that_is_wrong_loses_nothing(tmp_path, rng, monkeypatch):
    path = tmp_path / "a.npy"
    array = counts(rng, (4, 9, 11))
    np.save(path, array)
    right = NpyFrames.pieces

    def shifted(self, change):
        found = right(self)
        return replace(found, **change(found))

    for change in (
        lambda f: {"offsets": f.offsets + np.uint64(1)},
        lambda f: {"offsets": f.offsets[::-1]},
        lambda f: {"offsets": f.offsets * 0},
        lambda f: {"offsets": f.offsets + np.uint64(1 << 40)},
        lambda f: {"nbytes": f.nbytes - np.uint64(1)},
        lambda f: {"height": 5},
        lambda f: {"turned": True},
        lambda f: {"packing": "words 6"},
        lambda f: {"packing": "of tomorrow"},
        lambda f: {"dtype": np.dtype("u2")},
        lambda f: {"lzw": True},
        lambda f: {"differences": True},
    ):
        monkeypatch.setattr(NpyFrames, "pieces", lambda self, change=change: shifted(self, change))
        made = mrcz.compress(path, tmp_path / "a.mrcz", overwrite="any")
        assert made.restores == "pixels" and np.array_equal(mrcz.read(tmp_path / "a.mrcz"), array)


def test_names(tmp_path, rng):
    path = tmp_path / "movie.tif"
    tifffile.imwrite(path, counts(rng, (3, 20, 30)), photometric="minisblack", compression="lzw")
    (job,) = plan("compress", [path]).jobs
    (done,) = run([job])
    assert done.ok and done.restores == "file" and job.destination == f"{path}.mrcz"
    (job,) = plan("decompress", [f"{path}.mrcz"], output=f"{tmp_path}/out/").jobs
    assert os.path.basename(job.destination) == "movie.tif"
    (done,) = run([job])
    assert done.ok and filecmp.cmp(path, tmp_path / "out" / "movie.tif", shallow=False)
    os.rename(f"{path}.mrcz", tmp_path / "other.mrcz")
    (job,) = plan("decompress", [tmp_path / "other.mrcz"]).jobs
    assert os.path.basename(job.destination) == "other.tif"
    # A name that ends in .mrc asks for MRC, one of yet another format for what is not.
    made = mrcz.decompress(tmp_path / "other.mrcz", tmp_path / "pixels.mrc")
    assert made.restores == "pixels"
    assert np.array_equal(mrcz.read(tmp_path / "pixels.mrc"), mrcz.read(path))
    with pytest.raises(ValueError, match="its suffix says NumPy"):
        mrcz.decompress(tmp_path / "other.mrcz", tmp_path / "pixels.npy")
    with pytest.raises(ValueError, match="is read, not written"):
        mrcz.decompress(tmp_path / "other.mrcz", tmp_path / "movie.tif.gz")


def test_skipped_removed_replaced(tmp_path, rng):
    path, packed = tmp_path / "movie.tif", tmp_path / "movie.tif.mrcz"
    tifffile.imwrite(path, counts(rng, (3, 20, 30)), photometric="minisblack", compression="lzw")
    before = path.read_bytes()
    assert mrcz.compress(path, packed, remove=True).removed and not path.exists()
    made = mrcz.decompress(packed, path, remove=True)
    assert made.removed and path.read_bytes() == before and not packed.exists()
    mrcz.compress(path, packed)
    for action, one in (("compress", path), ("decompress", packed)):
        (done,) = run(plan(action, [one], skip_existing=True).jobs)
        assert done.status == "skipped", done
    # Another file of the same pixels: not this one.
    tifffile.imwrite(path, mrcz.read(path)[:, ::-1], photometric="minisblack", compression="lzw", software="other")
    assert path.read_bytes() != before
    assert "other content" in is_archive_of(packed, path)
    (done,) = run(plan("compress", [path], skip_existing=True).jobs)
    assert done.status == "refused" and "another movie.tif" in done.error
    with pytest.raises(OtherSourceError, match=r"another movie\.tif, of other content"):
        mrcz.compress(path, packed, overwrite=True)
    mrcz.compress(path, packed, overwrite="any")
    assert is_archive_of(packed, path) is None


def test_what_was_added_since_is_not_removed(tmp_path, rng):
    path, packed = tmp_path / "movie.tif", tmp_path / "movie.tif.mrcz"
    tifffile.imwrite(path, counts(rng, (3, 20, 30)), photometric="minisblack", compression="lzw")
    mrcz.compress(path, packed)
    with mrcz.Writer.append_to(packed, metadata={"note": "kept"}):
        pass
    with pytest.raises(MrczError, match="no place for the metadata note"):
        mrcz.decompress(packed, tmp_path / "back.tif", remove=True)
    assert packed.exists()
    assert filecmp.cmp(path, tmp_path / "back.tif", shallow=False)
    # Frames that are added make another movie of it.
    with mrcz.Writer.append_to(packed) as writer:
        writer.append(mrcz.read(path)[0])
    assert verify(packed).ok
    made = mrcz.decompress(packed, tmp_path / "four.mrc")
    assert made.restores == "pixels" and made.n_frames == 4
    with pytest.raises(ValueError, match="its suffix says TIFF"):
        mrcz.decompress(packed, tmp_path / "four.tif")


def test_compressed_anew(tmp_path, rng):
    path = tmp_path / "movie.tif"
    tifffile.imwrite(path, counts(rng, (3, 20, 30)), photometric="minisblack", compression="lzw")
    mrcz.compress(path, tmp_path / "a.mrcz")
    made = mrcz.compress(tmp_path / "a.mrcz", tmp_path / "b.mrcz", profile="small", pack=True, check=True)
    assert made.restores == "file"
    mrcz.decompress(tmp_path / "b.mrcz", tmp_path / "b.tif", check=True)
    assert filecmp.cmp(path, tmp_path / "b.tif", shallow=False)


def test_what_is_told(tmp_path, rng, capsys):
    path, packed = tmp_path / "movie.tif", tmp_path / "movie.tif.mrcz"
    tifffile.imwrite(path, counts(rng, (3, 20, 30)), photometric="minisblack", compression="lzw")
    assert main(["compress", str(path)]) == 0
    assert "decompressing gives an MRC file" not in capsys.readouterr().out
    assert main(["info", str(packed)]) == 0
    shown = capsys.readouterr().out
    assert f"that very file, {path.stat().st_size} bytes, SHA-256" in shown and COLUMN not in shown
    assert main(["info", "--json", str(packed)]) == 0
    assert COLUMN not in json.loads(capsys.readouterr().out.splitlines()[0])["metadata"]
    assert main(["verify", str(packed)]) == 0


# ---- hostile files ------------------------------------------------------------------------------------------------


def forged(packed, target, entry=None, column=None):
    """The same file with another record or skeleton; its checksums are right."""
    with mrcz.open(packed) as reader:
        footer, head = reader.footer, reader.source.read(0, reader.footer.trailer.start)
        metadata = unpack(footer.metadata_bytes(reader.source.read))
    extra = {**footer.extra, ENTRY: {**footer.extra[ENTRY], **(entry or {})}}
    if column is not None:
        metadata[COLUMN] = {**metadata[COLUMN], **column} if isinstance(column, dict) else None
    made = encode_footer(footer.index, header_bytes=head[:1024], metadata=metadata, extra=extra, writer="forged")
    rewrite(target, head + made)


@pytest.fixture
def packed(tmp_path, rng):
    path = tmp_path / "movie.tif"
    tifffile.imwrite(path, counts(rng, (3, 20, 30)), photometric="minisblack", compression="lzw", rowsperstrip=7)
    mrcz.compress(path, tmp_path / "movie.tif.mrcz")
    return tmp_path / "movie.tif.mrcz"


@pytest.mark.parametrize(
    "entry",
    [
        {"size": 1}, {"size": 1 << 60}, {"sha256": "00" * 32}, {"height": 1, "width": 1}, {"height": 1 << 31},
        {"width": 1 << 31, "tiled": True, "height": 1 << 31}, {"dtype": "<f4"}, {"dtype": "|i1"}, {"turned": False},
        {"packing": "4 bits"}, {"packing": "words 12 quad"}, {"packing": "words 1"}, {"differences": True},
        {"lzw": None}, {"lzw": {"full": 259, "gap": 1, "late": 2, "pad": True}}, {"version": 9}, {"tiled": True},
    ],
)  # fmt: skip
def test_a_hostile_record(packed, tmp_path, entry):
    forged(packed, tmp_path / "bad.mrcz", entry)
    with pytest.raises(MrczError):
        mrcz.decompress(tmp_path / "bad.mrcz", tmp_path / "bad.tif")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.mrcz", "movie.tif", "movie.tif.mrcz"]
    # Its pixels are there all the same.
    assert np.array_equal(mrcz.read(tmp_path / "bad.mrcz"), mrcz.read(packed))
    assert mrcz.decompress(tmp_path / "bad.mrcz", tmp_path / "bad.mrc").restores == "pixels"


@pytest.mark.parametrize("column", [{"bytes": b""}, {"gaps": b"x"}, {"bytes": 4}, 0])
def test_a_hostile_skeleton(packed, tmp_path, column):
    forged(packed, tmp_path / "bad.mrcz", None, column)
    assert not verify(tmp_path / "bad.mrcz").ok
    with pytest.raises(FormatError, match="pieces: "):
        mrcz.decompress(tmp_path / "bad.mrcz", tmp_path / "bad.tif")


def test_flipped_bits(packed, tmp_path, rng):
    """Whatever is damaged: the very file, or one error and nothing."""
    warnings.simplefilter("ignore", FormatWarning)  # frames are found without the footer, too
    data, right = packed.read_bytes(), (tmp_path / "movie.tif").read_bytes()
    bad, given = tmp_path / "bad.mrcz", tmp_path / "bad.tif"
    for _ in range(150):
        damaged = bytearray(data)
        damaged[int(rng.integers(1024, len(data)))] ^= 1 << int(rng.integers(8))
        rewrite(bad, damaged)
        given.unlink(missing_ok=True)
        try:
            mrcz.decompress(bad, given)
        except (MrczError, ValueError):
            assert not given.exists()
        else:
            assert given.read_bytes() == right


def test_any_record_any_value(packed, tmp_path, rng):
    """Mutated records with right checksums: one of our errors, or the right file."""
    with mrcz.open(packed) as reader:
        good = reader.footer.extra[ENTRY]
    values = [0, 1, 2, 7, 19, 20, 21, 30, 31, 1 << 20, 1 << 31, (1 << 31) - 1, True, False, "", "|u1", "<c8", None]
    for _ in range(150):
        names = rng.choice([name for name in good if name != "sha256"], 2)
        forged(packed, tmp_path / "bad.mrcz", {name: values[int(rng.integers(len(values)))] for name in names})
        given = tmp_path / "bad.tif"
        given.unlink(missing_ok=True)
        try:
            mrcz.decompress(tmp_path / "bad.mrcz", given)
        except (MrczError, ValueError):
            assert not given.exists()
        else:
            assert filecmp.cmp(given, tmp_path / "movie.tif", shallow=False)


def test_a_source_that_changes(tmp_path, rng, monkeypatch):
    path = tmp_path / "a.npy"
    np.save(path, counts(rng, (4, 9, 11)))
    right = pieces.survey

    def survey(reader, whole):
        found = right(reader, whole)
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        return found

    monkeypatch.setattr("mrcz.convert.copy.survey", survey)
    with pytest.raises(MrczError, match=r"changed while it was read|is not the same"):
        mrcz.compress(path, tmp_path / "a.mrcz")
    assert not (tmp_path / "a.mrcz").exists()


def test_from_memory_and_wrapped(tmp_path, rng):
    import gzip

    path = tmp_path / "movie.tif"
    tifffile.imwrite(path, counts(rng, (3, 20, 30)), photometric="minisblack", compression="lzw")
    with gzip.open(tmp_path / "movie.tif.gz", "wb") as file:
        file.write(path.read_bytes())
    assert mrcz.compress(tmp_path / "movie.tif.gz", tmp_path / "g.mrcz").restores == "file"
    mrcz.decompress(tmp_path / "g.mrcz", tmp_path / "back.tif")
    assert filecmp.cmp(path, tmp_path / "back.tif", shallow=False)
    with mrcz.open(io.BytesIO(path.read_bytes())) as reader:
        assert reader.shape == (3, 20, 30)


def test_a_header_that_was_edited_is_not_removed(tmp_path, rng):
    path, packed = tmp_path / "movie.tif", tmp_path / "movie.tif.mrcz"
    tifffile.imwrite(path, counts(rng, (3, 20, 30)), photometric="minisblack", compression="lzw")
    for change in ({"pixel_size": 1.5}, {"label": "my own"}):
        mrcz.compress(path, packed, overwrite="any")
        mrcz.edit_header(packed, **change)
        assert verify(packed).ok
        with pytest.raises(MrczError, match="no place for the metadata"):
            mrcz.decompress(packed, tmp_path / "back.tif", remove=True, overwrite=True)
        assert packed.exists() and filecmp.cmp(path, tmp_path / "back.tif", shallow=False)


def test_pipes(tmp_path, rng):
    path = tmp_path / "movie.tif"
    tifffile.imwrite(path, counts(rng, (3, 20, 30)), photometric="minisblack", compression="lzw")
    mrcz_ = [sys.executable, "-m", "mrcz"]
    packed = subprocess.run([*mrcz_, "compress", "-"], input=path.read_bytes(), capture_output=True, check=True).stdout
    back = subprocess.run([*mrcz_, "decompress", "-"], input=packed, capture_output=True, check=True).stdout
    assert back == path.read_bytes()
    (tmp_path / "a.mrcz").write_bytes(packed)
    (job,) = plan("decompress", [tmp_path / "a.mrcz"]).jobs
    assert os.path.basename(job.destination) == "a.tif"


# ---- the file format, from its specification alone ----------------------------------------------------------------


def documented(path):
    """What a file gives back by docs/container.md §2.6, with nothing of `mrcz.convert` or the core's encoder."""
    with mrcz.open(path) as reader:
        pixels, entry = reader.read(), reader.footer.extra["pieces"]
        column = unpack(reader.footer.metadata_bytes(reader.source.read))["mrcz_pieces"]
    gaps = np.frombuffer(zstandard.decompress(column["gaps"]), "<u8").tolist()
    rest, made, height, width = zstandard.decompress(column["bytes"]), b"", entry["height"], entry["width"]
    for frame in pixels:
        frame = frame[::-1] if entry["turned"] else frame
        for top in range(0, frame.shape[0], height):
            for left in range(0, frame.shape[1], width):
                part = frame[top : top + height, left : left + width].astype(entry["dtype"])
                if entry["tiled"]:
                    part = np.pad(part, ((0, height - part.shape[0]), (0, width - part.shape[1])))
                if entry["packing"] == "4 bits":
                    part = part[:, ::2] + 16 * part[:, 1::2]
                if entry["differences"]:
                    part = np.concatenate([part[:, :1], np.diff(part.astype("i8"), axis=1)], axis=1).astype(part.dtype)
                data = part.tobytes()
                if entry["lzw"] is not None:
                    data = lzw_plain.encode(data, **entry["lzw"])
                gap = gaps.pop(0)
                made, rest = made + rest[:gap] + data, rest[gap:]
    assert hashlib.sha256(made + rest).hexdigest() == entry["sha256"] and len(made + rest) == entry["size"]
    return made + rest


@pytest.mark.parametrize("kind", KINDS)
def test_the_specification(tmp_path, rng, kind):
    path = tmp_path / "a.tif"
    stack = counts(rng, (2, 45, 70), ">u2")
    tifffile.imwrite(path, stack, photometric="minisblack", byteorder=">", metadata=None, **KINDS[kind])
    mrcz.compress(path, tmp_path / "a.mrcz")
    assert documented(tmp_path / "a.mrcz") == path.read_bytes()


def test_counts_of_a_foreign_movie(tmp_path, rng):
    """Floats stored as counts, and the very file all the same."""
    path = tmp_path / "a.tif"
    gain = rng.uniform(0.9, 1.1, (64, 64)).astype("f4")
    tifffile.imwrite(path, counts(rng, (12, 64, 64), "f4") * gain, photometric="minisblack", compression="lzw")
    mrcz.write(tmp_path / "gain.mrc", gain[None, ::-1])
    made = mrcz.compress(path, tmp_path / "a.mrcz", recover_integers=True, gain=tmp_path / "gain.mrc")
    assert made.restores == "file" and made.integers is not None, made
    mrcz.decompress(tmp_path / "a.mrcz", tmp_path / "back.tif", remove=True)
    assert filecmp.cmp(path, tmp_path / "back.tif", shallow=False) and not (tmp_path / "a.mrcz").exists()
