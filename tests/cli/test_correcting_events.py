"""``--events`` of ``mrcz correct`` and ``mrcz koma``, and what files keep of it."""

import json

import numpy as np
import pytest

import mrcz
from mrcz import cli
from mrcz.correct import Correction, EventModel
from mrcz.session import correct as session
from mrcz.simulate import Detector, add_events

SHAPE = (96, 112)


def run(capsys, *args):
    code = cli.main([str(arg) for arg in args])
    out, err = capsys.readouterr()
    return code, out, err


def recorded(index=0):
    frames = Detector(SHAPE, seed=3, hot_fraction=0.006).stack(24, 1.5, index).frames
    add_events(frames, np.random.default_rng(index), density=1e-4, counts=(20, 150))
    return frames


@pytest.fixture
def movie(tmp_path):
    mrcz.write(tmp_path / "movie.mrcz", recorded(), kind="stack")
    return tmp_path / "movie.mrcz"


def test_correct_replaces_events_and_says_so(capsys, movie, tmp_path):
    expected = Correction.fit(recorded(), events=True)
    assert expected.events.n_events > 10
    code, out, err = run(capsys, "correct", movie, "--events", "--stack", "--sum", "-o", tmp_path / "out")
    assert code == 0 and err == ""
    assert f"{expected.events.n_events} events ({expected.events.n_pixels} pixels)" in out
    applied = expected.apply(recorded())
    with mrcz.open(tmp_path / "out" / "movie_corrected.mrcz") as reader:
        np.testing.assert_array_equal(reader.read(), applied)
        stored = reader.metadata["correction"]
    assert "events of" in stored["steps"]
    np.testing.assert_array_equal(stored["events"]["frame"], expected.events.frame)
    np.testing.assert_array_equal(stored["events"]["pixel"], expected.events.pixel)
    np.testing.assert_array_equal(stored["events"]["value"], expected.events.value)
    # The sum alone, made without seeing the frames again.
    assert run(capsys, "correct", movie, "--events", "--sum", "-o", tmp_path / "sum")[0] == 0
    for folder in ("out", "sum"):
        total = mrcz.read(tmp_path / folder / "movie_sum.mrc")[0]
        np.testing.assert_allclose(total, applied.sum(0), rtol=1e-5, atol=1e-3)
    # Without outliers of all frames.
    assert run(capsys, "correct", movie, "--events", "--method", "none", "--sum", "-o", tmp_path / "n")[0] == 0
    np.testing.assert_allclose(
        mrcz.read(tmp_path / "n" / "movie_sum.mrc")[0],
        Correction.fit(recorded(), None, events=True).sum(recorded()),
        rtol=1e-5,
    )


def test_json_counts_events_apart(capsys, movie):
    code, out, _ = run(capsys, "correct", movie, "--events", "--report", "--measure", "--json")
    report = json.loads(out.splitlines()[0])
    expected = Correction.fit(recorded(), events=True)
    assert code == 0 and report["events"] == expected.events.report()
    assert report["n_outliers"] == expected.outliers.n_outliers and len(report["events"]["per_frame"]) == 24
    assert report["R_held_out"] < report["R_before"]
    assert "events" not in json.loads(run(capsys, "correct", movie, "--report", "--json")[1].splitlines()[0])


def test_too_few_frames_are_said(capsys, tmp_path):
    mrcz.write(tmp_path / "short.mrcz", recorded()[:3], kind="stack")
    code, out, _ = run(capsys, "correct", "--events", "--report", tmp_path / "short.mrcz")
    assert code == 0 and "0 events" in out and "3 frames are too few" in out


def test_a_long_list_is_not_put_into_metadata(movie, monkeypatch):
    monkeypatch.setattr(session, "MOST_EVENTS", 3)
    kept = session.as_metadata(Correction.fit(recorded(), events=True))["events"]
    assert kept["n_pixels"] > 3 and "frame" not in kept


def test_koma_takes_events(capsys, tmp_path):
    (tmp_path / "s").mkdir()
    for index in range(3):
        mrcz.write(tmp_path / "s" / f"s{index}.mrcz", recorded(index), kind="stack")
    code, out, err = run(capsys, "koma", "-r", tmp_path / "s", "-a", "1", "--events", "-o", tmp_path / "k", "--json")
    assert code == 0 and err == ""
    reports = [json.loads(line) for line in out.splitlines()]
    assert all(report["events"]["n_events"] > 10 for report in reports if "source" in report)
    with mrcz.open(tmp_path / "k" / "s1_corrected.mrcz") as reader:
        events = reader.metadata["correction"]["events"]
        corrected = reader.read()
    raw = recorded(1)
    frame, pixel = events["frame"], events["pixel"]
    np.testing.assert_array_equal(events["value"], raw.reshape(24, -1)[frame, pixel])
    assert (
        corrected.reshape(24, -1)[frame, pixel].max()
        < 20
        <= EventModel.from_dict(Correction.fit(raw, events=True).events.to_dict()).value.max()
    )
