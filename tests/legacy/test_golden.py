"""Files of mrcz 0.5.7 and 0.6.0 (tests/golden) give the pixels that were put in and the header those versions gave."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

import mrcz

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
CASES = {
    name: facts
    for manifest in sorted(GOLDEN.glob("manifest-*.json"))
    for name, facts in json.loads(manifest.read_text(encoding="utf-8")).items()
}


def digest(image):
    joined = np.concatenate(
        [np.asarray(frame).reshape(-1) for frame in (image if isinstance(image, list) else [image])]
    )
    return hashlib.sha256(joined.astype(joined.dtype.newbyteorder("<")).tobytes()).hexdigest()


def structure(image):
    return [list(frame.shape) for frame in image] if isinstance(image, list) else list(image.shape)


def told(value):
    """A header value of the manifest."""
    if isinstance(value, dict) and set(value) == {"array"}:
        return np.array(value["array"])
    if isinstance(value, dict) and set(value) == {"bytes"}:
        return value["bytes"].encode("latin-1")
    return value


def test_there_are_files_of_both_releases():
    assert len(CASES) > 70
    assert {path.name for path in GOLDEN.glob("0.*")} == set(CASES)
    assert sum(path.stat().st_size for path in GOLDEN.iterdir()) < 1 << 20


@pytest.mark.parametrize("name", CASES)
def test_pixels(name):
    facts = CASES[name]
    image, _ = mrcz.readMRC(GOLDEN / name)
    assert structure(image) == facts["given"]
    assert digest(image) == facts["sha256"]
    if facts["call"].get("dtype") != "uint4":
        assert np.asarray(image[0]).dtype.newbyteorder("=") == facts["dtype"]


@pytest.mark.parametrize("name", [name for name, facts in CASES.items() if "header" in facts])
def test_header(name):
    _, header = mrcz.readMRC(GOLDEN / name)
    for key, value in CASES[name]["header"].items():
        expected = told(value)
        if key == "packedBytes" and isinstance(expected, list):  # 0.5.7 forgot to take the number out of a tuple
            (expected,) = expected
        if isinstance(expected, (float, np.ndarray)):
            np.testing.assert_allclose(header[key], expected, rtol=1e-6, err_msg=key)
        else:
            assert header[key] == expected, key
    assert isinstance(header["minImage"], np.float32)
    assert isinstance(header["pixelsize"], np.ndarray)


@pytest.mark.parametrize("name", CASES)
def test_the_new_reader_agrees(name):
    facts = CASES[name]
    with mrcz.open(GOLDEN / name) as reader:
        frames = reader.read()
        assert reader.shape[0] == sum(shape[0] if len(shape) == 3 else 1 for shape in _shapes(facts["given"]))
        np.testing.assert_array_equal(np.concatenate([frame[np.newaxis] for frame in reader]), frames)
    assert digest(frames) == facts["sha256"]


def _shapes(given):
    return given if isinstance(given[0], list) else [given]


@pytest.mark.parametrize("name", [name for name, facts in CASES.items() if facts["call"].get("meta")])
def test_metadata(name):
    meta = CASES[name]["call"]["meta"]
    _, header = mrcz.readMRC(GOLDEN / name)
    assert {key: header[key] for key in ("angles", "who", "nested")} == {
        k: meta[k] for k in ("angles", "who", "nested")
    }
    assert header["voltage"] == 300  # the key of the header wins
    with mrcz.open(GOLDEN / name) as reader:
        assert reader.metadata == meta
        np.testing.assert_allclose(reader.pixel_size, (35, 25, 15), rtol=1e-6)


def test_big_endian_files_of_05_mix_byte_orders():
    """mrcz 0.5 wrote MODE, statistics and voltage little-endian into them, and could not read them itself."""
    name = "0.5.7_bigendian_zstd.mrcz"
    with mrcz.open(GOLDEN / name) as reader:
        assert reader.header.byteorder == ">"
        assert any("little-endian" in oddity for oddity in reader.oddities)
        assert reader.header.gain == 1.0
        assert reader.header["nlabl"] == 1
        assert (reader.header["dmin"], reader.header["dmax"]) == (-9, 13)
