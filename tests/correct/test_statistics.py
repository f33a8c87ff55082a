"""Statistics of a session: what they hold, what they find, and that no file of them is believed that cannot be true."""

import numpy as np
import pytest
from reference import pattern_numpy as plain

from _cmrcz import session as core
from mrcz.correct import (
    Correction,
    SessionStatistics,
    correlation,
    fit_outliers,
    make_gain,
    session_references,
    stack_moments,
)
from mrcz.errors import FormatError
from mrcz.session.references import load_statistics, save_statistics
from mrcz.simulate import Detector, Specimen

TYPES = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "f2", "f4", "f8", ">i2", ">f4"]


class OneFrameAtATime:
    def __init__(self, stack):
        self.stack, self.shape, self.dtype = stack, stack.shape, stack.dtype

    def __getitem__(self, i):
        return self.stack[i]


class Reader(OneFrameAtATime):
    def read(self, frames):
        return self.stack[frames]


# ---- moments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (20, 1, 5000), (600, 9, 8), (9, 70, 80)])
def test_moments_are_those_of_numpy(rng, dtype, shape):
    low, high = (0, 2) if dtype == "?" else (-100, 120) if np.dtype(dtype).kind != "u" else (0, 250)
    stack = rng.integers(low, high, shape).astype(dtype)
    for source in (stack, OneFrameAtATime(stack), Reader(stack), stack[:, ::-1], np.asfortranarray(stack)):
        found = stack_moments(source, n_threads=3)
        total, squares = plain.moments(source if isinstance(source, np.ndarray) else stack)
        assert np.array_equal(found.total, total) and np.array_equal(found.squares, squares)
        assert found.frames == len(stack)


def test_moments_of_the_brightest_bytes_do_not_overflow():
    frames = np.full((1000, 3), 255, np.uint8)
    total, squares = np.zeros(3, np.uint32), np.zeros(3, np.uint32)
    core.moments(frames, 0, 3, total, squares)
    assert total.tolist() == [255000] * 3 and squares.tolist() == [65025000] * 3
    with pytest.raises(TypeError, match="bytes"):
        core.moments(frames.astype(np.int16), 0, 3, total, squares)
    with pytest.raises(ValueError, match="moments"):
        core.moments(frames, 0, 4, total, squares)
    wide = np.broadcast_to(np.uint8(255), (66052, 1, 2))
    assert stack_moments(OneFrameAtATime(wide)).squares.tolist() == [[65025 * 66052] * 2]


# ---- what is added up ------------------------------------------------------------------------------------------------


def session(rng, shape=(12, 13), stacks=7):
    return [rng.poisson(rng.uniform(1, 9), (int(rng.integers(2, 30)), *shape)).astype(np.uint8) for _ in range(stacks)]


def by_hand(movies, flags):
    frames = np.concatenate(movies).astype(np.float64)
    within = sum(((m - m.mean(0)) ** 2).sum(0) for m in movies)
    return frames.mean(0), within / (len(frames) - len(movies)), np.mean(flags, 0)


def test_statistics_are_the_mean_variance_and_flags_of_all_frames(rng):
    movies = session(rng)
    flags = [rng.random(movie.shape[1:]) < 0.1 for movie in movies]
    found = SessionStatistics(movies[0].shape[1:])
    for movie, flag in zip(movies, flags, strict=True):
        found.add(movie, flag)
    for value, expected in zip((found.mean(), found.variance(), found.flagged()), by_hand(movies, flags), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
    assert found.stacks == 7 and found.frames == sum(map(len, movies))
    levels = np.array([movie.mean() for movie in movies])
    lengths = np.array([len(movie) for movie in movies])
    assert found.level_sums == pytest.approx(((lengths * levels).sum(), (lengths / levels).sum()))
    away = np.array([movie.mean(0) - movie.mean() for movie in movies])
    np.testing.assert_allclose(found.maps["relative"], np.tensordot(lengths / levels, away, 1), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.maps["between"], np.tensordot(lengths / levels, away**2, 1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cut", [0, 1, 4, 7])
def test_parts_of_a_session_add_up(rng, cut):
    movies = session(rng)
    whole, first, second = (SessionStatistics(movies[0].shape[1:]) for _ in range(3))
    for number, movie in enumerate(movies):
        whole.add(movie, movie[0] > 5)
        (first if number < cut else second).add(stack_moments(movie), movie[0] > 5)
    first.merge(second)
    assert (first.stacks, first.frames) == (whole.stacks, whole.frames)
    assert first.level_sums == pytest.approx(whole.level_sums)
    for name, image in whole.maps.items():
        np.testing.assert_allclose(first.maps[name], image, rtol=1e-5, atol=1e-4)


def test_pixels_that_are_not_finite_are_flags_and_no_more(rng):
    movies = rng.normal(5, 1, (3, 6, 8, 9)).astype(np.float32)
    movies[1, 2, 3, 4], movies[2, :, 0, 0] = np.nan, np.inf
    found = SessionStatistics((8, 9))
    for movie in movies:
        found.add(movie)
    assert all(np.isfinite(image).all() for image in found.maps.values())
    assert found.maps["flags"][3, 4] == 1 and found.maps["flags"][0, 0] == 1 and found.maps["flags"].sum() == 2
    with pytest.raises(ValueError, match="finite pixel"):
        found.add(np.full((2, 8, 9), np.nan))
    assert found.stacks == 3


# ---- what a session says of the detector -----------------------------------------------------------------------------


def simulated(seed, stacks, *, frames=40, dose=1.2, n=256, prior_frames=400, **detector):
    """A detector, the gain from flats before the session, and the statistics after each number of ``stacks``."""
    made = Detector((n, n), seed=seed, **detector)
    flat = made.flat(dose, prior_frames)
    prior = make_gain(flat, defects=fit_outliers(flat, "sigma", n_sigma=8, background=True).mask)
    found = SessionStatistics((n, n))
    for index in range(1, max(stacks) + 1):
        rng = np.random.default_rng([seed, index])
        rate = made.rates(dose, index)[0] * Specimen(contrast=0.1).scene((n, n), rng)
        moments = stack_moments(rng.poisson(rate, (frames, n, n)).astype(np.uint8))
        found.add(moments, fit_outliers(moments.total, gain=prior).mask)
        if index in stacks:
            yield made, prior, found


def left(movie, gain, offset=None):
    correction = Correction.fit(movie, gain=gain, dark=offset)
    return correlation(movie, lambda frame, number: correction.apply_frame(frame, number=number))


def test_a_session_betters_its_gain():
    """R of a stack that comes next: gain from 400 flats alone, then with what 6 and 25 stacks of the session say."""
    reached, kept = [], []
    for made, prior, found in simulated(0, (6, 25)):
        better = session_references(found, gain=prior)
        movie = made.stack(40, 1.2, found.stacks + 1).frames
        reached.append(left(movie, better.gain, better.offset) / left(movie, prior))
        kept.append(better.gain_kept)
    assert reached[0] < 0.8 and reached[1] < 0.5 and 0.1 < kept[0] < kept[1] < 1


@pytest.mark.parametrize("stacks", [1, 6])
def test_a_good_gain_stays_as_good(stacks):
    for made, prior, found in simulated(2, (stacks,), prior_frames=100000, hot_fraction=0, dead_fraction=0):
        better = session_references(found, gain=prior)
        true = make_gain(made.rates(1.2)[1])
        good = (better.gain > 0) & (prior > 0)
        before, after = (np.std((gain / true)[good]) for gain in (prior, better.gain))
        assert after < 1.1 * before and better.gain_change < 0.01


def test_what_stays_in_the_beam_is_no_gain_and_no_defect(rng):
    """The corner an aperture leaves dark, a bar and a bead that are in every stack of a session."""
    n, found = 256, SessionStatistics((256, 256))
    y, x = np.mgrid[:n, :n]
    scene = np.ones((n, n))
    scene[np.hypot(y, x) < 100] = 0.02
    scene[:, 100:130] = 0.3
    scene[np.hypot(y - 60, x - 200) < 12] = 0.4
    gain = 1 + 0.05 * rng.standard_normal((n, n))
    dead = rng.random((n, n)) < 2e-3
    for _ in range(20):
        moments = stack_moments(rng.poisson(np.where(dead, 0, 2 * scene / gain), (40, n, n)).astype(np.uint8))
        found.add(moments)
    made = session_references(found)
    bright = scene > 0.1
    assert made.dark[dead & bright].mean() > 0.9
    assert np.count_nonzero(made.defects & ~dead) <= 1e-4 * n * n
    change = made.gain[~made.defects] - 1
    assert np.abs(change).max() < 0.35  # five pixel gains' spread and a little, no edge
    inside = (x > 140) & (np.hypot(y - 60, x - 200) > 30) & (x < 250) & ~made.defects
    assert np.corrcoef(made.gain[inside], gain[inside])[0, 1] > 0.85  # 1600 counts a pixel


@pytest.mark.parametrize("pedestal", [0, 5, 40])
def test_a_session_tells_offset_from_gain_by_its_doses(rng, pedestal):
    n = 128
    gain = 1 + 0.03 * rng.standard_normal((n, n))
    offset = 0.5 * rng.standard_normal((n, n))
    found, constant = SessionStatistics((n, n)), SessionStatistics((n, n))
    for dose in np.linspace(2, 20, 20):
        for statistics, here in ((found, dose), (constant, 10)):
            total = rng.poisson(40 * here / gain)  # of 40 frames, evenly, as far as means go
            frames = np.repeat(total[None] / 40, 2, 0) + [[[-1]], [[1]]] * np.sqrt(here / gain)
            statistics.add(np.tile(frames, (20, 1, 1)) + offset + pedestal)
    dark = np.full((n, n), pedestal)
    made = session_references(found, dark=dark)
    assert np.corrcoef((made.offset - dark).ravel(), offset.ravel())[0, 1] > 0.9
    assert np.corrcoef(made.gain[made.gain > 0], gain[made.gain > 0])[0, 1] > 0.8
    assert made.offset_kept > 0.75 and made.offset_spread == pytest.approx(0.5, rel=0.2)
    assert session_references(constant, dark=dark).offset_kept == 0
    assert made.defects.sum() <= 1


@pytest.mark.parametrize("dose", [0.3, 1.2, 8.0])
def test_telegraph_pixels_have_the_right_mean_and_the_wrong_variance(rng, dose):
    n, found = 128, SessionStatistics((128, 128))
    places = rng.choice(n * n, 60, replace=False)
    quick, slow = places[:30], places[30:]
    for number in range(20):
        frames = rng.poisson(dose, (40, n * n)).astype(np.float64)
        frames[:, quick] = rng.poisson(np.where(rng.random((40, 30)) < 0.2, 5 * dose, 0))
        frames[:, slow] = rng.poisson(2 * dose if number % 2 else 0, (40, 30))
        found.add(frames.reshape(40, n, n))
    made = session_references(found)
    unstable, defects = made.unstable.reshape(-1), made.defects.reshape(-1)
    assert unstable[quick].mean() >= 0.9 and unstable[slow].mean() >= 0.9
    assert defects.sum() - defects[places].sum() <= 1


def test_the_list_of_defects_gets_better_with_the_session():
    """Weak hot pixels that stay: six stacks find some of them, thirty nearly all, and no others."""
    made, recall = Detector((256, 256), seed=3, turnover=0.0, hot_excess=0.6), []
    weak, bad = (made.hot()[0] > 0.4) & ~made.dead, (made.hot()[0] > 0) | made.dead
    found = SessionStatistics((256, 256))
    for index in range(30):
        moments = stack_moments(made.stack(40, 1.2, index).frames)
        found.add(moments, fit_outliers(moments.total).mask)
        if index + 1 in (6, 12, 30):
            references = session_references(found)
            recall.append(references.defects[weak].mean())
            assert np.count_nonzero(references.defects & ~bad) <= 2
            assert references.dark[made.dead].mean() > 0.9
    assert recall[0] < recall[1] < recall[2] and recall[2] > 0.95


@pytest.mark.parametrize("stacks", [1, 2, 4])
def test_clean_short_sessions_have_no_defects(rng, stacks):
    for shape, dose in (((64, 64), 0.06), ((64, 64), 3.0), ((5, 4), 3.0), ((1, 1), 3.0), ((1, 300), 3.0)):
        found = SessionStatistics(shape)
        for _ in range(stacks):
            found.add(rng.poisson(dose, (40, *shape)).astype(np.uint8) + (0 if shape[0] > 9 else 1))
        made = session_references(found)
        assert made.defects.sum() <= 1 and np.isfinite(made.gain).all() and np.isfinite(made.offset).all()
        assert made.report()["n_defects"] == made.defects.sum() and "stacks" in str(made)


def test_odd_sessions_say_so_or_do_nothing():
    empty = SessionStatistics((8, 9))
    with pytest.raises(ValueError, match="stacks"):
        session_references(empty)
    dark = SessionStatistics((8, 9))
    dark.add(np.zeros((3, 8, 9), np.uint8))
    with pytest.raises(ValueError, match="counted nothing"):
        session_references(dark)
    constant = SessionStatistics((64, 64))
    for _ in range(3):
        constant.add(np.full((4, 64, 64), 7, np.int16))
    made = session_references(constant)
    assert (made.gain == 1).all() and not made.defects.any() and not made.offset.any()
    single = SessionStatistics((64, 64))
    for _ in range(8):
        single.add(np.random.default_rng(0).poisson(9, (1, 64, 64)))
    with pytest.raises(ValueError, match="one frame"):
        single.variance()
    assert np.isfinite(session_references(single).gain).all()
    for wrong in (np.ones((3, 8, 8)), np.ones((3, 9, 8))):
        with pytest.raises(ValueError, match="session of"):
            dark.add(wrong)
    with pytest.raises(ValueError, match="flags"):
        dark.add(np.ones((3, 8, 9)), np.ones((9, 8)))
    with pytest.raises(ValueError, match="session of"):
        dark.merge(SessionStatistics((9, 8)))
    with pytest.raises(ValueError, match="shape"):
        session_references(constant, gain=np.ones((9, 8)))
    with pytest.raises(ValueError, match="dark"):
        session_references(constant, dark=np.ones((9, 8)))
    with pytest.raises(ValueError, match="0 × 3"):
        SessionStatistics((0, 3))


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["session.mrcz", "session.mrc"])
def test_kept_and_taken_up_again(rng, tmp_path, name):
    movies = session(rng)
    whole, part = (SessionStatistics(movies[0].shape[1:]) for _ in range(2))
    for movie in movies:
        whole.add(movie, movie[0] > 5)
    for movie in movies[:3]:
        part.add(movie, movie[0] > 5)
    save_statistics(tmp_path / name, part, sources=["a", "ü b"])
    with pytest.raises(FileExistsError):
        save_statistics(tmp_path / name, part)
    again, sources = load_statistics(tmp_path / name)
    assert sources == ["a", "ü b"]
    for movie in movies[3:]:
        again.add(movie, movie[0] > 5)
    for key, image in whole.maps.items():
        assert np.array_equal(again.maps[key], image) and again.maps[key].dtype == image.dtype
    assert again.level_sums == whole.level_sums
    assert (again.stacks, again.frames) == (whole.stacks, whole.frames)
    with pytest.raises(ValueError, match="written as"):
        save_statistics(tmp_path / "session.npz", part)


def altered(state, **maps):
    return state | {"maps": state["maps"] | maps}


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s | {"type": "mrcz.Koma"},
        lambda s: s | {"version": 2},
        lambda s: s | {"shape": [12, 14]},
        lambda s: s | {"shape": [12]},
        lambda s: s | {"shape": None},
        lambda s: s | {"stacks": -1},
        lambda s: s | {"stacks": 10**6},
        lambda s: s | {"frames": 2},
        lambda s: s | {"frames": 0},
        lambda s: s | {"level_sums": [1.0, 1.0]},
        lambda s: s | {"level_sums": [1.0]},
        lambda s: s | {"level_sums": [1.0, -3.0]},
        lambda s: {k: v for k, v in s.items() if k != "maps"},
        lambda s: altered(s, flags=s["maps"]["flags"] + np.uint16(99)),
        lambda s: altered(s, flags=np.zeros(3)),
        lambda s: altered(s, flags=s["maps"]["flags"] * 0.5 + 0.3),
        lambda s: altered(s, within=-s["maps"]["within"]),
        lambda s: altered(s, shift=s["maps"]["shift"] * np.nan),
        lambda s: altered(s, relative=np.zeros((12, 13), "S3")),
    ],
)
def test_statistics_that_cannot_be_true_are_refused(rng, change):
    found = SessionStatistics((12, 13))
    for movie in session(rng):
        found.add(movie)
    SessionStatistics.from_dict(found.to_dict())
    with pytest.raises(ValueError, match=r"session statistics|values to unpack|statistics of"):
        SessionStatistics.from_dict(change(found.to_dict()))


def test_files_of_anything_else_are_refused(rng, tmp_path):
    import mrcz

    mrcz.write(tmp_path / "a.mrcz", rng.random((5, 12, 13)).astype(np.float32), kind="stack")
    found = SessionStatistics((12, 13))
    found.add(session(rng)[0])
    state = {k: v for k, v in found.to_dict().items() if k != "maps"}
    maps = np.stack([image.astype(np.float32) for image in found.maps.values()])
    for number, (frames, metadata) in enumerate(
        [
            (maps[:4], {"session_statistics": state}),
            (maps, {"session_statistics": 3}),
            (maps, {"session_statistics": state, "sources": 3}),
            (maps, {"session_statistics": state | {"frames": 0}}),
            (maps[:, :5], {"session_statistics": state}),
            (-maps, {"session_statistics": state}),
        ]
    ):
        mrcz.write(tmp_path / f"{number}.mrcz", frames, kind="stack", metadata=metadata)
        with pytest.raises(FormatError, match=f"{number}.mrcz"):
            load_statistics(tmp_path / f"{number}.mrcz")
    with pytest.raises(FormatError, match=r"a.mrcz"):
        load_statistics(tmp_path / "a.mrcz")
