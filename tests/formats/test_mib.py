"""Merlin's .mib: real files of one chip and of four, raw and processed; hand-made ones; damaged ones."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from formats.damage import flipped, survives
from formats.seeds import mib_head, mib_quad, mib_words, seeds_mib
from rewriting import rewrite

import mrcz


@pytest.fixture(scope="module")
def folder(data_dir):
    found = data_dir.parent / "movies" / "mib"
    if not found.is_dir():
        pytest.skip(f"no real files at {found}")
    return found


def write(path, frames, kind="U16", depth=12, **more):
    """A processed or raw file of one chip, or of four if the frames are laid out for that."""
    raw = b""
    for number, frame in enumerate(frames, 1):
        pixels = mib_words(frame, depth) if kind == "R64" else frame.astype(f">u{int(kind[1:]) // 8}").tobytes()
        wide = frame.shape[1] * (2 if kind == "R64" and depth == 24 else 1)
        raw += mib_head(number, (frame.shape[0], wide), kind, depth, **more) + pixels
    path.write_bytes(raw)
    return path


# ---- real files ------------------------------------------------------------------------------------------------------

# Sums of all frames, as RosettaSciIO 0.15 has them (it turns frames upside down, so the sums are of whole frames).
SUMS = {
    "Quad_1_Frame_CounterDepth_12_Rows_128": 420558,
    "Quad_9_Frames_CounterDepth_1_Rows_32": 47152,
    "Quad_9_Frames_CounterDepth_6_Rows_128": 975753,
    "Quad_9_Frames_CounterDepth_24_Rows_32": 4251800,
    "Single_1_Frame_CounterDepth_24_Rows_128": 18094,
    "Single_9_Frames_CounterDepth_6_Rows_32": 107716,
    "Single_9_Frames_CounterDepth_12_Rows_128": 234208,
    "example": 4173074,
}


def test_every_real_file_opens_as_its_name_says(folder):
    files = sorted(folder.glob("*.mib"))
    assert len(files) == 41
    for path in files:
        with mrcz.open(path) as reader:
            if path.stem != "example":
                chips, count, _, _, depth, _, rows = path.stem.removesuffix("RAW").split("_")
                quad = chips == "Quad"
                assert reader.shape == (int(count), int(rows) * (1 + quad), 256 * (1 + quad)), path.name
                assert reader.metadata["counter_depth"] == int(depth)
                assert reader.metadata["original"]["hdr"].startswith("HDR,")
                assert reader.dtype == {"1": "u1", "6": "u1", "12": ">u2", "24": ">u4"}[depth]
            assert reader.codec == ("raw" if path.stem.endswith("RAW") else "none")
            total = int(reader.sum().sum())
            assert path.stem not in SUMS or total == SUMS[path.stem]
            assert [one["frame_time"] for one in reader.frame_metadata] == [reader.metadata["frame_time"]] * len(reader)


def test_raw_and_processed_have_the_same_noise_in_the_same_pixels(folder):
    # Exposures a second apart, of a detector whose noise is nearly the same each time: of the pixels set in one nearly
    # all are set in the other, and few of them where any chip is turned or takes the place of another.
    files = sorted(folder.glob("*RAW.mib"))
    assert len(files) == 8
    for path in files:
        raw, processed = mrcz.read(path), mrcz.read(path.with_name(path.name.replace("RAW", "")))
        assert raw.shape == processed.shape
        ny, nx = (raw.shape[1] // 2, raw.shape[2] // 2) if path.name.startswith("Quad") else raw.shape[1:]
        for y in range(0, raw.shape[1], ny):
            for x in range(0, raw.shape[2], nx):
                ours, theirs = raw[:, y : y + ny, x : x + nx], processed[:, y : y + ny, x : x + nx]
                assert (ours & theirs).sum() > 0.97 * theirs.sum(), path.name
                for turned in (ours[:, ::-1], ours[:, :, ::-1], ours[:, ::-1, ::-1]):
                    assert (turned & theirs).sum() < 0.9 * theirs.sum()


def test_pixels_are_those_of_rosettasciio(folder):
    reader = pytest.importorskip("rsciio.quantumdetector").file_reader
    for path in sorted(folder.glob("*.mib")):
        if not path.stem.endswith("RAW"):  # it does not read these
            data = np.asarray(reader(str(path))[0]["data"])
            np.testing.assert_array_equal(mrcz.read(path)[:, ::-1], data.reshape(-1, *data.shape[-2:]))


def test_what_headers_and_hdr_say(folder, data_dir):
    with mrcz.open(data_dir / "merlin" / "002_4x2_6bit_roi128.mib") as reader:
        assert (reader.shape, reader.dtype, int(reader.sum().sum())) == ((8, 128, 256), "u1", 3263829)
        found = reader.metadata
        original = found.pop("original")
        assert found == {
            "timestamp": "2021-05-07T16:56:59.151103718Z",
            "frame_time": 0.1,
            "threshold": [40.0, 511.0, 0, 0, 0, 0, 0, 0],
            "counter_depth": 6,
            "camera": "Merlin Quad",
        }
        assert original["mib"].startswith("MQ1,000001,00384,01,0256,0128,U08")
        assert "Software Version:\t0.76.1.101" in original["hdr"]
        assert reader.frame_metadata[3]["timestamp"] > found["timestamp"]
    with mrcz.open(folder / "example.mib") as reader:
        assert "hdr" not in reader.metadata["original"]


def test_hdr_tells_of_more_frames(folder, tmp_path):
    name = "Single_9_Frames_CounterDepth_6_Rows_32"
    raw = (folder / f"{name}.mib").read_bytes()
    (tmp_path / "a.mib").write_bytes(raw[: len(raw) // 9 * 4])
    shutil.copy(folder / f"{name}.hdr", tmp_path / "a.hdr")
    with mrcz.open(tmp_path / "a.mib") as reader:
        assert (len(reader), reader.metadata["frames"]) == (4, 9)
        assert any("9 frames" in oddity for oddity in reader.oddities)


# ---- made here: the layout of LiberTEM's documentation of the format -------------------------------------------------


@pytest.mark.parametrize(("kind", "dtype"), [("U08", "u1"), ("U16", ">u2"), ("U32", ">u4"), ("U64", ">u8")])
@pytest.mark.parametrize("shape", [(3, 5, 7), (1, 1, 1), (4, 1, 9), (70, 2, 3)])
def test_processed(tmp_path, rng, shape, kind, dtype):
    frames = rng.integers(0, 200, shape).astype("u4")
    with mrcz.open(write(tmp_path / "a.mib", frames, kind)) as reader:
        assert (reader.format, reader.shape, reader.dtype) == ("mib", shape, dtype)
        np.testing.assert_array_equal(reader.read(), frames)
        np.testing.assert_array_equal(reader[-1, :1, -1:], frames[-1, :1, -1:])
        np.testing.assert_array_equal(reader[::-1], frames[::-1])


@pytest.mark.parametrize("depth", [1, 6, 12, 24])
@pytest.mark.parametrize("shape", [(2, 3, 64), (1, 1, 128)])
def test_raw_words_of_one_chip(tmp_path, rng, shape, depth):
    frames = rng.integers(0, 1 << depth, shape).astype("u4")
    with mrcz.open(write(tmp_path / "a.mib", frames, "R64", depth)) as reader:
        assert reader.shape == shape
        np.testing.assert_array_equal(reader.read(), frames)
        np.testing.assert_array_equal(reader[0, 1:3, 5:60], frames[0, 1:3, 5:60])


@pytest.mark.parametrize("depth", [1, 6, 12])
@pytest.mark.parametrize("arrangement", ["2x2", "2x2G"])
def test_raw_words_of_four_chips(tmp_path, rng, depth, arrangement):
    frames = rng.integers(0, 1 << depth, (2, 6, 128)).astype("u4")
    laid = np.stack([mib_quad(frame) for frame in frames])
    path = write(tmp_path / "a.mib", laid, "R64", depth, chips=4, arrangement=arrangement, length=768)
    with mrcz.open(path) as reader:
        np.testing.assert_array_equal(reader.read(), frames)
        np.testing.assert_array_equal(reader[1, 2:5, 50:90], frames[1, 2:5, 50:90])


def test_first_pixel_is_in_the_lowest_bits(tmp_path):
    raw = mib_head(1, (1, 64), "R64", 1) + bytes.fromhex("8000000000000003")
    (tmp_path / "a.mib").write_bytes(raw)
    assert np.flatnonzero(mrcz.read(tmp_path / "a.mib")).tolist() == [0, 1, 63]


def test_older_headers(tmp_path):
    frames = np.arange(128, dtype="u4").reshape(2, 1, 64) % 64
    path = write(tmp_path / "a.mib", frames, "U08", newer=False)
    with mrcz.open(path) as reader:
        assert reader.metadata["timestamp"] == "2021-04-15T14:43:09.000001"
        assert reader.metadata["frame_time"] == 0.001
        assert "counter_depth" not in reader.metadata
    path = write(tmp_path / "b.mib", frames, "R64", 6, newer=False)
    with pytest.raises(mrcz.FormatError, match=r"neither the header nor a \.hdr says the depth"):
        mrcz.open(path)
    (tmp_path / "b.hdr").write_text("HDR,\t\nCounter Depth (number):\t6\nEnd\t")
    np.testing.assert_array_equal(mrcz.read(path), frames)


# ---- damage ----------------------------------------------------------------------------------------------------------


def test_last_frame_cut_short(tmp_path, rng):
    frames = rng.integers(0, 99, (3, 4, 5))
    path = write(tmp_path / "a.mib", frames)
    raw = path.read_bytes()
    step = len(raw) // 3
    for size in (len(raw) - 1, len(raw) - 40, 2 * step + 1):
        path.write_bytes(raw[:size])
        with pytest.raises(mrcz.ChunkError, match=rf"a\.mib: frame 2, offset {2 * step}: .* {size - 2 * step} are"):
            mrcz.open(path)
        with pytest.warns(mrcz.FormatWarning, match="frame 2 is cut short"):
            reader = mrcz.open(path, permissive=True)
        with reader:
            np.testing.assert_array_equal(reader.read(), frames[:2])


def test_first_frame_cut_short_has_no_frames(tmp_path):
    path = write(tmp_path / "a.mib", np.ones((1, 4, 5)))
    raw = path.read_bytes()
    for size in range(4, len(raw)):
        path.write_bytes(raw[:size])
        with pytest.raises(mrcz.FormatError, match=r"a\.mib: frame 0"):
            mrcz.open(path, permissive=True)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_frame_of_another_shape_is_named(tmp_path, number):
    path = write(tmp_path / "a.mib", np.ones((4, 4, 6)))
    raw = path.read_bytes()
    step = len(raw) // 4
    at = number * step
    path.write_bytes(raw[:at] + mib_head(number + 1, (6, 4), "U16", 12) + raw[at + 384 :])
    with pytest.raises(mrcz.ChunkError, match=rf"frame {number}, offset {at}: a frame of 4 x 6 .* first has 6 x 4"):
        mrcz.read(path)
    with mrcz.open(path) if number < 3 else mrcz.open(write(tmp_path / "b.mib", np.ones((4, 4, 6)))) as reader:
        assert reader[0].shape == (4, 6)  # the others are whole
        if number < 3:
            with pytest.raises(mrcz.ChunkError, match=f"frame {number}"):
                reader[number, 1:2, 1:2]
            with pytest.raises(mrcz.ChunkError, match=f"frame {number}"):
                reader.frame_metadata  # noqa: B018


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "F32"}, "'F32' are not known"),
        ({"kind": "R64", "depth": 24, "chips": 4, "arrangement": "2x2", "length": 768}, "order is not published"),
        ({"kind": "R64", "depth": 6, "chips": 3, "arrangement": "3x1", "length": 768}, "order is not published"),
        ({"kind": "R64", "depth": 1, "shape": (4, 65)}, "no whole words"),
        ({"kind": "R64", "depth": 6, "chips": 4, "arrangement": "2x2", "shape": (4, 40)}, "no whole words"),
        ({"length": 99999}, "header of 99999 bytes"),
        ({"shape": (0, 8)}, "8 x 0 pixels"),
        ({"shape": (9999, 9999)}, "frame of 99980385 bytes"),
    ],
)
def test_what_is_refused(tmp_path, change, words):
    keywords = {"shape": (4, 64), "kind": "U08"} | change
    raw = mib_head(1, **keywords)
    (tmp_path / "a.mib").write_bytes(raw + bytes(4096))
    with pytest.raises(mrcz.FormatError, match=rf"a\.mib: .*{words}"):
        mrcz.open(tmp_path / "a.mib")


def test_counts_above_the_depth_are_damage(tmp_path):
    path = write(tmp_path / "a.mib", np.full((1, 1, 64), 0x1FFF), "R64", 12)
    with pytest.raises(mrcz.ChunkError, match="frame 0, offset 0: a count of 8191 in counters of 12 bits"):
        mrcz.read(path)


def test_every_byte_changed_and_every_truncation(tmp_path, still):
    for path in seeds_mib(tmp_path):
        raw = path.read_bytes()
        other = path.with_name("b.mib")
        step = 384 if path.stem != "quad" else 768
        # Each byte of what says where the pixels are and of the second header's, and some of all others.
        for at in [*range(4, 60), *range(60, len(raw), 37), *range(len(raw) // 2, len(raw) // 2 + 50, 3)]:
            rewrite(other, flipped(raw, at, 0x11 if at % 2 else 0xFF))
            survives(other)
        for size in [*range(4, step, 29), *range(len(raw) - 9, len(raw))]:
            rewrite(other, raw[:size])
            assert survives(other) is None
