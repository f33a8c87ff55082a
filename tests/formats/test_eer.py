"""Electron-event files (EER), made after "EER File Format" 3.0; against tifffile, imagecodecs and RELION."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
import tifffile
from formats.seeds import seeds_eer
from reference import eer_plain as plain
from rewriting import rewrite

import mrcz
from mrcz.formats import eer, registry
from mrcz.storage.source import open_source

SHAPE = (24, 40)
TOTAL = SHAPE[0] * SHAPE[1]
CODES = {65000: (8, 2, 2), 65001: (7, 2, 2), 65002: (7, 1, 1)}
ACQUISITION = plain.metadata(
    [
        ("acquisitionID", None, "7"),
        ("cameraName", None, "BM-Falcon"),
        ("commercialName", None, "Falcon 4i"),
        ("eerGainReference", None, "20230101_120000_EER_GainReference.gain"),
        ("exposureTime", "s", "2.8"),
        ("meanDoseRate", "e/pixel/s", "8.25"),
        ("numberOfFrames", None, "7"),
        ("sensorImageHeight", "pixels", SHAPE[0]),
        ("sensorPixelSize.height", "m", "7.06e-11"),
        ("sensorPixelSize.width", "m", "7.07e-11"),
        ("timestamp", None, "2023-03-03T10:11:12.345+01:00"),
        ("totalDose", "e/pixel", "23.1"),
    ]
)


def electrons(seed, share=0.05, code=(7, 2, 2), total=TOTAL):
    rng = np.random.default_rng(seed)
    pixels = np.flatnonzero(rng.random(total) < share).tolist()
    return list(zip(pixels, rng.integers(0, 2 ** sum(code[1:]), len(pixels)).tolist(), strict=True))


def packed(events, code=(7, 2, 2), total=TOTAL, **how):
    pixels, places = ([event[k] for event in events] for k in (0, 1))
    return plain.encode(pixels, places, total, code, **how)


def about(k):
    return plain.metadata([("frameID", None, k), ("timestamp", None, f"T{k}"), ("dose", "e/pixel", f"0.0{k}")])


def movie(n=7, compression=65001, share=0.05, *, wasteful=False, strips=1, final=False, order="<", big=True, **more):
    """(electrons of each frame, the bytes of the file)."""
    code = CODES[compression]
    frames = [electrons(k, share, code) for k in range(n)]
    stored = code if compression == 65002 else None
    directories = [
        plain.eer_fields(
            packed(frame, code, wasteful=wasteful),
            SHAPE,
            compression,
            code=stored,
            strips=strips,
            about=about(k),
            acquisition=ACQUISITION if k == 0 and not final else None,
            **more,
        )
        for k, frame in enumerate(frames)
    ]
    if final:
        image = np.arange(TOTAL, dtype="u2").reshape(SHAPE) * 7
        made = plain.metadata([("binning", None, 2), ("exposureTime", "s", "2.9"), ("numberOfFrames", None, 7)])
        directories.insert(0, plain.final_fields(image, about=made, acquisition=ACQUISITION, order=order))
    return frames, plain.directory_file(directories, order=order, big=big)


def images(frames, code=(7, 2, 2), upsampling=1, fraction=1):
    each = np.array([plain.image(frame, SHAPE, code, upsampling) for frame in frames])
    return np.array([each[k : k + fraction].sum(0) for k in range(0, len(each), fraction)])


@pytest.fixture
def put(tmp_path):
    def write(raw, name="a.eer"):
        rewrite(tmp_path / name, raw)
        return tmp_path / name

    return write


@pytest.mark.parametrize("strips", [1, 5])
@pytest.mark.parametrize(("order", "big"), [("<", True), (">", True), ("<", False), (">", False)])
@pytest.mark.parametrize(("compression", "wasteful"), [(65000, False), (65000, True), (65001, False), (65002, False)])
def test_frames(put, compression, wasteful, order, big, strips):
    frames, raw = movie(3, compression, wasteful=wasteful, strips=strips, order=order, big=big)
    code = CODES[compression]
    with mrcz.open(put(raw)) as reader:
        assert (reader.format, reader.shape, reader.dtype) == ("eer", (3, *SHAPE), np.dtype("u1"))
        assert (reader.codec, reader.kind, reader.oddities) == (f"eer {compression}", "stack", ())
        np.testing.assert_array_equal(reader.read(), images(frames, code))
        np.testing.assert_array_equal(reader[-1, 3:7, ::3], images(frames, code)[-1, 3:7, ::3])
        np.testing.assert_array_equal(reader.sum(), images(frames, code).sum(0))


@pytest.mark.parametrize("upsampling", [1, 2, 4])
@pytest.mark.parametrize("fraction", [1, 2, 3, 7, 50])
def test_fractions_and_finer_grids(put, fraction, upsampling):
    frames, raw = movie(7)
    wanted = images(frames, upsampling=upsampling, fraction=fraction)
    with mrcz.open(put(raw), fraction=fraction, upsampling=upsampling) as reader:
        assert reader.shape == wanted.shape and reader.shape[0] == -(-7 // fraction)
        np.testing.assert_array_equal(reader.read(), wanted)
        np.testing.assert_array_equal(reader.sum(n_threads=2), wanted.sum(0))
        np.testing.assert_array_equal(reader.sum(frames=[0]), wanted[0])
        assert reader.pixel_size[:2] == pytest.approx((0.707 / upsampling, 0.706 / upsampling), abs=0, rel=1e-15)
        members = [min(fraction, 7 - k) for k in range(0, 7, fraction)]
        assert [one["frames"] for one in reader.frame_metadata] == members
        assert reader.metadata["frame_time"] == pytest.approx(0.4 * min(fraction, 7), rel=1e-15)
        short = [oddity for oddity in reader.oddities if "fractions" in oddity]
        assert bool(short) == (members[-1] != members[0])


def test_the_last_fraction_is_shorter_and_said_to_be(put):
    frames, raw = movie(7)
    with mrcz.open(put(raw), fraction=3) as reader:
        assert reader.oddities == ("the last of 3 fractions has 1 frames, the others 3",)
        np.testing.assert_array_equal(reader[2], images(frames)[6])


def test_counts_fit_their_pixels(put):
    full = packed([(0, 0), (1, 0)], total=2)
    for n, fraction, dtype in ((256, 255, "u1"), (256, 256, "u2"), (300, 300, "u2"), (255, 1000, "u1")):
        raw = plain.directory_file([plain.eer_fields(full, (1, 2))] * n)
        with mrcz.open(put(raw), fraction=fraction) as reader:
            assert reader.dtype == dtype
            assert (reader[0] == min(n, fraction)).all()
            assert (reader.sum() == n).all()


def test_metadata(put):
    _, raw = movie(7, orientation=5)
    with mrcz.open(put(raw)) as reader:
        found = reader.metadata
        original = found.pop("original")["eer"]
        assert found == {
            "pixel_size": [0.707, 0.706],
            "dose_per_pixel": 23.1,
            "dose_rate": 8.25,
            "exposure_time": 2.8,
            "frame_time": 0.4,
            "frames": 7,
            "timestamp": "2023-03-03T10:11:12.345+01:00",
            "camera": "BM-Falcon",
            "gain_file": "20230101_120000_EER_GainReference.gain",
        }
        assert original["acquisition"] == ACQUISITION.decode()
        assert (original["compression"], original["code"], original["orientation"]) == (65001, [7, 2, 2], 5)
        assert reader.frame_metadata[3] == {
            "frames": 1,
            "timestamp": "T3",
            "dose_per_pixel": 0.03,
            "original": {"eer": [about(3).decode()]},
        }
    with mrcz.open(put(raw), fraction=4) as reader:
        assert [one["timestamp"] for one in reader.frame_metadata] == ["T0", "T4"]
        assert [one["dose_per_pixel"] for one in reader.frame_metadata] == [0.06, 0.15]


@pytest.mark.parametrize(
    ("items", "name"),
    [
        ([("exposureTime", "ms", 3)], "exposure_time"),
        ([("exposureTime", None, 3)], "exposure_time"),
        ([("totalDose", "e/pixel", "nan")], "dose_per_pixel"),
        ([("totalDose", "e/pixel", "1e999")], "dose_per_pixel"),
        ([("totalDose", "e/pixel", "much")], "dose_per_pixel"),
        ([("sensorPixelSize.width", "m", "7e-11")], "pixel_size"),
        # of the sensor itself: not at the specimen
        ([("sensorPixelSize.width", "m", "1.4e-5"), ("sensorPixelSize.height", "m", "1.4e-5")], "pixel_size"),
        ([("sensorPixelSize.width", "m", "0"), ("sensorPixelSize.height", "m", "0")], "pixel_size"),
        ([("sensorPixelSize.width", "m", "1e-9999"), ("sensorPixelSize.height", "m", "7e-11")], "pixel_size"),
        # old versions of EPU counted other frames than they stored
        ([("exposureTime", "s", 3), ("numberOfFrames", None, 1)], "frame_time"),
        ([("numberOfFrames", None, "7.5")], "frames"),
    ],
)
def test_what_is_not_said_is_absent(put, items, name):
    raw = plain.directory_file([plain.eer_fields(packed(electrons(0)), SHAPE, acquisition=plain.metadata(items))] * 7)
    with mrcz.open(put(raw)) as reader:
        assert name not in reader.metadata


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"<metadata><item>", "no XML"),
        (b"no markup", "no <metadata> in it"),
        (b"\xff\xfe\x00<metadata", "no XML"),
        (b'<metadata><!DOCTYPE a [<!ENTITY b "c">]><item name="totalDose">&b;</item></metadata>', "document type"),
    ],
)
def test_metadata_that_are_no_xml_are_kept_as_they_are(put, text, words):
    raw = plain.directory_file([plain.eer_fields(packed(electrons(0)), SHAPE, acquisition=text)])
    with mrcz.open(put(raw)) as reader:
        assert any(words in oddity for oddity in reader.oddities)
        assert reader.metadata["original"]["eer"]["acquisition"] == text.decode("utf-8", "replace")
        assert set(reader.metadata) == {"original"}


def test_no_entity_is_expanded_and_a_declaration_before_is_passed_over(put):
    bomb = b'<?xml version="1.0" encoding="utf - 8"?><!DOCTYPE x [<!ENTITY a "aaaa">]>' + plain.metadata(
        [("cameraName", None, "&a;"), ("totalDose", "e/pixel", 3)]
    )
    raw = plain.directory_file([plain.eer_fields(packed(electrons(0)), SHAPE, acquisition=bomb)])
    with mrcz.open(put(raw)) as reader:
        assert any("no XML" in oddity for oddity in reader.oddities)  # the entity is of no document
    declared = b'<?xml version="1.0" encoding="utf - 8"?>' + ACQUISITION + b"\0"
    raw = plain.directory_file([plain.eer_fields(packed(electrons(0)), SHAPE, acquisition=declared)])
    with mrcz.open(put(raw)) as reader:
        assert reader.metadata["dose_per_pixel"] == 23.1 and reader.oddities == ()


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_final_image_is_no_frame(put, order):
    frames, raw = movie(7, final=True, order=order)
    with mrcz.open(put(raw)) as reader:
        assert reader.shape == (7, *SHAPE)
        np.testing.assert_array_equal(reader.read(), images(frames))
        assert reader.metadata["dose_per_pixel"] == 23.1
        assert "binning" in reader.metadata["original"]["eer"]["final"]
    with mrcz.open(put(raw), dataset="final") as reader:
        assert (reader.shape, reader.dtype, reader.kind) == ((1, *SHAPE), np.dtype(order + "u2"), "image")
        np.testing.assert_array_equal(reader.data, np.arange(TOTAL, dtype="u2").reshape(SHAPE) * 7)
        assert (reader.metadata["exposure_time"], reader.metadata["binning"]) == (2.9, 2)
        assert reader.metadata["pixel_size"] == [1.414, 1.412]
    _, raw = movie(2)
    with pytest.raises(mrcz.FormatError, match="no final image"):
        mrcz.open(put(raw), dataset="final")
    with pytest.raises(ValueError, match="'frames' and 'final'"):
        mrcz.open(put(raw), dataset="sum")


def test_other_directories_are_passed_over(put):
    frames = [electrons(k) for k in range(2)]
    fields = [plain.eer_fields(packed(frame), SHAPE) for frame in frames]
    other = [(256, 4, 9), (257, 4, 9), (259, 3, 5), ("strips", 0, [b"abc"])]
    with mrcz.open(put(plain.directory_file([fields[0], other, fields[1]]))) as reader:
        np.testing.assert_array_equal(reader.read(), images(frames))
        assert reader.oddities == ("1 directories of other compressions are passed over",)


def test_what_is_an_eer_file(put):
    fields = plain.eer_fields(packed(electrons(0)), SHAPE)
    plain_image = plain.final_fields(np.zeros(SHAPE, "u2"))
    for directories, known in (
        ([fields], True),
        ([plain_image, fields], True),
        ([plain_image], False),
        ([plain_image, plain_image, fields], False),
    ):
        source = open_source(put(plain.directory_file(directories)))
        assert eer.matches(source) == known
        found = registry.find_format(source)
        assert (found is not None and found.name == "eer") == known
        source.close()
    names = [one.name for one in registry.BUILT_IN]
    assert "tiff" not in names or names.index("eer") < names.index("tiff")


def test_electrons_one_by_one(put):
    frames, raw = movie(2, 65002)
    source = open_source(put(raw))
    opened = eer.open_frames(source, registry.FormatOptions())
    x, y = opened.read_events(1)
    fine = images(frames, CODES[65002], 2)[1]
    assert len(x) == len(frames[1])
    counted = np.zeros_like(fine)
    np.add.at(counted, (y, x), 1)
    np.testing.assert_array_equal(counted, fine)
    source.close()


def test_finer_than_is_stored(put):
    _, raw = movie(1, 65002)
    with mrcz.open(put(raw), upsampling=2):
        pass
    with pytest.raises(ValueError, match="places of 1 and 1 bits are stored: 2 at most"):
        mrcz.open(put(raw), upsampling=4)


def test_the_two_ways_of_65000_are_told_by_the_whole_file(put):
    """A frame without a run of 255 says nothing, and a damaged one is not read the other way."""
    code = (8, 2, 2)
    dense, sparse = [(k, 3) for k in range(0, TOTAL, 50)], [(3, 1), (700, 2)]
    for wasteful in (False, True):
        stored = [packed(frame, code, wasteful=wasteful) for frame in (dense, sparse)]
        wrong = packed(sparse, code, wasteful=not wasteful)
        raw = plain.directory_file([plain.eer_fields(one, SHAPE, 65000) for one in (*stored, wrong)])
        with mrcz.open(put(raw)) as reader:
            np.testing.assert_array_equal(reader[:2], images([dense, sparse], code))
            with pytest.raises(mrcz.ChunkError, match="frame 2"):
                reader[2]


# ---- against other programs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [65000, 65001, 65002])
def test_tifffile_sees_the_same(put, compression):
    frames, raw = movie(4, compression)
    path = put(raw)
    with tifffile.TiffFile(path) as other, mrcz.open(path) as reader:
        assert other.is_eer and len(other.pages) == 4
        for k, page in enumerate(other.pages):
            np.testing.assert_array_equal(reader[k], page.asarray())
        assert other.eer_metadata["totalDose"] == reader.metadata["dose_per_pixel"]
    np.testing.assert_array_equal(images(frames, CODES[compression]).sum((1, 2)), [len(frame) for frame in frames])


FALCON_4 = (4096, 4096)  # RELION renders no other


def through_relion(folder, frames, compression, *options, wasteful=False):
    """What relion_convert_to_tiff makes of these frames: TIFF is upside down to it, when written and when read."""
    stored = [packed(one, CODES[compression], FALCON_4[0] * FALCON_4[1], wasteful=wasteful) for one in frames]
    raw = plain.directory_file([plain.eer_fields(one, FALCON_4, compression) for one in stored])
    (folder / "m.eer").write_bytes(raw)
    (folder / "list.lst").write_text("m.eer\n")
    command = ["relion_convert_to_tiff", "--i", "list.lst", "--o", "out/", "--eer_grouping", "2", *options]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)
    made = tifffile.imread(folder / "out" / "m.tif")
    return made.reshape(-1, *made.shape[-2:])[:, ::-1]


@pytest.mark.skipif(shutil.which("relion_convert_to_tiff") is None, reason="RELION is not installed (Debian: relion)")
def test_relion_sees_the_same_and_multiplies_by_the_gain(tmp_path):
    """Frames and the ``.gain`` lie alike, and the gain multiplies."""
    from mrcz.session.references import load_gain

    gain = np.ones(FALCON_4, np.float32)
    gain[10, 20], gain[30, 50], gain[4000, 100] = 2, 0, 0.5
    tifffile.imwrite(tmp_path / "g.tif", gain)
    (tmp_path / "g.tif").rename(tmp_path / "g.gain")
    frames = [electrons(k, 0.0005, total=gain.size) for k in range(3)]
    theirs = through_relion(tmp_path, frames, 65001, "--gain", "g.gain")
    with mrcz.open(tmp_path / "m.eer", fraction=2) as reader:
        assert reader.shape[0] == 2 and len(theirs) == 1  # RELION drops the last frame, a shorter fraction
        np.testing.assert_array_equal(reader[:1], theirs)
        assert reader[1].sum() == len(frames[2])
    multiplied = mrcz.read(tmp_path / "out" / "gain-reference.mrc")[0]
    np.testing.assert_array_equal(load_gain(tmp_path / "g.gain"), multiplied)
    np.testing.assert_array_equal(multiplied, gain)


@pytest.mark.skipif(shutil.which("relion_convert_to_tiff") is None, reason="RELION is not installed (Debian: relion)")
def test_relion_reads_65000_with_a_place_behind_each_run_of_255(tmp_path):
    """And where an electron lies in its pixel, of which an image of 8K has half of the bits."""
    frames = [electrons(k, 0.0005, (8, 2, 2), FALCON_4[0] * FALCON_4[1]) for k in range(2)]
    theirs = through_relion(tmp_path, frames, 65000, "--eer_upsampling", "2", wasteful=True)
    with mrcz.open(tmp_path / "m.eer", fraction=2, upsampling=2) as reader:
        np.testing.assert_array_equal(reader.read(), theirs)


# ---- bad input ------------------------------------------------------------------------------------------------


def test_each_truncation_is_an_error_or_changes_nothing(put, still):
    frames, raw = movie(2, 65000, strips=2)
    wanted = images(frames, CODES[65000])
    for n in range(len(raw)):
        path = put(raw[:n])
        try:
            with mrcz.open(path) as reader:
                np.testing.assert_array_equal(reader.read(), wanted)
        except (mrcz.MrczError, EOFError) as error:
            assert "a.eer" in str(error) or n < 1024, n


def test_a_flipped_bit_in_each_byte_is_an_error_or_another_file(put, still):
    """No crash, no foreign exception and no other shape than a field says; flips in the frames: tests/core."""
    _, raw = movie(2, strips=1)
    path = put(raw)
    for byte in range(len(raw)):
        damaged = bytearray(raw)
        damaged[byte] ^= 1 << 5 * byte % 8
        rewrite(path, damaged)
        try:
            with mrcz.open(path) as reader:
                assert reader.read().nbytes < 1 << 20
                assert len(reader.frame_metadata) == len(reader)
        except mrcz.MrczError:
            pass


@pytest.mark.parametrize("side", [4096, 65535, 65536, 1 << 31])
def test_claims_take_no_memory(put, side):
    fields = plain.eer_fields(packed(electrons(0)), (side, side))
    with pytest.raises(mrcz.FormatError, match=r"cannot be the runs of|pixels"):
        mrcz.open(put(plain.directory_file([fields])))


def test_a_claim_that_could_be_is_followed_before_memory_is_taken(put, monkeypatch):
    """Runs of 16 bits: a frame of 20 kilobytes may well have 300 million pixels, here it has not."""
    raw = b"\xff\xff" * 10000 + b"\x00\x01" * 100
    path = put(plain.directory_file([plain.eer_fields(raw, (20000, 32000), 65002, code=(16, 0, 0))]))
    with mrcz.open(path) as reader:
        taken = []
        monkeypatch.setattr(np, "empty", lambda *a, **k: taken.append(a) or np.zeros(1))
        with pytest.raises(mrcz.ChunkError, match="frame 0"):
            reader.read()
        assert not taken


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({256: (4, 0)}, "frame of 24 x 0"),
        ({256: (4, 41)}, "frame 1 has compression 65001 and 24 x 41 pixels, the first 65001 and 24 x 40"),
        ({259: (3, 65000)}, "frame 1 has compression 6500[01]"),
        ({256: None}, "tag 256 has 0 numbers"),
        ({257: (7, b"abcd")}, "tag 257 has 0 numbers"),
        ({273: None}, "0 offsets and 1 sizes"),
        ({279: (16, [1, 2])}, "1 offsets and 2 sizes"),
        ({279: (16, 1 << 40)}, "ends beyond the file's"),
        ({273: (16, 1 << 63)}, "ends beyond the file's"),
        ({279: (16, 3)}, "3 bytes, which cannot be the runs"),
        ({65007: (3, 0)}, None),
    ],
)
@pytest.mark.parametrize("where", [0, 1])
def test_sizes_that_lie(put, change, words, where):
    directories = [plain.eer_fields(packed(electrons(k)), SHAPE) for k in range(2)]
    raw = plain.directory_file(directories)
    parsed = plain.directory_file(
        [*directories[:where], _changed(directories[where], change, raw), *directories[where + 1 :]]
    )
    if words is None:
        mrcz.open(put(parsed)).close()  # a field of another compression
        return
    other = words.startswith("frame 1")  # it is the second that differs from the first, whichever was changed
    with pytest.raises(mrcz.FormatError, match="frame 1 has" if other else words) as caught:
        mrcz.open(put(parsed))
    assert f"a.eer: directory {1 if other else where} at byte" in str(caught.value)


def _changed(fields, change, raw):
    """Fields with others in their place; a strip's own place and size are those it has in the file as it was."""
    found = {tag: (tag, kind, value) for tag, kind, value in fields}
    strip = found.pop("strips")[2][0]
    found[273] = (273, 16, raw.index(strip))
    found[279] = (279, 16, len(strip))
    for tag, value in change.items():
        found.pop(tag, None)
        if value is not None:
            found[tag] = (tag, *value)
    return list(found.values())


@pytest.mark.parametrize("code", [(0, 2, 2), (1, 2, 2), (17, 2, 2), (7, 5, 2), (7, 2, 5), (7, 65535, 2), None])
def test_codes_that_no_camera_writes(put, code):
    fields = plain.eer_fields(packed(electrons(0)), SHAPE, 65002, code=code)
    with pytest.raises(mrcz.FormatError, match=r"no camera writes|tag 65007 has 0 numbers"):
        mrcz.open(put(plain.directory_file([fields])))


def test_a_damaged_frame_is_named(put):
    _, raw = movie(6)
    stored = [packed(electrons(k)) for k in range(6)]
    at = raw.index(stored[4])
    path = put(raw[:at] + b"\xff" * len(stored[4]) + raw[at + len(stored[4]) :])
    with mrcz.open(path) as reader:
        np.testing.assert_array_equal(reader[3], images([electrons(3)])[0])
        with pytest.raises(mrcz.ChunkError, match=rf"frame 4, offset {at}: a run of empty pixels ends at pixel \d+"):
            reader[4]
        with pytest.raises(mrcz.ChunkError, match=f"frame 4, offset {at}"):
            reader.sum()
    with mrcz.open(path, fraction=3) as reader:
        with pytest.raises(mrcz.ChunkError, match=rf"frame 1, offset {at}: frame 4 of the camera: a run"):
            reader.read()


def test_permissive_takes_the_frames_that_are_there(put):
    frames, raw = movie(5)
    stored = packed(electrons(3))
    cut = raw[: raw.index(stored) + 5]
    with pytest.raises(mrcz.FormatError):
        mrcz.open(put(cut))
    with pytest.warns(mrcz.errors.FormatWarning, match="3 frames before it are there"):
        reader = mrcz.open(put(cut), permissive=True)
    with reader:
        np.testing.assert_array_equal(reader.read(), images(frames[:3]))


def test_directories_go_in_no_circle(put):
    _, raw = movie(3)
    first = int.from_bytes(raw[8:16], "little")
    count = int.from_bytes(raw[first : first + 8], "little")
    link = first + 8 + 20 * count
    with pytest.raises(mrcz.FormatError, match="it is a loop"):
        mrcz.open(put(raw[:link] + raw[8:16] + raw[link + 8 :]))
    # each a few bytes after the other: many of them in a small file
    body = bytearray(raw[:link] + bytes(8))
    with pytest.raises(mrcz.FormatError):
        for k in range(40):
            at = len(body)
            body[link : link + 8] = (at - 4).to_bytes(8, "little")
            link = at + 8 + 20
            body += (1).to_bytes(4, "little") + bytes(4) + raw[first + 8 : first + 28] + bytes(8) + bytes([k])
        mrcz.open(put(bytes(body)))


def test_seeds_are_whole_files(tmp_path):
    for path in seeds_eer(tmp_path):
        with mrcz.open(path) as reader:
            assert reader.format == "eer" and reader.shape == (4, 16, 40)
            assert 0 < reader.read().sum() < 4 * 16 * 40
