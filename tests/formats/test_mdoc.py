"""SerialEM's .mdoc: real files, hand-made ones (SerialEM's help, "File Formats"), and damaged ones."""

from __future__ import annotations

import itertools
import time
import tracemalloc

import pytest

from mrcz.errors import FormatError
from mrcz.formats import mdoc


@pytest.fixture
def real(data_dir):
    folder = data_dir / "star-mdoc"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return lambda name: mdoc.parse((folder / name).read_bytes())


def text(*lines: str) -> mdoc.Mdoc:
    return mdoc.parse("\n".join(lines).encode())


def test_a_frame_set(real):
    parsed = real("frame_set_single.mdoc")
    (section,) = parsed.sections
    assert (section.kind, section.name) == ("FrameSet", "0")
    values, frames, notes = mdoc.of_movie(parsed, section)
    assert values == {
        "voltage": 300.0,
        "dose": 7.65892,
        "dose_rate": 4.97858,
        "exposure_time": 1.07856,
        "tilt": 32.984,
        "defocus": -5.08286,
        "magnification": 33000.0,
        "spot_size": 9,
        "stage": [-142.82, -457.442, -13.7196],
        "timestamp": "2021-10-08T07:39:08",
        "binning": 0.5,
        "gain_file": "SuperRef_s_mmm_00000_-15.0_Oct08_01.59.24.dm4",
        "frame_file": "s_mmm_00993_33.0_Oct08_07.39.05.tif",
        "frames": 12,
        "pixel_size": [1.2827, 1.2827],
        "frame_dose": 0.63824,
    }
    assert (frames, notes) == ([], [])
    assert abs(12 * values["frame_dose"] - values["dose"]) < 1e-4  # the units of both are the same
    # The words of the file, with CR and blanks removed.
    assert parsed.titles == ("SerialEM: UMass_Krios Camera -> 0:Ceta 1:GIF-K3         08-Oct-21  07:38:24",)
    said = parsed.verbatim(parsed.sections)
    assert said["global"] == {"Voltage": "300"}
    assert said["sections"][0]["UncroppedSize"] == "-2880 -2046"


def test_the_size_of_other_pixels_is_not_taken(real):
    parsed = real("frame_set_single.mdoc")
    values, _, notes = mdoc.of_movie(parsed, parsed.sections[0], (12, 4092, 5760))
    assert not {"pixel_size", "binning"} & set(values)
    assert notes == [
        "UncroppedSize = -2880 -2046, the frames are 5760 × 4092: its pixel size and binning are not theirs"
    ]
    # As it is, and turned by 90°.
    for shape in ((12, 2046, 2880), (12, 2880, 2046)):
        assert mdoc.of_movie(parsed, parsed.sections[0], shape)[0]["pixel_size"] == [1.2827, 1.2827]


def test_sections_that_are_not_frames_stay_in_the_words(real):
    parsed = real("frame_set_multiple.mdoc")
    assert [one.kind for one in parsed.sections] == ["FrameSet"] + ["ZValue"] * 20
    values, frames, _ = mdoc.of_movie(parsed, parsed.sections[0], (243, 5, 5))
    assert (values["frames"], values["frame_dose"], frames) == (243, 0.63882, [])
    words = parsed.verbatim(parsed.sections)["sections"][20]
    # FrameTSStartEndFrames counts from a frame that the file does not name: kept as it is, no frame gets a tilt.
    assert words["PriorRecordDose"] == "145.817" and words["FrameTSStartEndFrames"].count(" ") == 1


def test_a_tilt_series(real):
    parsed = real("tilt_series.mdoc")
    count = len(parsed.sections)
    values, frames, notes = mdoc.of_images(parsed, (count, 958, 924))
    assert notes == []
    assert values["tilt_axis"] == 85.3  # not RotationAngle, 175.3
    assert (values["pixel_size"], values["exposure_time"], values["binning"]) == ([5.4, 5.4], 0.8, 4.0)
    assert "dose" not in values and "tilt" not in values and "voltage" not in values  # ExposureDose = 0; no Voltage
    assert [one["tilt"] for one in frames[:5]] == [0.000999877, 3.00113, -2.99863, -5.99876, 6.00126]
    assert frames[3]["timestamp"] == "2015-11-30T15:25:13"
    assert frames[1]["stage"] == [20.7926, 155.267, 163.803]
    # One of its movies.
    (section,) = mdoc.section_of(parsed, "TS_01_003_-6.0.mrc")
    assert (section.name, mdoc.of_movie(parsed, section)[0]["tilt"]) == ("3", -5.99876)
    assert mdoc.section_of(parsed, "ts_01_003_-6.0.mrcz") == [section]  # made from it
    assert mdoc.section_of(parsed, "TS_01_003_-6.mrc") == []


def test_frames_without_a_known_dose_and_newer_titles(real):
    parsed = real("murfey_test.mdoc")
    values, frames, _ = mdoc.of_movie(parsed, parsed.sections[0])
    assert "frame_dose" not in values and frames == []  # FrameDosesAndNumber = 0 7  0 3
    assert (values["voltage"], values["dose_rate"], values["tilt_axis"]) == (300.0, 5.45454, 83.8)
    assert values["frame_file"] == "chrom_07_ts_010_167_000_-0.0.mrc"  # of \\192.168.10.81\…


@pytest.mark.parametrize(("name", "axis"), [("gm.mrc.mdoc", 90.6), ("montage_section.mdoc", -86.7)])
def test_montages(real, name, axis):
    parsed = real(name)
    pieces = [one for one in parsed.sections if one.kind == "ZValue"]
    assert {one.kind for one in parsed.sections} == {"ZValue", "MontSection"}
    size = [int(n) for n in parsed.whole.entries["ImageSize"][0].split()]
    values, frames, _ = mdoc.of_images(parsed, (len(pieces), size[1], size[0]))
    assert values["tilt_axis"] == axis
    assert values["pixel_size"][0] == float(parsed.whole.entries["PixelSpacing"][0])
    assert all("stage" in one for one in frames)


def test_each_frame_has_its_dose():
    parsed = text("[FrameSet = 0]", "FrameDosesAndNumber = 0.5 2 1.25 1")
    values, frames, _ = mdoc.of_movie(parsed, parsed.sections[0], (3, 4, 5))
    assert (values, frames) == ({}, [{"frame_dose": 0.5}, {"frame_dose": 0.5}, {"frame_dose": 1.25}])
    assert mdoc.of_movie(parsed, parsed.sections[0], (4, 4, 5))[1] == []


@pytest.mark.parametrize("said", ["0.5 1e30", "0.5 2.5", "nan 3", "-1 3", "0.5", "x 3", "0.5 99999999", ""])
def test_doses_that_are_none(said):
    parsed = text("[FrameSet = 0]", f"FrameDosesAndNumber = {said}", "Voltage = 300")
    assert mdoc.of_movie(parsed, parsed.sections[0], (3, 4, 5))[:2] == ({"voltage": 300.0}, [])


def test_all_the_rest():
    parsed = text(
        "[T = a] title]",
        "[FrameSet = 0]",
        "RotationAndFlip = 7",
        r"DefectFile = C:\frames\defects_a.txt",
        "GainReference = /frames/Count.dm4",
        "TiltAxisAngle = -95.5",
        "StagePosition = 1 2",
        "DateTime = 05-Jan-2023  00:00:01",
    )
    assert mdoc.of_movie(parsed, parsed.sections[0])[0] == {
        "rotation_flip": 7,
        "defect_file": "defects_a.txt",
        "gain_file": "Count.dm4",
        "tilt_axis": -95.5,
        "stage": [1.0, 2.0],
        "timestamp": "2023-01-05T00:00:01",
    }
    assert parsed.titles == ("a] title",)


def test_a_key_with_two_values_has_none():
    parsed = text("[FrameSet = 0]", "TiltAngle = 3", "TiltAngle = 4", "SpotSize = 6", "SpotSize = 6")
    values, _, notes = mdoc.of_movie(parsed, parsed.sections[0])
    assert values == {"spot_size": 6}
    assert notes == ["TiltAngle has 2 values in [FrameSet = 0]: none is taken"]
    assert parsed.verbatim(parsed.sections)["sections"][0]["TiltAngle"] == ["3", "4"]


def test_images_that_are_told_of_twice_or_are_not_there():
    parsed = text("[ZValue = 0]", "TiltAngle = 3", "[ZValue = 1]", "TiltAngle = 6", "[ZValue = 1]", "TiltAngle = 9",
                  "[ZValue = 7]", "TiltAngle = 12", "[ZValue = -1]", "[ZValue = x]")  # fmt: skip
    values, frames, notes = mdoc.of_images(parsed, (3, 4, 5))
    assert (values, frames) == ({}, [{"tilt": 3.0}, {}, {}])
    assert notes == ["[ZValue = 1] is there twice: neither is taken", "[ZValue = 7], and there are 3 images"]


@pytest.mark.parametrize("date", ["32-Jan-21  1:00:00", "01-Foo-21 1:00:00", "2021-01-01 00:00:00", "01-Jan-21", "٣"])
def test_dates_that_are_none(date):
    parsed = text("[FrameSet = 0]", f"DateTime = {date}", "SpotSize = 6")
    assert mdoc.of_movie(parsed, parsed.sections[0])[0] == {"spot_size": 6}


@pytest.mark.parametrize("raw", [b"", b"no pair", b"[", b"\0" * 1000, b"[T = only a title]", bytes(range(128, 256))])
def test_what_is_no_mdoc(raw):
    with pytest.raises(FormatError, match=r"no key with a value in this \.mdoc"):
        mdoc.parse(raw)


def test_lines_that_are_no_pairs_are_noted():
    parsed = mdoc.parse("a = 1\r\n?\r\n[x\r\n[FrameSet = 0\r\n# = 3\r\nµ = ü".encode("latin-1"))
    assert parsed.notes == ("lines that are no key with a value: 2, the first '?'",)
    assert (parsed.sections[0].name, parsed.sections[0].entries) == ("0", {"µ": ["ü"]})


@pytest.mark.parametrize("line", ["a", "=", "[a=b]", "{}="])
def test_many_lines_take_bounded_memory(line, monkeypatch):
    """A tenth of the lines that are read, and so a tenth of the memory, as tracemalloc is slow."""
    monkeypatch.setattr(mdoc, "_LINES", mdoc._LINES // 10)
    raw = "\n".join(["k = v", *(line.format(k) for k in range(60_000))]).encode()
    tracemalloc.start()
    with pytest.raises(FormatError, match="more than 30000 lines"):
        mdoc.parse(raw)
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()


def test_a_large_file_is_refused():
    with pytest.raises(FormatError, match="are read at most"):
        mdoc.parse(bytes(100 << 20))


def _hostile():
    blanks = " " * (4 << 20)
    yield f"[a=x{blanks}x]\nb=1"
    yield f"[a{blanks}=x]\nb=1"
    yield f"a = 1\n[T = Tilt axis angle{blanks}="
    yield f"[FrameSet = 0]\nDateTime = 01-Jan-21{blanks}x"
    yield "[FrameSet = 0]\nStagePosition = " + "1 " * (3 << 20)
    yield "[FrameSet = 0]\nFrameDosesAndNumber = " + "1 65535 " * (1 << 19)
    yield "".join(f"[ZValue = {k}]\na=\nTiltAngle = 1\nTiltAngle = 2\n" for k in range(30_000))
    yield "[ZValue = 1]\n" * 100_000


@pytest.mark.parametrize("which", range(8))
def test_no_text_is_looked_at_again_and_again(which):
    """Each of these once took, or would with another way of reading take, the square of its length."""
    hostile = next(itertools.islice(_hostile(), which, None))
    begun = time.process_time()
    parsed = mdoc.parse(hostile.encode())
    for section in parsed.sections[:1]:
        mdoc.of_movie(parsed, section, (3, 4, 5))
        mdoc.section_of(parsed, "a.mrc")
    _, _, notes = mdoc.of_images(parsed, (100_000, 4, 5))
    assert len(notes) <= 100
    assert time.process_time() - begun < 10


def test_each_truncation_and_each_byte(real, data_dir):
    raw = (data_dir / "star-mdoc" / "frame_set_single.mdoc").read_bytes()
    damaged = [raw[:n] for n in range(len(raw))]
    damaged += [raw[:n] + bytes([raw[n] ^ change]) + raw[n + 1 :] for n in range(len(raw)) for change in (1, 128, 255)]
    for one in damaged:
        try:
            parsed = mdoc.parse(one)
        except FormatError:
            continue
        for section in parsed.sections:
            mdoc.of_movie(parsed, section, (12, 2046, 2880))
        mdoc.of_images(parsed, (2, 3, 4))
