"""``mrcz correct``, ``gain`` and ``koma`` as a user calls them."""

import errno
import os
import shutil

import numpy as np
import pytest
from cli.running import records, run
from odd_images import ODD

import mrcz
from mrcz.correct import (
    Correction,
    Koma,
    Orientation,
    SessionStatistics,
    correlation,
    fit_outliers,
    koma_references,
    orient,
    session_references,
)
from mrcz.session.correct import correct_file, destination
from mrcz.session.koma import koma_session
from mrcz.session.references import load_gain, load_mask, load_statistics
from mrcz.simulate import Detector

SHAPE = (96, 112)


@pytest.fixture(scope="module")
def detector():
    return Detector(SHAPE, seed=3, etching_rms=0.06, cmos_rms=0.3, hot_fraction=0.006)


@pytest.fixture(scope="module")
def made(tmp_path_factory, detector):
    """A movie, and a session of seven; each test has copies."""
    folder = tmp_path_factory.mktemp("made")
    frames = detector.stack(24, 3.0).frames
    mrcz.write(folder / "movie.mrcz", frames, pixel_size=1.5, kind="stack", metadata={"scope": "Krios"})
    (folder / "session").mkdir()
    for index in range(7):
        mrcz.write(folder / "session" / f"s{index}.mrcz", detector.stack(12, 3.0, index).frames, kind="stack")
    return folder


@pytest.fixture
def movie(tmp_path, made):
    return shutil.copyfile(made / "movie.mrcz", tmp_path / "movie.mrcz")


@pytest.fixture
def session(tmp_path, made):
    return shutil.copytree(made / "session", tmp_path / "session", copy_function=shutil.copyfile)


# ---- correct ---------------------------------------------------------------------------------------------------------


def test_correct_writes_what_the_library_computes(capsys, movie, tmp_path, detector):
    np.save(tmp_path / "gain.npy", detector.gain)
    mrcz.write(tmp_path / "dark.mrc", detector.cmos[None])
    code, out, err = run(
        capsys,
        "correct",
        movie,
        "--stack",
        "--sum",
        "--mask",
        "-o",
        tmp_path / "out",
        "--gain",
        tmp_path / "gain.npy",
        "--dark",
        tmp_path / "dark.mrc",
        "--dose-rate",
        "3",
    )
    assert code == 0 and err == "" and "outliers" in out
    raw = mrcz.read(movie)
    expected = Correction.fit(raw, gain=detector.gain, dark=detector.cmos, gamma=detector.gamma(3.0))
    with mrcz.open(tmp_path / "out" / "movie_corrected.mrcz") as reader:
        assert reader.dtype == np.float32
        assert np.array_equal(reader.read(), expected.apply(raw))
        assert reader.metadata["scope"] == "Krios"
        stored = reader.metadata["correction"]
        assert stored["outliers"]["n_outliers"] == expected.outliers.n_outliers and "gain" in stored["steps"]
        assert reader.pixel_size[0] == pytest.approx(1.5)
    total = mrcz.read(tmp_path / "out" / "movie_sum.mrc")[0]
    np.testing.assert_allclose(total, expected.sum(raw), rtol=1e-5, atol=1e-2)
    assert np.array_equal(load_mask(tmp_path / "out" / "movie_mask.mrc", SHAPE), expected.outliers.mask)


def test_correct_json_measures_and_writes_nothing(capsys, movie, tmp_path):
    before = sorted(tmp_path.iterdir())
    code, out, _ = run(capsys, "correct", movie, "--report", "--measure", "--json")
    report = records(out)[0]
    assert code == 0 and sorted(tmp_path.iterdir()) == before
    assert report["n_outliers"] == fit_outliers(mrcz.read(movie)).n_outliers
    assert report["R_before"] == pytest.approx(correlation(mrcz.read(movie)), abs=1e-6)
    assert report["R_held_out"] < report["R_before"]
    assert {"mu", "sigma", "t_dark", "t_hot", "accepted_hot", "n_clustered", "R_after"} <= report.keys()


def test_correct_masks_as_text_and_sum_alone(capsys, movie, tmp_path):
    assert run(capsys, "correct", movie, "--mask", "--suffix", ".txt")[0] == 0
    assert np.array_equal(load_mask(tmp_path / "movie_mask.txt", SHAPE), fit_outliers(mrcz.read(movie)).mask)
    assert run(capsys, "correct", movie, "--mask", "--serialem", "-o", tmp_path / "s")[0] == 0
    assert "CameraSizeX 112" in (tmp_path / "s" / "movie_mask.txt").read_text()
    assert np.array_equal(load_mask(tmp_path / "s" / "movie_mask.txt", SHAPE), fit_outliers(mrcz.read(movie)).mask)
    assert run(capsys, "correct", movie, "--sum", "--method", "none")[0] == 0
    assert np.array_equal(mrcz.read(tmp_path / "movie_sum.mrc")[0], mrcz.read(movie).sum(0, dtype=np.float32))


def test_correct_does_not_replace_unasked(capsys, movie, tmp_path):
    assert run(capsys, "correct", movie)[0] == 0
    whole = (tmp_path / "movie_corrected.mrcz").read_bytes()
    code, _, err = run(capsys, "correct", movie)
    assert code == 1 and "movie_corrected.mrcz exists; --force replaces it" in err
    assert (tmp_path / "movie_corrected.mrcz").read_bytes() == whole
    assert run(capsys, "correct", movie, "-f")[0] == 0


def test_correct_goes_on_after_a_bad_file(capsys, movie, tmp_path):
    (tmp_path / "junk.mrcz").write_bytes(b"junk" * 500)
    code, out, err = run(capsys, "correct", "--report", tmp_path / "junk.mrcz", tmp_path / "gone.mrcz", movie)
    assert code == 3 and "junk.mrcz" in err and "no such file" in err and str(movie) in out


def test_correct_dry_run_and_plots(capsys, movie, tmp_path):
    code, out, _ = run(capsys, "correct", movie, "--dry-run")
    assert code == 0 and "movie_corrected.mrcz" in out and not (tmp_path / "movie_corrected.mrcz").exists()
    assert run(capsys, "correct", movie, "--report", "--plot", tmp_path / "figures")[0] == 0
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == ["movie_outliers.png", "movie_patch.png"]


@pytest.mark.parametrize("command", ("correct", "koma"))
def test_figures_that_cannot_be_made_are_said_before_the_work(capsys, movie, tmp_path, monkeypatch, command):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, out, err = run(capsys, command, movie, "-o", tmp_path / "out", "--plot", tmp_path / "figures")
    assert code == 1 and out == "" and err.count("\n") == 1 and "mrcz[plot]" in err
    assert not (tmp_path / "out").exists()


def test_figures_of_a_session(capsys, session, tmp_path):
    files = [session / f"s{k}.mrcz" for k in range(3)]
    assert run(capsys, "correct", *files, "--report", "--plot", tmp_path / "a")[0] == 0
    assert {"session.png", "recurrence.png", "s1_patch.png"} <= {p.name for p in (tmp_path / "a").iterdir()}
    assert run(capsys, "koma", *files, "-a", 1, "-o", tmp_path / "o", "--plot", tmp_path / "b")[0] == 0
    assert [p.name for p in (tmp_path / "b").iterdir()] == ["session.png"]


@pytest.mark.parametrize(
    "options",
    [
        ["--report", "--sum"],
        ["--suffix", "mrc"],
        ["--suffix", ".txt"],
        ["--serialem"],
        ["--serialem", "--mask", "--suffix", ".mrc"],
        ["--suffix", ".tif"],
        ["--method", "none", "--mask"],
        ["--method", "defects"],
        ["--gamma", "2"],
        ["--dose-rate", "0", "--gain", "g.mrc"],
    ],
)
def test_correct_wrong_usage(capsys, movie, options):
    assert run(capsys, "correct", movie, *options)[0] == 2


def test_a_gain_that_does_not_fit_is_named(capsys, movie, tmp_path):
    np.save(tmp_path / "small.npy", np.ones((5, 5)))
    code, _, err = run(capsys, "correct", movie, "--gain", tmp_path / "small.npy")
    assert code == 1 and "small.npy" in err and "(96, 112)" in err and "(5, 5)" in err


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("larger", [False, True])
def test_a_gain_of_another_size_is_used_at_whole_ratios_and_said_once(capsys, movie, session, tmp_path, factor, larger):
    shape = tuple(n * factor if larger else n // factor for n in SHAPE)
    gain = tmp_path / f"g{factor}{larger}.npy"
    np.save(gain, np.ones(shape, np.float32))
    code, out, err = run(capsys, "correct", movie, "-r", session, "--gain", gain, "--report", "-q")
    assert code == 0 and len(out.splitlines()) == 8
    (line,) = err.splitlines()
    assert "{} x {}".format(*shape) in line and "96 x 112" in line and f"{factor} x {factor}" in line


@pytest.mark.parametrize("shape", [(48, 28), (32, 112), (97, 112), (96, 111), (192, 112), (288, 336), (32, 37), (1, 1)])
def test_a_gain_of_any_other_ratio_is_refused_with_both_sizes(capsys, movie, tmp_path, shape):
    np.save(tmp_path / "g.npy", np.ones(shape))
    code, out, err = run(capsys, "correct", movie, "--gain", tmp_path / "g.npy", "-o", tmp_path / "o")
    assert code == 1 and out == "" and str(shape) in err and "(96, 112)" in err
    assert not (tmp_path / "o").exists() or not list((tmp_path / "o").iterdir())


# ---- gain ------------------------------------------------------------------------------------------------------------


def test_gain_made_oriented_and_converted(capsys, tmp_path, detector):
    rate = 2.524
    for k in range(2):
        mrcz.write(tmp_path / f"flat{k}.mrcz", detector.stack(150, rate, k).frames, kind="stack")
    gain = tmp_path / "gain.mrc"
    code, out, _ = run(capsys, "gain", "make", tmp_path / "flat0.mrcz", tmp_path / "flat1.mrcz", "-o", gain, "--json")
    report = records(out)[0]
    assert code == 0 and report["frames"] == 300 and report["unusable_pixels"] > 0
    made = load_gain(gain)
    good = made > 0
    assert np.corrcoef(made[good], (1 / (rate / detector.gain + detector.cmos))[good])[0, 1] > 0.9
    assert run(capsys, "gain", "make", tmp_path / "flat0.mrcz", "-o", gain)[0] == 1

    np.save(tmp_path / "turned.npy", orient(made, Orientation(2, 1)))
    code, out, _ = run(
        capsys,
        "gain",
        "orient",
        tmp_path / "flat0.mrcz",
        tmp_path / "turned.npy",
        "--json",
        "-o",
        tmp_path / "right.npy",
    )
    *scores, best = records(out)
    assert best["record"] == "file" and best["ok"]
    assert code == 0 and len(scores) == 4 and scores[0]["relative"] == 1
    assert np.array_equal(np.load(tmp_path / "right.npy"), made)
    code, out, _ = run(capsys, "gain", "orient", tmp_path / "flat0.mrcz", tmp_path / "right.npy")
    assert code == 0 and out.startswith("--gain_rot 0 --gain_flip 0")

    assert run(capsys, "gain", "convert", gain, "-o", tmp_path / "c.npy", "--gain-flip", 1)[0] == 0
    assert np.array_equal(np.load(tmp_path / "c.npy"), made[::-1])


def test_gain_gamma(capsys, tmp_path):
    detector = Detector((256, 256), seed=1, etching_rms=0.08, hot_fraction=0, cmos_rms=0)
    np.save(tmp_path / "gain.npy", detector.gain)
    flats, options = [], []
    for rate in (0.5, 2.0, 5.0, 9.0):
        flats.append(tmp_path / f"flat{rate}.mrc")
        mrcz.write(flats[-1], detector.flat(rate, 2000)[None])
        options += ["--dose-rate", rate]
    code, out, _ = run(capsys, "gain", "gamma", *flats, tmp_path / "gain.npy", *options, "--json")
    lines = records(out)
    assert code == 0 and len(lines) == 5 and lines[4].keys() >= {"a1", "b1", "a2", "a3"}
    for line, rate in zip(lines, (0.5, 2.0, 5.0, 9.0), strict=False):
        assert line["gamma"] == pytest.approx(detector.gamma(rate), abs=0.02)
    assert run(capsys, "gain", "gamma", flats[0], tmp_path / "gain.npy", *options)[0] == 2


def test_gain_of_a_session(capsys, session, tmp_path, detector):
    np.save(tmp_path / "g.npy", detector.gain)
    places = {
        name: tmp_path / file
        for name, file in (
            ("-o", "better.npy"),
            ("--offset", "offset.mrc"),
            ("--mask", "defects.txt"),
            ("--state", "s.mrcz"),
        )
    }
    options = [part for pair in places.items() for part in pair]
    code, out, err = run(capsys, "gain", "session", "-r", session, "--gain", tmp_path / "g.npy", *options, "--json")
    *stacks, last = records(out)
    assert code == 0 and err == "" and len(stacks) == 7 and last["record"] == "session"
    assert last["stacks"] == 7 and last["frames"] == 84 and all(r["frames"] == 12 for r in stacks)
    statistics = SessionStatistics(SHAPE)
    for k in range(7):
        movie = mrcz.read(session / f"s{k}.mrcz")
        statistics.add(movie, fit_outliers(movie, gain=detector.gain).mask)
    expected = session_references(statistics, gain=detector.gain)
    assert np.array_equal(np.load(places["-o"]), expected.gain)
    assert np.array_equal(mrcz.read(places["--offset"])[0], expected.offset)
    assert np.array_equal(load_mask(places["--mask"], SHAPE), expected.defects)
    assert last["n_defects"] == expected.defects.sum() > 0
    # What was made serves where it should.
    code, _, err = run(
        capsys,
        "correct",
        session / "s0.mrcz",
        "--gain",
        places["-o"],
        "--dark",
        places["--offset"],
        "--defects",
        places["--mask"],
        "--report",
    )
    assert code == 0 and err == ""
    # Nothing new: nothing is counted twice, and what stands there stays.
    assert run(capsys, "gain", "session", "-r", session, *options)[0] == 1
    code, out, _ = run(capsys, "gain", "session", "-r", session, "--gain", tmp_path / "g.npy", *options, "-f", "--json")
    assert code == 0 and records(out)[0]["stacks"] == 7
    assert np.array_equal(np.load(places["-o"]), expected.gain)


def test_a_session_gone_on_with_is_the_session_in_one_go(capsys, session, tmp_path, monkeypatch):
    files = [session / f"s{k}.mrcz" for k in range(7)]
    state = tmp_path / "s.mrcz"
    for part in (files[:2], files[:5], files):
        code, out, _ = run(capsys, "gain", "session", *part, "--state", state, "-o", tmp_path / "a.npy", "-f")
        assert code == 0 and f"in {len(part)} stacks" in out
    assert run(capsys, "gain", "session", *files, "-o", tmp_path / "b.npy")[0] == 0
    assert np.array_equal(np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy"))
    with mrcz.open(state) as reader:
        assert reader.shape == (5, *SHAPE) and len(reader.metadata["sources"]) == 7
    # Kept while it goes on, too: killed after the third movie, three are in.
    monkeypatch.setattr("mrcz.cli.gain._KEEP", -1.0)
    seen = []
    monkeypatch.setattr("mrcz.cli.gain.show", lambda result, *rest: seen.append(result) or len(seen) < 4 or 1 / 0)
    assert run(capsys, "gain", "session", *files, "--state", tmp_path / "k.mrcz", "-q")[0] != 0
    monkeypatch.undo()
    assert load_statistics(tmp_path / "k.mrcz")[0].stacks == 3
    # The state is no movie, wherever it lies, and movies no state.
    shutil.copy(state, session / "kept.mrcz")
    code, out, err = run(capsys, "gain", "session", "-r", session, "--json")
    assert code == 0 and records(out)[-1]["stacks"] == 7 and "left out" in err
    code, _, err = run(capsys, "gain", "session", files[0], "--state", files[1])
    assert code == 3 and "s1.mrcz" in err and "statistics" in err
    assert np.array_equal(mrcz.read(files[1]), mrcz.read(session / "s1.mrcz"))


def test_a_session_with_movies_that_are_no_use(capsys, session, tmp_path):
    (session / "s2.mrcz").write_bytes(b"x" * 3000)
    mrcz.write(session / "s9.mrcz", np.ones((3, 8, 8), np.uint8), kind="stack")
    code, out, err = run(capsys, "gain", "session", "-r", session, "-o", tmp_path / "g.mrc")
    assert code == 3 and "s2.mrcz" in err and "s9.mrcz" in err and "in 6 stacks" in out
    code, out, err = run(capsys, "gain", "session", session / "s2.mrcz", "-o", tmp_path / "h.mrc")
    assert code == 3 and "no movie" in err and not (tmp_path / "h.mrc").exists()
    np.save(tmp_path / "small.npy", np.ones((5, 5)))
    for option in ("--gain", "--dark"):
        code, _, err = run(capsys, "gain", "session", session / "s0.mrcz", option, tmp_path / "small.npy")
        assert code == 1 and "small.npy" in err and "(5, 5)" in err and "(96, 112)" in err


@pytest.mark.parametrize(
    "options",
    [
        ["--state", "s.npz"],
        ["-o", "g.gain"],
        ["-o", "g.txt"],
        ["--offset", "o.txt"],
        ["--mask", "m.dm4"],
        ["-o", "a.mrc", "--offset", "a.mrc"],
        ["--mask", "{0}"],
        ["--offset", "g.npy", "--gain", "g.npy"],
    ],
)
def test_gain_session_wrong_usage(capsys, session, tmp_path, options, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("g.npy", np.ones(SHAPE))
    (tmp_path / "a.mrc").write_bytes(b"")
    (tmp_path / "a.mrc").unlink()
    movie = session / "s0.mrcz"
    assert run(capsys, "gain", "session", movie, *(option.format(movie) for option in options))[0] == 2
    assert mrcz.read(movie).shape == (12, *SHAPE)


# ---- koma ------------------------------------------------------------------------------------------------------------


def corrected_by_hand(session, radius):
    stacks = [mrcz.read(session / f"s{k}.mrcz") for k in range(7)]
    fits = [Correction.fit(stack) for stack in stacks]
    means = [
        f.correct_sum(s.sum(0, dtype=np.int64), len(s)) / np.float32(len(s)) for f, s in zip(fits, stacks, strict=True)
    ]
    references = koma_references(means, radius, frames=[len(stack) for stack in stacks])
    return [Correction(outliers=f.outliers, koma=r).apply(s) for f, r, s in zip(fits, references, stacks, strict=True)]


def test_koma_batch_and_live_are_the_same(capsys, session, tmp_path):
    code, out, err = run(capsys, "koma", "-r", session, "-a", 2, "-o", tmp_path / "batch", "--json", "--measure")
    assert code == 0 and err == ""
    reports = records(out)
    assert [r["number"] for r in reports] == list(range(7)) and all(r["reference_stacks"] == 4 for r in reports)
    for k, expected in enumerate(corrected_by_hand(session, 2)):
        assert np.array_equal(mrcz.read(tmp_path / "batch" / f"s{k}_corrected.mrcz"), expected)

    state = tmp_path / "koma.state"
    files = [session / f"s{k}.mrcz" for k in range(7)]
    for part in (files[:3], files[:6]):
        assert run(capsys, "koma", *part, "-a", 2, "-o", tmp_path / "live", "--state", state, "--live")[0] == 0
    assert run(capsys, "koma", *files, "-a", 2, "-o", tmp_path / "live", "--state", state)[0] == 0
    for k in range(7):
        name = f"s{k}_corrected.mrcz"
        assert np.array_equal(mrcz.read(tmp_path / "live" / name), mrcz.read(tmp_path / "batch" / name))


def test_koma_takes_the_pattern_out(session):
    stack = mrcz.read(session / "s3.mrcz")
    with_koma = corrected_by_hand(session, 3)[3]
    assert correlation(with_koma) < correlation(Correction.fit(stack).apply(stack)) / 2


def test_koma_exclusion_and_a_broken_stack(capsys, session, tmp_path):
    (session / "s2.mrcz").write_bytes(b"x" * 3000)
    code, _, err = run(capsys, "koma", "-r", session, "-a", 1, "--sum", "-o", tmp_path / "o", "--exclude", "s4.mrcz")
    assert code == 3 and "s2.mrcz" in err
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == [f"s{k}_sum.mrc" for k in (0, 1, 3, 4, 5, 6)]


def test_koma_of_one_stack_is_refused(capsys, session, tmp_path):
    code, _, err = run(capsys, "koma", session / "s0.mrcz", "-o", tmp_path / "o")
    assert code == 1 and "two stacks" in err
    assert run(capsys, "koma", session / "s0.mrcz", "-a", 0)[0] == 2
    assert run(capsys, "koma", session / "s0.mrcz", "--live")[0] == 2
    (tmp_path / "bad.state").write_bytes(b"no state")
    assert run(capsys, "koma", session / "s0.mrcz", "--state", tmp_path / "bad.state")[0] == 2


# ---- the functions behind --------------------------------------------------------------------------------------------


def test_correct_file_and_session_protect_the_raw_stack(movie, session):
    with pytest.raises(ValueError, match="raw stack"):
        correct_file(movie, {"stack": str(movie)}, overwrite=True)
    assert destination("/a/b.mrcz", "sum") == "/a/b_sum.mrc"
    assert destination("/a/b.mrc.gz", "mask", "/c", ".txt") == "/c/b_mask.txt"
    results = list(koma_session([str(session / f"s{k}.mrcz") for k in range(3)], Koma(1), lambda source: {}))
    assert [r.ok for r in results] == [True] * 3 and all(r.correction.koma is not None for r in results)


def test_a_correction_lives_in_metadata(tmp_path, movie):
    raw = mrcz.read(movie)
    correction = Correction.fit(raw)
    for name in ("a.mrcz", "a.mrc"):
        mrcz.write(tmp_path / name, raw, kind="stack", metadata={"correction": correction.to_dict()})
        with mrcz.open(tmp_path / name) as reader:
            again = Correction.from_dict(reader.metadata["correction"])
            assert np.array_equal(again.apply(reader), correction.apply(raw))


# ---- wrong input -----------------------------------------------------------------------------------------------------


@pytest.fixture
def broken(tmp_path, detector):
    """Names of references nobody can use, and words the error must hold."""
    gain = detector.gain.copy()
    gain[3, 4] = -1
    np.save(tmp_path / "negative.npy", gain)
    np.save(tmp_path / "nothing.npy", np.zeros(SHAPE))
    np.save(tmp_path / "nan.npy", np.full(SHAPE, np.nan))
    np.save(tmp_path / "small.npy", np.ones((5, 5)))
    (tmp_path / "prose.txt").write_text("hello world\n")
    return {
        ("--gain", "negative.npy"): "negative",
        ("--gain", "nothing.npy"): "usable",
        ("--gain", "nan.npy"): "usable",
        ("--gain", "small.npy"): "shape",
        ("--gain", "gone.npy"): "No such file",
        ("--dark", "small.npy"): "shape",
        ("--dark", "nan.npy"): "not finite",
        ("--defects", "prose.txt"): "defects.txt",
        ("--defects", "small.npy"): "defect map",
    }


@pytest.mark.parametrize("command", ["correct", "koma"])
def test_a_reference_that_is_no_use_is_one_line_and_writes_nothing(capsys, session, tmp_path, broken, command):
    for (option, name), words in broken.items():
        code, out, err = run(
            capsys,
            command,
            session / "s0.mrcz",
            session / "s1.mrcz",
            "--sum",
            "-o",
            tmp_path / "o",
            option,
            tmp_path / name,
        )
        assert code in (1, 3) and out == "" and words in err, (option, name, err)
        assert all(line.startswith("mrcz: ") for line in err.splitlines())
        assert not (tmp_path / "o").exists() or not list((tmp_path / "o").iterdir())


def test_gain_with_references_that_are_no_use(capsys, session, tmp_path, broken):
    for (option, name), words in broken.items():
        if option == "--gain":
            for action in ("orient", "gamma"):
                code, out, err = run(capsys, "gain", action, session / "s0.mrcz", tmp_path / name)
                assert code in (1, 3) and out == "" and len(err.splitlines()) == 1, err
                assert words in err or "orientation" in err
        elif option == "--dark":
            code, _, err = run(
                capsys, "gain", "make", session / "s0.mrcz", "--dark", tmp_path / name, "-o", tmp_path / "g.mrc"
            )
            assert code == 1 and words in err
    for name in ("g.dm4", "g.gain", "g.txt"):
        assert run(capsys, "gain", "make", session / "s0.mrcz", "-o", tmp_path / name)[0] == 2
        assert not (tmp_path / name).exists()
    mrcz.write(tmp_path / "zero.mrcz", np.zeros((3, *SHAPE), np.uint8), kind="stack")
    code, _, err = run(capsys, "gain", "make", tmp_path / "zero.mrcz", "-o", tmp_path / "g.mrc")
    assert code == 1 and "zero.mrcz" in err and not (tmp_path / "g.mrc").exists()
    assert run(capsys, "gain", "gamma", session / "s0.mrcz", tmp_path / "g.npy", "--dose-rate", 0)[0] == 2
    assert run(capsys, "gain", "gamma", session / "s0.mrcz", tmp_path / "g.npy", "--plot", tmp_path / "p")[0] == 2


def test_odd_stacks_from_the_command_line(capsys, tmp_path):
    names = []
    for name, stack in ODD.items():
        if stack.dtype.kind != "f" and stack.dtype.itemsize > 2:
            continue  # no mode of MRC
        names.append(tmp_path / f"{name.replace(' ', '_')}.mrcz")
        mrcz.write(names[-1], stack, kind="stack")
    assert len(names) > 20
    for method in ("fdr", "tails"):
        code, out, err = run(
            capsys,
            "correct",
            *names,
            "--stack",
            "--sum",
            "--mask",
            "--measure",
            "--json",
            "--method",
            method,
            "-o",
            tmp_path / method,
        )
        assert code == 0 and err == "" and len(records(out)) == len(names)
        for name in names:
            assert not np.isnan(mrcz.read(tmp_path / method / f"{name.stem}_corrected.mrcz")).any()
            assert not np.isnan(mrcz.read(tmp_path / method / f"{name.stem}_sum.mrc")).any()
    code, out, err = run(capsys, "koma", *names, "-a", 2, "--sum", "-o", tmp_path / "koma", "-q")
    assert code == 1 and "the session" in err and all(line.startswith("mrcz: ") for line in err.splitlines())
    for written in (tmp_path / "koma").iterdir():
        assert np.isfinite(mrcz.read(written)).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--alpha", "3"], "alpha"),
        (["--n-sigma", "-1"], "n-sigma"),
        (["--gamma", "nan", "--gain", "g.npy"], "gamma"),
        (["--suffix", ".png", "--sum"], ".png"),
        (["--plot", __file__], "directory"),
        (["-o", __file__], "directory"),
    ],
)
def test_options_out_of_range_are_wrong_usage(capsys, movie, options, words):
    code, out, err = run(capsys, "correct", movie, *options)
    assert code == 2 and out == "" and words in err and len(err.splitlines()) == 1


def test_a_gamma_of_zero_is_no_gain_at_all(capsys, movie, tmp_path, detector):
    np.save(tmp_path / "gain.npy", detector.gain)
    gain = ("--gain", tmp_path / "gain.npy", "--gamma", 0)
    assert run(capsys, "correct", movie, "--sum", "--method", "none", *gain)[0] == 0
    assert np.array_equal(mrcz.read(tmp_path / "movie_sum.mrc")[0], mrcz.read(movie).sum(0, dtype=np.float32))


def test_koma_measures_itself_and_not_the_filter_alone(capsys, session, tmp_path):
    files = [session / f"s{k}.mrcz" for k in range(5)]
    out = run(capsys, "correct", *files, "--report", "--measure", "--json")[1]
    alone = records(out)
    for method in ("fdr", "none"):
        _, out, _ = run(
            capsys, "koma", *files, "-a", 2, "--sum", "-o", tmp_path / method, "--measure", "--json", "--method", method
        )
        together = sorted(records(out), key=lambda r: r["number"])
        for one, both in zip(alone, together, strict=True):
            assert both["R_before"] == one["R_before"]
            assert both["R_after"] < 0.7 * (one["R_after"] if method == "fdr" else one["R_before"])
            assert method == "none" or both["R_held_out"] < 0.7 * one["R_held_out"]


def test_koma_wrong_names_and_places(capsys, session, tmp_path):
    first = (session / "s0.mrcz", session / "s1.mrcz")
    code, _, err = run(capsys, "koma", *first, "--exclude", "s9.mrcz", "-o", tmp_path / "o")
    assert code == 2 and "s9.mrcz" in err
    code, _, err = run(capsys, "koma", *first, "--state", tmp_path / "no" / "where", "-o", tmp_path / "o")
    assert code == 2 and "directory" in err and not (tmp_path / "o").exists()
    assert run(capsys, "koma", *first, "--sum", "-o", tmp_path / "o")[0] == 0
    code, _, err = run(capsys, "koma", *first, "--sum", "-o", tmp_path / "o")
    assert code == 1 and err.count("_sum.mrc exists; --force replaces it\n") == len(err.splitlines()) == 2


def test_a_figure_is_whole_or_the_earlier_one(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    from mrcz.cli._correcting import save_figure
    from mrcz.storage.disk import Disk

    def full(self, fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    save_figure(Figure(), str(tmp_path), "a")
    before = (tmp_path / "a.png").read_bytes()
    assert before.startswith(b"\x89PNG")
    other = Figure(figsize=(1, 1))
    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr(Disk, "fsync", full)
        save_figure(other, str(tmp_path), "a")
    assert os.listdir(tmp_path) == ["a.png"] and (tmp_path / "a.png").read_bytes() == before
    save_figure(other, str(tmp_path), "a")
    assert (tmp_path / "a.png").read_bytes() != before
