"""Who says what of how a file was taken: the file, its headers, what lies beside it; and when they do not agree."""

from __future__ import annotations

import gzip
import io
import os
import re
import shutil

import numpy as np
import pytest
from formats.seeds import seeds_eer

import mrcz
from mrcz.file.acquisition import _same

SET = "Voltage = 300\n\n[FrameSet = 0]\n"
EPU = (
    "<MicroscopeImage xmlns='http://schemas.datacontract.org/2004/07/Fei.SharedObjects'><microscopeData><gun>"
    "<AccelerationVoltage>{}</AccelerationVoltage></gun></microscopeData></MicroscopeImage>"
)


@pytest.fixture
def movie(tmp_path):
    def make(name="a.mrc", shape=(3, 4, 5), **words):
        mrcz.write(tmp_path / name, np.ones(shape, "i1"), overwrite=True, **words)
        return tmp_path / name

    return make


def asked(path):
    with mrcz.open(path) as reader:
        return reader.acquisition


def test_nobody_says_anything(movie):
    found = asked(movie())
    assert (found.values, found.sources, found.conflicts, found.frames) == ({}, {}, {}, [])
    assert (found.original, found.notes) == ({}, ())


@pytest.mark.parametrize("name", ["a.mrc.mdoc", "a.mdoc", "a.tif.mdoc", "a.eer.mdoc"])
def test_an_mdoc_of_frames(movie, tmp_path, name):
    path = movie()
    (tmp_path / name).write_text(
        SET + "SubFramePath = X:\\frames\\a.tif\nTiltAngle = 3.5\nFrameDosesAndNumber = 1 2 2 1"
    )
    found = asked(path)
    assert found.values == {"voltage": 300.0, "tilt": 3.5, "frame_file": "a.tif"}
    assert found.sources == dict.fromkeys(("voltage", "tilt", "frame_file"), name)
    assert [one["frame_dose"] for one in found.frames] == [1.0, 1.0, 2.0]
    assert found.original[name]["global"] == {"Voltage": "300"}
    assert found.notes == ()


def test_of_a_foreign_file_and_of_one_inside_gzip(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((3, 4, 5)))
    (tmp_path / "a.npy.mdoc").write_text(SET)
    assert asked(tmp_path / "a.npy").sources == {"voltage": "a.npy.mdoc"}
    mrcz.write(tmp_path / "b.mrc", np.ones((3, 4, 5), "i1"))
    (tmp_path / "b.mrc.gz").write_bytes(gzip.compress((tmp_path / "b.mrc").read_bytes()))
    (tmp_path / "b.mrc.mdoc").write_text(SET)
    assert asked(tmp_path / "b.mrc.gz").sources == {"voltage": "b.mrc.mdoc"}


@pytest.mark.parametrize(
    ("name", "xml"),
    [
        ("FoilHole_1_Data_2_3_20250108_154918_Fractions.mrc", "FoilHole_1_Data_2_3_20250108_154918.xml"),
        ("FoilHole_1_Data_2_3_20250108_154918_fractions.mrc", "FoilHole_1_Data_2_3_20250108_154918.xml"),
        ("FoilHole_1_Data_2_3_20250108_154918_EER.mrc", "FoilHole_1_Data_2_3_20250108_154918.xml"),
        ("FoilHole_1_Data_2_3_20250108_154918.mrc", "FoilHole_1_Data_2_3_20250108_154918.xml"),
    ],
)
def test_xml_of_epu(movie, tmp_path, name, xml):
    (tmp_path / xml).write_text(EPU.format(200000))
    (tmp_path / "FoilHole_1_Data_2_3_20250108_154919.xml").write_text(EPU.format(100000))  # of another
    found = asked(movie(name))
    assert (found.values, found.sources) == ({"voltage": 200.0}, {"voltage": xml})
    assert found.original[xml] == EPU.format(200000)


def test_the_real_files_together(movie, tmp_path, data_dir):
    folder = data_dir.parent / "movies" / "epu"
    name = "FoilHole_9015883_Data_9017354_6_20250108_154918"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    shutil.copy(folder / f"{name}.xml", tmp_path)
    found = asked(movie(f"{name}_Fractions.mrc", (1, 2046, 2880), pixel_size=1.0559))
    assert (found.values["pixel_size"], found.sources["pixel_size"]) == ([1.0559, 1.0559], "header")
    assert found.values["dose"] == 14.557753315079335
    assert found.conflicts == {}  # 1.0559 is 1.05588…


def test_the_mdoc_of_a_series_tells_of_its_movie(movie, tmp_path):
    (tmp_path / "TS.mrc.mdoc").write_text(
        "ImageSize = 924 958\n[ZValue = 0]\nSubFramePath = D:\\x\\a.mrc\nTiltAngle = 3\n"
        "[ZValue = 1]\nSubFramePath = D:\\x\\b.mrc\nTiltAngle = 6\n"
    )
    (tmp_path / "other.mdoc").write_text("?")
    found = asked(movie("b.mrc"))
    assert (found.values["tilt"], found.sources["tilt"]) == (6.0, "TS.mrc.mdoc")
    assert [one["section"] for one in found.original["TS.mrc.mdoc"]["sections"]] == [["ZValue", "1"]]
    assert asked(movie("c.mrc")).values == {}
    # Two images of one movie: nobody knows which is meant.
    with open(tmp_path / "TS.mrc.mdoc", "a") as file:
        file.write("[ZValue = 2]\nSubFramePath = D:\\x\\b.mrc\nTiltAngle = 9\n")
    found = asked(movie("b.mrc"))
    assert (found.values, found.notes) == ({}, ("TS.mrc.mdoc: 2 sections tell of b.mrc: none is taken",))


def test_the_mdoc_of_a_series_tells_of_its_images(movie, tmp_path):
    (tmp_path / "TS.mrc.mdoc").write_text(
        "PixelSpacing = 5.4\nImageSize = 5 4\n[ZValue = 0]\nTiltAngle = 3\nSpotSize = 6\n"
        "[ZValue = 1]\nTiltAngle = 6\nSpotSize = 6\n"
    )
    found = asked(movie("TS.mrc", (2, 4, 5)))
    assert found.values == {"pixel_size": [5.4, 5.4], "spot_size": 6}
    assert [one["tilt"] for one in found.frames] == [3.0, 6.0]


def test_what_two_sources_state_differently(movie, tmp_path):
    path = movie("a.mrcz", voltage=200, c3=2.7)
    (tmp_path / "a.mdoc").write_text(SET + "Cs = 2.7000001")
    (tmp_path / "a.xml").write_text(EPU.format(300000))
    found = asked(path)
    assert (found.values, found.sources) == (
        {"voltage": 200.0, "cs": 2.7},
        {"voltage": "header", "cs": "header"},
    )
    assert found.conflicts == {"voltage": {"header": 200.0, "a.mdoc": 300.0, "a.xml": 300.0}}
    assert found.notes == ("voltage: 200.0 (header), 300.0 (a.mdoc), 300.0 (a.xml): the first is taken",)


def test_frames_of_which_two_sources_say_different_things(movie, tmp_path):
    kept = {"original": {}, "frame_metadata": [{"tilt": 3.0}, {"tilt": 5.0, "dose": 1.5}]}
    path = movie("TS.mrcz", (2, 4, 5), metadata=kept)
    (tmp_path / "TS.mdoc").write_text("[ZValue = 0]\nTiltAngle = 3\n[ZValue = 1]\nTiltAngle = 6\nSpotSize = 6")
    found = asked(path)
    assert found.frames == [{"tilt": 3.0}, {"tilt": 5.0, "dose": 1.5, "spot_size": 6}]
    assert found.notes == ("tilt of frame 1: 5.0, and 6.0 (TS.mdoc): the first is taken",)


def test_a_foreign_file_and_its_mdoc(tmp_path):
    """What the detector wrote into the file comes before what SerialEM wrote beside it."""
    path = next(path for path in seeds_eer(tmp_path) if path.name == "falcon4.eer")
    (tmp_path / "falcon4.eer.mdoc").write_text(SET + "NumSubFrames = 5\nExposureTime = 0.5\nTiltAngle = 3")
    found = asked(path)
    assert found.conflicts == {"frames": {"eer": 4, "falcon4.eer.mdoc": 5}}
    assert (found.values["frames"], found.values["tilt"], found.values["exposure_time"]) == (4, 3.0, 0.5)
    assert (found.sources["exposure_time"], found.sources["tilt"]) == ("eer", "falcon4.eer.mdoc")
    assert set(found.original) == {"eer", "falcon4.eer.mdoc"}


def test_a_file_made_of_a_foreign_one_keeps_what_that_said(movie):
    kept = {"tilt": 3.5, "voltage": "300 kV", "mine": 7, "original": {"dm": {"a": 1}}}
    found = asked(movie("a.mrcz", metadata=kept))
    assert (found.values, found.sources) == ({"tilt": 3.5}, {"tilt": "metadata"})
    assert found.original == {"metadata": {"dm": {"a": 1}}}
    # Without it nobody knows in which unit a caller's own numbers are.
    assert asked(movie("b.mrcz", metadata={"tilt": 3.5})).values == {}


@pytest.mark.parametrize(
    ("name", "raw", "words"),
    [
        ("a.mdoc", b"\0\1\2", "no key with a value"),
        ("a.mdoc", b"[FrameSet = 0]\na = 1\n[FrameSet = 1]", r"2 sections \[FrameSet\]"),
        ("a.xml", b"<a", "no XML"),
        ("a.xml", b"<a/>", "not of EPU's"),
        (
            "a.xml",
            b"<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><MicroscopeImage>&b;</MicroscopeImage>",
            "type",
        ),
        ("a.xml", b" " * (2 << 20), "more than 1048576 bytes"),
    ],
)
def test_a_damaged_file_beside_is_a_note(movie, tmp_path, name, raw, words):
    path = movie()
    (tmp_path / name).write_bytes(raw)
    found = asked(path)
    assert found.values == {}
    (note,) = found.notes
    assert note.startswith(f"{name}: ")
    assert re.search(words, note)


def test_a_huge_mdoc_is_refused_unread(movie, tmp_path):
    path = movie()
    with open(tmp_path / "a.mdoc", "wb") as file:
        file.truncate(100 << 20)
    assert asked(path).notes == ("a.mdoc: more than 8388608 bytes, which is not read",)


def test_what_is_no_file_is_not_opened(movie, tmp_path):
    path = movie()
    (tmp_path / "a.mdoc").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "a.xml")  # to open it would wait for ever
    assert asked(path).notes == ()


def test_no_name_in_a_file_is_followed(movie, tmp_path):
    """What an .mdoc names as the movie, its gain and its defects is a name, wherever it points."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "gain.mdoc").write_text(SET + "TiltAngle = 1")
    path = movie()
    (tmp_path / "a.mdoc").write_text(SET + "GainReference = sub/gain.mdoc\nDefectFile = ../../secret.txt")
    assert asked(path).values == {"voltage": 300.0, "gain_file": "gain.mdoc", "defect_file": "secret.txt"}


def test_an_mdoc_that_tells_of_another_movie_says_so(movie, tmp_path):
    path = movie()
    (tmp_path / "a.mdoc").write_text(SET + "SubFramePath = b.tif")
    assert asked(path).notes == ("a.mdoc: it is named after this file, and tells of b.tif",)


def test_a_folder_of_many_mdocs_is_searched_in_part(movie, tmp_path):
    for k in range(202):
        (tmp_path / f"s{k:03}.mdoc").write_text("a = 1")
    assert asked(movie()).notes == ("s200.mdoc: this one and 1 more .mdoc files were not searched",)


def test_bytes_in_memory_have_no_folder(movie, tmp_path, monkeypatch):
    path = movie("a.mrcz", voltage=300)
    (tmp_path / "a.mdoc").write_text(SET + "TiltAngle = 3")
    monkeypatch.chdir(tmp_path)
    with mrcz.open(io.BytesIO(path.read_bytes())) as reader:
        assert reader.acquisition.sources == {"voltage": "header"}


def test_files_beside_are_looked_for_only_when_asked(movie, tmp_path, monkeypatch):
    path = movie()
    monkeypatch.setattr("mrcz.formats.told._read", lambda *a: pytest.fail("looked"))
    with mrcz.open(path) as reader:
        reader.read(), reader.metadata, reader.frame_metadata, repr(reader)


def test_times_in_other_words_are_the_same():
    assert _same("2025-01-08T15:49:21.1049704+00:00", "2025-01-08T15:49:21")
    assert not _same("2025-01-08T15:49:21", "2025-01-08T15:59:21")
    assert _same([1.0, 2.0], [1.0, 2.0, 3.0]) and not _same([1.0, 2.0], [1.0, 2.1])
    assert not _same("300", 300.0) and _same("EF-CCD", "ef-ccd ") and _same(0.0, 0.0)
