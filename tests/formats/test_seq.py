"""Norpix's .seq: a real file, hand-made ones of the layout that the module tells, what lies beside, damage."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from formats.damage import flipped, survives
from formats.seeds import seeds_seq, seq_bytes
from rewriting import rewrite

import mrcz


@pytest.fixture(scope="module")
def sample(data_dir):
    found = data_dir.parent / "movies" / "seq" / "sample_norpix6.seq"
    if not found.is_file():
        pytest.skip(f"no real file at {found}")
    return found


def test_real_file(sample):
    raw = sample.read_bytes()
    with mrcz.open(sample) as reader:
        assert (reader.format, reader.shape, reader.dtype, reader.codec) == ("seq", (6, 32, 36), "u1", "none")
        pixels = reader.read()
        for k in range(6):
            assert pixels[k].tobytes() == raw[8192 * (k + 1) :][: 32 * 36]
        assert len({frame.tobytes() for frame in pixels}) == 6
        np.testing.assert_array_equal(reader[3, 5:9, 7:30], pixels[3, 5:9, 7:30])
        assert reader.metadata["timestamp"] == "2015-07-01T18:41:15.775430Z"
        assert [one["timestamp"][17:] for one in reader.frame_metadata] == [
            "15.775430Z",
            "15.808227Z",
            "15.841228Z",
            "15.874230Z",
            "15.910819Z",
            "15.944373Z",
        ]
        assert "frame_time" not in reader.metadata  # 10 a second were suggested, 30 were taken
        assert reader.metadata["original"]["seq"]["suggested_frame_rate"] == 10
        assert not reader.oddities


def test_pixels_and_times_are_those_of_pims(sample):
    theirs = pytest.importorskip("pims").NorpixSeq(str(sample))
    with mrcz.open(sample) as reader:
        assert len(theirs) == len(reader)
        for k in range(len(theirs)):
            np.testing.assert_array_equal(reader[k], theirs[k])
            seconds = np.datetime64(reader.frame_metadata[k]["timestamp"][:-1], "us").astype("i8") / 1e6
            assert seconds == pytest.approx(theirs.get_time_float(k), abs=1e-6)
    theirs.close()


@pytest.mark.parametrize("version", [3, 4, 5, 6])
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4"])
@pytest.mark.parametrize("shape", [(3, 5, 7), (1, 1, 1), (40, 2, 3)])
def test_versions_and_depths(tmp_path, rng, version, dtype, shape):
    frames = rng.integers(0, 250, shape).astype(dtype)
    (tmp_path / "a.seq").write_bytes(seq_bytes(frames, version))
    with mrcz.open(tmp_path / "a.seq") as reader:
        assert (reader.shape, reader.dtype) == (shape, dtype)
        np.testing.assert_array_equal(reader.read(), frames)
        np.testing.assert_array_equal(reader[::-1, -1:], frames[::-1, -1:])
        last = f"2015-07-01T18:{41 + (14 + shape[0]) // 60:02d}:{(14 + shape[0]) % 60:02d}.775"
        assert reader.frame_metadata[-1]["timestamp"] == last + ("430Z" if version >= 5 else "Z")
        assert reader.metadata["original"]["seq"]["description"] == "made by hand"


def test_images_without_room_for_a_time(tmp_path):
    frames = np.arange(12, dtype="u1").reshape(2, 2, 3)
    raw = seq_bytes(frames)[:8192] + frames.tobytes()
    (tmp_path / "a.seq").write_bytes(raw[:580] + struct.pack("<I", 6) + raw[584:])
    with mrcz.open(tmp_path / "a.seq") as reader:
        np.testing.assert_array_equal(reader.read(), frames)
        assert "timestamp" not in reader.metadata
        assert reader.frame_metadata == [{}, {}]


# ---- Direct Electron -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def celeritas(data_dir):
    found = data_dir / "rsciio-de-celeritas"
    if not found.is_dir():
        pytest.skip(f"no real files at {found}")
    return found


def test_real_files_of_a_celeritas_camera(celeritas):
    path = celeritas / "data" / "test.seq"
    raw = path.read_bytes()
    with mrcz.open(path) as reader:
        # The file has room for 15 images, its header and its XML tell of 10, and the rest are zeros.
        assert (reader.shape, reader.dtype) == ((10, 64, 64), "u2")
        assert reader.oddities == ("room for 5 images after the last",)
        for k, frame in enumerate(reader):
            assert frame.tobytes() == raw[8192 + 16384 * k :][:8192]
        found = reader.metadata
        original = found.pop("original")
        assert found == {
            "timestamp": "2022-08-11T19:21:27.069646Z",
            "frame_time": 1 / 86956.52,
            "binning": 1,
            "camera": "Celeritas Camera",
            "counts_per_electron": 300,
            "dark_file": "test.seq.dark.mrc",
            "gain_file": "test.seq.gain.mrc",
            "defect_file": "test.seq.Config.Metadata.xml",
        }
        assert original["files"]["metadata"] == "test.seq.metadata"
        assert '<SegmentPreBuffer Value="256" />' in original["xml"]


@pytest.mark.parametrize("half", ["Top_13-49-04.160", "Bottom_13-49-04.196"])
def test_real_halves(celeritas, half):
    with mrcz.open(celeritas / "256x256_Prebuffer1" / f"Movie_00785_{half}.seq") as reader:
        assert (reader.shape, reader.dtype) == ((5, 128, 256), "u2")
        assert reader.read().max() < 4096
        assert any("half of a Celeritas" in oddity for oddity in reader.oddities)
        found = reader.metadata
        assert (found["dark_file"], found["frame_time"]) == ("Movie_00785.seq.dark.mrc", 1.0)
        assert "gain_file" not in found  # the one there is another movie's
        assert found["original"]["files"]["metadata"] == f"Movie_00785_{half}.seq.metadata"


def first_reference(path, shape):
    """Its header claims 32766 images: the first is what there is."""
    return np.frombuffer(path.read_bytes(), "<f4", shape[0] * shape[1], 1024).reshape(shape)


def alike(one, other):
    return np.corrcoef(one.ravel(), other.ravel())[0, 1]


def test_frames_lie_as_the_dark_reference_does(celeritas):
    with mrcz.open(celeritas / "data" / "test.seq") as reader:
        mean = reader.read().mean(0)
    dark = first_reference(celeritas / "data" / "test.seq.dark.mrc", (64, 64))
    assert alike(mean, dark) > 0.99
    assert max(alike(mean[::-1], dark), alike(mean[:, ::-1], dark), alike(mean[::-1, ::-1], dark)) < 0.6
    folder = celeritas / "256x256_Prebuffer1"
    top, bottom = (mrcz.read(next(folder.glob(f"*_{half}_*.seq"))).mean(0) for half in ("Top", "Bottom"))
    dark = first_reference(folder / "Movie_00785.seq.dark.mrc", (256, 256))
    assert min(alike(top[::-1], dark[:128]), alike(bottom, dark[128:])) > 0.97
    assert max(alike(top, dark[:128]), alike(bottom[::-1], dark[128:]), alike(bottom, dark[:128])) < 0.2


# The elements that these files have.
XML = """<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<Configuration>
 <FileInfo><FrameRate Value="20000"/><ImageBinning Value="2"/><HT Value="300"/><Mag Value="29"/>
 <ADUPerElectron Value="0"/></FileInfo>
 <BadPixels><BadPixelMap Rows="4096" Columns="4096"><Defect Rows="2311-2312"/></BadPixelMap></BadPixels>
</Configuration>"""


@pytest.mark.parametrize("name", ["a.seq", "a.seq.seq", "a_Top_14-16-01.432.seq"])
def test_what_is_beside(tmp_path, name):
    frames = np.arange(60, dtype="u2").reshape(3, 4, 5)
    (tmp_path / name).write_bytes(seq_bytes(frames))
    for suffix in ("dark", "gain"):
        mrcz.write(tmp_path / f"a.seq.{suffix}.mrc", np.ones((4, 5), "f4"))
    (tmp_path / "a.seq.Config.Metadata.xml").write_text(XML)
    with mrcz.open(tmp_path / name) as reader:
        found = reader.metadata
        assert found["dark_file"] == "a.seq.dark.mrc"
        assert found["gain_file"] == "a.seq.gain.mrc"
        assert found["defect_file"] == "a.seq.Config.Metadata.xml"
        assert found["frame_time"] == 1 / 20000
        assert found["binning"] == 2
        assert found["original"]["xml"] == XML
        assert (found["voltage"], found["magnification"]) == (300, 29000)
        assert "counts_per_electron" not in found
        assert set(found["original"]["files"]) == {"dark", "gain", "config"}
        assert any("Celeritas" in oddity for oddity in reader.oddities) == ("_Top_" in name)
        np.testing.assert_array_equal(reader.read(), frames)  # nothing was applied
        gain = np.full((4, 5), 0.5, "f4")
        np.testing.assert_array_equal(reader.read(gain=gain), frames * gain)


@pytest.mark.parametrize(
    "text", ["", "<a", "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", '<a><FileInfo><FrameRate Value="0"/></FileInfo></a>']
)
def test_unsound_words_beside_are_kept_and_not_believed(tmp_path, text):
    (tmp_path / "a.seq").write_bytes(seq_bytes(np.ones((1, 2, 2), "u1")))
    (tmp_path / "a.seq.Config.Metadata.xml").write_text(text)
    with mrcz.open(tmp_path / "a.seq") as reader:
        assert reader.metadata["original"]["xml"] == text
        assert not {"frame_time", "binning", "defect_file"} & set(reader.metadata)


def test_a_folder_or_a_pipe_beside_is_no_file(tmp_path):
    (tmp_path / "a.seq").write_bytes(seq_bytes(np.ones((1, 2, 2), "u1")))
    (tmp_path / "a.seq.Config.Metadata.xml").mkdir()
    with mrcz.open(tmp_path / "a.seq") as reader:
        assert set(reader.metadata["original"]) == {"seq"}


# ---- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("<I", 620, 1), r"compressed \(JPEG, 1\)"),
        (("<I", 620, 8), r"compressed \(H.264, 8\)"),
        (("<I", 620, 77), r"compressed \(an unknown compression, 77\)"),
        (("<I", 568, 200), r"kind 200 \(BGR\)"),
        (("<I", 556, 12), "pixels of 12 bits"),
        (("<I", 548, 0), "images of 0 x 4"),
        (("<I", 548, 4096), "the header says 40"),
        (("<I", 564, 39), "has 40 bytes, the header says 39"),
        (("<I", 580, 39), "39 bytes apart"),
        (("<I", 580, 0), "0 bytes apart"),
        (("<i", 28, 0), "version 0"),
        (("<i", 28, -1), "version -1"),
    ],
)
def test_what_is_refused(tmp_path, change, words):
    (tmp_path / "a.seq").write_bytes(seq_bytes(np.ones((3, 4, 5), "u2"), change=[change]))
    with pytest.raises(mrcz.FormatError, match=rf"a\.seq: .*{words}"):
        mrcz.open(tmp_path / "a.seq")


def test_claims_take_no_memory(tmp_path):
    big = [
        ("<I", 548, 60000),
        ("<I", 552, 60000),
        ("<I", 556, 8),
        ("<I", 564, 3_600_000_000),
        ("<I", 580, 3_700_000_000),
    ]
    (tmp_path / "a.seq").write_bytes(seq_bytes(np.ones((3, 4, 5), "u2"), change=big))
    with pytest.raises(mrcz.ChunkError, match="frame 0, offset 8192: an image of 3600000000 bytes"):
        mrcz.open(tmp_path / "a.seq")
    assert survives(tmp_path / "a.seq", permissive=True) is None


def test_last_frame_cut_short(tmp_path, rng):
    frames = rng.integers(0, 99, (3, 4, 5)).astype("u1")
    raw = seq_bytes(frames)
    path = tmp_path / "a.seq"
    begin = len(raw) - 36
    for size in (begin + 1, begin + 19):
        path.write_bytes(raw[:size])
        with pytest.raises(mrcz.ChunkError, match=rf"a\.seq: frame 2, offset {begin}: .* {size - begin} are there"):
            mrcz.open(path)
        with pytest.warns(mrcz.FormatWarning, match="frame 2 is cut short"):
            reader = mrcz.open(path, permissive=True)
        with reader:
            np.testing.assert_array_equal(reader.read(), frames[:2])
    for size in (begin + 20, begin + 27, begin + 28, len(raw)):  # its pixels are all there, its time may not be
        path.write_bytes(raw[:size])
        with mrcz.open(path) as reader:
            np.testing.assert_array_equal(reader.read(), frames)
            assert bool(reader.frame_metadata[2]) == (size >= begin + 28)


def test_missing_frames_are_told(tmp_path):
    raw = seq_bytes(np.ones((3, 4, 5), "u1"))
    (tmp_path / "a.seq").write_bytes(raw[:-36])
    with pytest.warns(mrcz.FormatWarning, match="tells of 3 frames, 2 are there"):
        mrcz.open(tmp_path / "a.seq").close()
    (tmp_path / "a.seq").write_bytes(seq_bytes(np.ones((3, 4, 5), "u1"), told=1)[:-9])
    with mrcz.open(tmp_path / "a.seq") as reader:
        assert (len(reader), reader.oddities) == (1, ("room for 2 images after the last",))
    (tmp_path / "a.seq").write_bytes(
        seq_bytes(np.ones((3, 4, 5), "u1"), told=0)
    )  # a writer that did not come to its end
    with mrcz.open(tmp_path / "a.seq") as reader:
        assert len(reader) == 3


def test_every_byte_of_the_header_changed_and_every_truncation(tmp_path, still):
    for path in seeds_seq(tmp_path):
        raw = path.read_bytes()
        other = path.with_name("b.seq")
        for at in [*range(24, 40), *range(540, 640), *range(640, len(raw), 397)]:
            for bits in (0xFF, 0x01):
                rewrite(other, flipped(raw, at, bits))
                survives(other)
        for size in [*range(24, 1024, 83), *range(1024, len(raw) - 80, 331), *range(len(raw) - 80, len(raw))]:
            rewrite(other, raw[:size])
            found = survives(other)
            assert found is None or 1 <= len(found) <= 3
