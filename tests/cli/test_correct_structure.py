"""`mrcz correct` on what is no detector's: said, left alone unless forced, and in the JSON."""

import json

import numpy as np
import pytest

import mrcz
from mrcz.cli import main
from mrcz.simulate import record


@pytest.fixture
def spots(tmp_path):
    path = tmp_path / "bragg.mrcz"
    mrcz.write(path, record("Bragg", shape=(256, 256), n_frames=2).stack, sync=False)
    return str(path)


def test_structure_is_named_and_left_alone_unless_forced(spots, capsys):
    assert main(["correct", "--report", spots]) == 0
    out, err = capsys.readouterr()
    assert "0 outliers" in out and "bragg.mrcz: outliers look like" in err and "--filter-structure" in err
    assert main(["correct", "--report", "--json", spots]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[0])
    assert report["structure"]["left_alone"] and report["structure"]["looks_like"] and report["n_outliers"] == 0
    assert main(["correct", "--report", "--json", "--filter-structure", spots]) == 0
    forced = json.loads(capsys.readouterr().out.splitlines()[0])
    assert forced["n_outliers"] > 100 and not forced["structure"]["left_alone"]


def test_the_preprint_s_form_by_name(tmp_path, capsys):
    rate = np.full((128, 128), 12.0)
    rate[30:60, 30:60] = 5
    path = tmp_path / "bar.mrcz"
    mrcz.write(path, np.random.default_rng(1).poisson(rate, (8, 128, 128)).astype(np.uint8), sync=False)
    counts = []
    for options in ([], ["--whole-image"]):
        assert main(["correct", "--report", "--json", *options, str(path)]) == 0
        counts.append(json.loads(capsys.readouterr().out.splitlines()[0])["n_outliers"])
    assert counts[0] < 10 and counts[1] > 500
    assert main(["correct", "--report", "--background", str(path)]) == 2
    assert "--whole-image" in capsys.readouterr().err
