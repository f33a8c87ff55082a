"""readMRC and the new reader agree on every real file, or refuse it alike."""

import numpy as np
import pytest

import mrcz

SUFFIXES = {".mrc", ".mrcs", ".map", ".ccp4", ".st", ".rec", ".mrcz"}


def test_every_file(some_data_dir):
    seen = refused = 0
    for path in sorted(some_data_dir.rglob("*")):
        if path.suffix.lower() not in SUFFIXES:
            continue
        seen += 1
        try:
            expected = mrcz.read(path)
        except mrcz.FormatError:
            refused += 1
            with pytest.raises(mrcz.FormatError):
                mrcz.readMRC(path)
            continue
        image, header = mrcz.readMRC(path)
        assert isinstance(image, np.ndarray), path  # none of them was written from a list
        np.testing.assert_array_equal(image, np.squeeze(expected), err_msg=str(path))
        assert header["dimensions"].tolist() == list(expected.shape[:3])
        assert np.isfinite(header["pixelsize"]).all()
        lazy, _ = mrcz.readMRC(path, useMemmap=True)
        assert lazy.shape == expected.shape
        last, _ = mrcz.readMRC(path, idx=-1)
        np.testing.assert_array_equal(last, np.squeeze(expected[-1]), err_msg=str(path))
    assert seen > (70 if (some_data_dir / "fei").is_dir() else 18)
    assert refused < seen / 4
