"""The moving average: against the formula, live against batch, and what it reaches on a simulated session."""

import functools
import json

import numpy as np
import pytest
from reference import pattern_numpy as plain

import mrcz
from mrcz import cli
from mrcz.correct import Koma, contrast_score, correlation, fit_outliers, koma_references
from mrcz.correct._pattern import split
from mrcz.simulate import Detector


def by_the_formula(means, radius):
    means = np.asarray(means, np.float64)
    n_stacks = len(means)
    out = []
    for n in range(n_stacks):
        width = min(2 * radius + 1, n_stacks)
        s = int(np.clip(n - radius, 0, n_stacks - width))
        out.append((means[s : s + width].sum(0) - means[n]) / (width - 1))
    return out


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint32, np.float32, np.float64])
@pytest.mark.parametrize(("n_stacks", "radius"), [(2, 1), (3, 1), (5, 1), (7, 2), (8, 4), (9, 4), (40, 3), (5, 20)])
def test_running_sum_is_the_direct_one(rng, n_stacks, radius, dtype):
    means = (rng.random((n_stacks, 5, 7)) * 200).astype(dtype)
    references = koma_references(means, radius, dtype=np.float64)
    assert [r.index for r in references] == list(range(n_stacks))
    for reference, direct in zip(references, by_the_formula(means, radius), strict=True):
        if np.dtype(dtype).kind in "iu":
            np.testing.assert_allclose(reference.image, direct, rtol=3e-16)
        else:
            assert np.abs(reference.image - direct).max() < 1e-12 * 200
        assert reference.mean == pytest.approx(direct.mean(), rel=1e-12)
        assert reference.stacks == min(2 * radius + 1, n_stacks) - 1
        assert abs(reference.pattern.mean()) < 1e-4


def test_latency_is_the_radius(rng):
    koma = Koma(3)
    came = [[r.index for r in koma.push(rng.random((4, 4)))] for _ in range(12)]
    assert came[:6] == [[]] * 6 and came[6] == [0, 1, 2, 3]
    assert came[7:] == [[4], [5], [6], [7], [8]]
    assert [r.index for r in koma.finish()] == [9, 10, 11]
    with pytest.raises(ValueError, match="finished"):
        koma.push(rng.random((4, 4)))


@pytest.mark.parametrize("stop_at", [0, 1, 4, 6, 9, 12])
def test_saved_and_resumed_is_the_same_as_batch(rng, stop_at):
    means = rng.poisson(50, (13, 6, 5)).astype(np.int32)
    excluded = {2, 7}
    batch = koma_references(means, 2, exclude=excluded, n_frames=10)
    koma, live = Koma(2, n_frames=10), []
    for n, mean in enumerate(means):
        if n == stop_at:
            koma = Koma.from_dict(koma.to_dict())
        live += koma.push(mean, exclude=n in excluded)
    live += Koma.from_dict(koma.to_dict()).finish()
    assert [r.index for r in live] == [r.index for r in batch] == list(range(13))
    for a, b in zip(live, batch, strict=True):
        assert np.array_equal(a.image, b.image) and a.mean == b.mean


def test_excluded_stacks_serve_no_one_and_windows_reach_further(rng):
    means = rng.poisson(50, (11, 6, 5)).astype(np.float64)
    means[4] = 1e6
    for references in (koma_references(means, 2, exclude=[4], dtype=np.float64),):
        assert [r.index for r in references] == list(range(11))
        assert max(r.image.max() for r in references) < 200
        assert all(r.stacks == 4 for r in references)
        np.testing.assert_allclose(references[5].image, means[[2, 3, 6, 7]].mean(0))
        np.testing.assert_allclose(references[4].image, means[[2, 3, 5, 6]].mean(0))


def test_contrast_excludes_by_itself(rng):
    means = rng.poisson(1000, (7, 128, 128)).astype(np.float64)
    means[3, :, :40] *= 3
    assert contrast_score(means[3]) > 0.5 and contrast_score(means[0]) < 0.01
    references = koma_references(means, 1, max_contrast=0.1)
    assert max(r.image.max() for r in references) < 1300
    assert contrast_score(np.ones((4, 4))) == 0 and contrast_score(np.zeros((99, 99))) == 0


def test_applied_to_frames(rng):
    pattern = rng.normal(0, 3, (8, 9))
    means = pattern + np.arange(5)[:, None, None] + 20
    reference = koma_references(means, 1)[2]
    frames = np.stack([pattern + 5, pattern + 9]).astype(np.float32)
    out = reference.apply(frames)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out.mean((1, 2)), frames.mean((1, 2)), rtol=1e-5)
    assert out.std((1, 2)).max() < 1e-4
    assert reference.apply(frames, out=frames) is frames and frames.std((1, 2)).max() < 1e-4


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: koma_references(np.ones((1, 4, 4)), 1), "two stacks"),
        (lambda: koma_references([], 1), "two stacks"),
        (lambda: koma_references(np.ones((3, 4, 4)), 0), "radius"),
        (lambda: koma_references(np.ones((3, 4, 4)), 1.5), "radius"),
        (lambda: koma_references([np.ones((4, 4)), np.ones((4, 5))], 1), "stack 1 is"),
        (lambda: koma_references([np.ones((4, 4)), np.full((4, 4), np.nan)], 1), "not finite"),
        (lambda: koma_references(np.ones((3, 4, 4)), 1, exclude=[0, 1]), "two stacks"),
        (lambda: koma_references(np.ones((3, 4, 4)), 1, exclude=[7]), "excluded"),
        (lambda: koma_references(np.ones((3, 4)), 1), "one image"),
        (lambda: Koma(1, dtype=np.int16), "float32 or float64"),
        (lambda: Koma(1, n_frames=0), "n_frames"),
        (lambda: Koma.from_dict({}), "state"),
    ],
)
def test_nonsense_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# ---- what each stack knows, and what of a pattern is noise -----------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.float64])
def test_stacks_weigh_what_they_know(rng, dtype):
    frames = [10, 40, 7, 80, 40, 3, 25]
    means = [
        (rng.poisson(dose * m, (6, 7)) / (1 if dtype == np.int32 else m)).astype(dtype)
        for m, dose in zip(frames, [1, 5, 2, 9, 1, 4, 3], strict=True)
    ]
    for reference in koma_references(means, 2, frames=frames, dtype=np.float64):
        n = reference.index
        start = int(np.clip(n - 2, 0, len(means) - 5))
        others = [k for k in range(start, start + 5) if k != n]
        weight = [frames[k] / means[k].mean(dtype=np.float64) for k in others]
        direct = np.average([means[k].astype(np.float64) for k in others], axis=0, weights=weight)
        np.testing.assert_allclose(reference.image, direct, rtol=1e-12)
    koma, live = Koma(2, dtype=np.float64), []
    for mean, number in zip(means, frames, strict=True):
        live += koma.push(mean, frames=number)
        koma = Koma.from_dict(koma.to_dict())
    live += koma.finish()
    for a, b in zip(live, koma_references(means, 2, frames=frames, dtype=np.float64), strict=True):
        assert np.array_equal(a.image, b.image) and a.factors == b.factors


def test_weights_lower_the_noise_of_a_reference(rng):
    """A stack of few frames or of high dose adds little: the noise is that of the best average."""
    frames, doses = [40, 4, 40, 40, 40], [1.0, 1.0, 20.0, 1.0, 1.0]
    means = [rng.poisson(d * m, (256, 256)) / m for m, d in zip(frames, doses, strict=True)]
    noise = [koma_references(means, 2, frames=f, shrink=False)[4].pattern.var() for f in (frames, None)]
    best = 1 / sum(m / d for m, d in zip(frames[:4], doses[:4], strict=True))
    assert noise[0] == pytest.approx(best, rel=0.05) and noise[1] > 3 * best


@pytest.mark.parametrize("odd", [np.zeros((256, 256)), np.full((256, 256), 7.0), np.full((256, 256), -3.0)])
def test_a_stack_without_an_exposure_does_not_outweigh_the_others(rng, odd):
    pattern = pattern_of("CMOS", 256, rng)
    means = [rng.poisson(np.full((256, 256), 40 * 9.0)) / 40 + pattern for _ in range(5)]
    means[1] = odd
    reference = koma_references(means, 2, frames=[40] * 5)[3]
    assert np.mean((reference.pattern - pattern) ** 2) < 0.02
    assert all(np.isfinite(r.pattern).all() for r in koma_references([odd] * 4, 1, frames=[40] * 4))


def pattern_of(kind, n, rng):
    shapes = {"pixels": (n, n), "columns": (1, n), "rows": (n, 1), "blocks": (4, n // 64)}
    names = {"mixed": ("pixels", "columns", "blocks"), "CMOS": ("columns", "rows")}.get(kind, (kind,))
    image = sum(
        np.kron(rng.standard_normal(shapes[name]), np.ones((n // shapes[name][0], n // shapes[name][1])))
        for name in names
    )
    return (image - image.mean()) / image.std()


def light_of(n):
    y, x = np.linspace(-1, 1, n)[:, None], np.linspace(-1, 1, n)[None]
    return np.exp(-0.1 * ((x - 0.4) ** 2 + (y + 0.3) ** 2))


@pytest.mark.parametrize("unequal", [False, True])
@pytest.mark.parametrize("kind", ["pixels", "CMOS", "mixed"])
@pytest.mark.parametrize("radius", [1, 2, 6])
def test_koma_never_adds_noise(kind, radius, unequal):
    """Whatever pattern there is, less is left after the subtraction; in numbers, of what the true rate shows."""
    n, left_of_weak = 256, []
    for number, (dose, strength) in enumerate(
        (dose, strength) for dose in (0.06, 1.2, 20.0) for strength in (0, 0.1, 0.4, 2)
    ):
        rng = np.random.default_rng([radius, number, unequal])
        frames, doses = np.full(2 * radius + 1, 40), np.full(2 * radius + 1, dose)
        expected = np.ones((n, n))
        if unequal:  # frames and doses differ, the light is uneven and the gain was not taken out
            frames = rng.integers(8, 80, len(frames))
            doses = dose * rng.uniform(0.3, 3, len(frames))
            expected = light_of(n) * (1 + 0.02 * rng.standard_normal((n, n)))
        noise = dose / 40
        pattern = strength * np.sqrt(noise) * pattern_of(kind, n, rng)
        rates = [np.maximum(d * expected + pattern, 0) for d in doses]
        means = [rng.poisson(rate * m) / m for rate, m in zip(rates, frames, strict=True)]
        reference = koma_references(means, radius, frames=frames)[radius]
        there = rates[radius] - rates[radius].mean()
        left = np.mean((there - reference.pattern) ** 2)
        own = doses[radius] / frames[radius]
        assert left <= np.mean(there**2) + 5e-4 * own, (dose, strength, reference.factors)
        if not unequal and strength == 0.4 and radius == 2:
            left_of_weak.append(left / np.mean(there**2))
    # Of a pattern as weak as .4 of a stack's noise, 1.6 × its power is left when it is subtracted whole.
    for left in left_of_weak:
        assert left <= {"pixels": 0.65, "CMOS": 0.20, "mixed": 0.45}[kind]


def test_no_pattern_is_left_alone_and_a_strong_one_goes(rng):
    empty = [rng.poisson(40, (256, 256)) / 40 for _ in range(5)]
    factors = koma_references(empty, 2)[2].factors
    assert max(factors.values()) < 0.1 and sum(value > 0 for value in factors.values()) <= 1
    pattern = 3 * pattern_of("mixed", 256, rng)
    factors = koma_references([mean + pattern for mean in empty], 2)[2].factors
    assert min(factors[name] for name in ("columns", "rows", "pixels")) > 0.95


def test_an_excluded_stack_gets_a_pattern_of_the_same_size(rng):
    pattern = pattern_of("CMOS", 256, rng)
    means = [rng.poisson(40 * np.full((256, 256), 9.0)) / 40 + pattern for _ in range(7)]
    means[3][:, :90] += 40
    reference = koma_references(means, 1, exclude=[3])[3]
    assert np.mean((reference.pattern - pattern) ** 2) < 0.05


@pytest.mark.parametrize("shape", [(256, 256), (300, 421), (257, 1000), (40, 64), (9, 8), (1, 500), (77, 1), (1, 1)])
@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.float64])
def test_parts_are_those_of_plain_numpy(rng, shape, dtype):
    bands, degree = (4, 3) if min(shape) >= 256 else (1, 0)
    y, x = np.linspace(-1, 1, shape[0])[:, None], np.linspace(-1, 1, shape[1])[None]
    base = (
        30 * (np.ones(shape) + 0.2 * x * y - 0.1 * y**2)
        + 3 * rng.standard_normal((1, shape[1]))
        + 2 * rng.standard_normal((shape[0], 1))
        + 2 * rng.standard_normal(shape)
    )
    image = (base + rng.standard_normal(shape)).astype(np.float32)
    other = (base + rng.standard_normal(shape)).astype(dtype)
    found = split(image, other, scale=1.0, n_threads=2)
    most = max(1, other.mean(dtype=np.float64) / image.mean(dtype=np.float64))
    if min(shape) > 1:
        for name, (factor, correlation_) in plain.factors(image, other, bands, 64, degree).items():
            if correlation_ > 0.5 and not (name == "light" and not degree):
                assert found.factors[name] == pytest.approx(min(factor, most), abs=2e-3), name
    expected = sum(found.factors[name] * part for name, part in plain.parts(image, bands, 64, degree).items())
    np.testing.assert_allclose(found.pattern(image), expected - expected.mean(), atol=2e-3)
    twice = split(image, (2 * other).astype(dtype), scale=0.5)
    assert twice.factors == pytest.approx(found.factors, rel=1e-6)


def test_a_state_of_before_weights_is_taken_up(rng):
    koma = Koma(1)
    for _ in range(4):
        koma.push(rng.random((4, 5)))
    old = {k: v for k, v in koma.to_dict().items() if k not in ("weights", "shrink")} | {"version": 1}
    a, b = (Koma.from_dict(state).finish() for state in (old, koma.to_dict()))
    assert len(a) == len(b) > 0 and all(np.array_equal(p.image, q.image) for p, q in zip(a, b, strict=True))


@pytest.mark.parametrize(
    "change",
    [
        {"version": 3},
        {"shape": [4, 6]},
        {"total": np.zeros(3)},
        {"total": np.full(20, np.nan)},
        {"total": None},
        {"weights": [1.0, 0.0, 1.0, 1.0]},
        {"weights": [1.0, np.nan, 1.0, 1.0]},
        {"weights": [1.0]},
        {"positions": [0]},
        {"window": [3, 1]},
        {"window": [0, 99]},
        {"included": 9},
        {"pushed": 1},
        {"pending": [[9, 0, True]]},
        {"pending": [[0, 9, True]]},
        {"means": [np.full((4, 5), np.nan, np.float32)] * 4},
        {"means": [np.zeros((4, 5), "S3")] * 4},
        {"radius": 0},
        {"dtype": "int8"},
    ],
)
def test_a_state_that_contradicts_itself_is_refused(rng, change):
    koma = Koma(2)
    for _ in range(4):
        koma.push(rng.random((4, 5)).astype(np.float32))
    Koma.from_dict(koma.to_dict())
    with pytest.raises((ValueError, TypeError)):
        Koma.from_dict(koma.to_dict() | change)


#: Outlier filters and the widest window at which they are good enough. fdr by itself has a harder edge, against bias.
FILTERS = {"tails": ({}, 12), "fdr": ({"steepness": 6.0, "relax": 0.95}, 8)}


@functools.lru_cache(maxsize=1)
def session(seed, m=40, middle=12):
    """Sums of m frames of 25 stacks without a specimen, and the frames of the one in the middle."""
    detector = Detector((512, 512), seed=seed)
    sums = [np.rint(detector.flat(1.2, m, index) * m).astype(np.uint16) for index in range(2 * middle + 1)]
    return sums, detector.stack(m, 1.2, middle).frames, m, middle


@pytest.mark.parametrize("method", FILTERS)
@pytest.mark.parametrize("seed", range(5))
def test_outlier_filter_and_koma_reach_the_shot_noise_of_the_reference(seed, method):
    """The preprint's form reaches 1/(2am); subtracted by parts, less is left: 1/5 of it at a = 1."""
    sums, frames, m, middle = session(seed)
    options, widest = FILTERS[method]
    means = [fit_outliers(counts, method, **options).apply_frame(counts) / m for counts in sums]
    halves = ((frames[: m // 2], frames[m // 2 :]), (frames[m // 2 :], frames[: m // 2]))
    models = [fit_outliers(seen, method, **options) for seen, _ in halves]
    for radius in (r for r in (1, 2, 3, 4, 8, 12) if r <= widest):
        limit, reached = 1 / (2 * radius * m), {}
        for shrink in (False, True):
            window = means[middle - radius : middle + radius + 1]
            pattern = koma_references(window, radius, shrink=shrink)[radius].pattern
            reached[shrink] = np.mean(
                [
                    correlation(judged, lambda frame, number, m=model, p=pattern: m.apply_frame(frame) - p)
                    for (_, judged), model in zip(halves, models, strict=True)
                ]
            )
        if radius <= 4:
            assert reached[False] == pytest.approx(limit, rel=0.1)
        else:
            assert reached[False] <= limit + 3e-4
        assert reached[True] <= (0.2 if radius == 1 else 0.9) * limit


def test_plain_counts_stay_as_they_are(capsys, tmp_path):
    """``mrcz koma`` as it is, on a healthy detector: it used to replace 3 % of the pixels."""
    rng = np.random.default_rng(0)
    gain = 1 + 0.05 * rng.standard_normal((128, 128))
    for k in range(4):
        mrcz.write(tmp_path / f"s{k}.mrc", rng.poisson(3 * gain, (6, 128, 128)).astype(np.uint8), kind="stack")
    names = [str(tmp_path / f"s{k}.mrc") for k in range(4)]
    assert cli.main(["koma", *names, "-a", "1", "-o", str(tmp_path / "out"), "--json", "-q"]) == 0
    reports = [json.loads(line) for line in capsys.readouterr().out.splitlines()[:-1]]
    assert len(reports) == 4 and all(r["n_outliers"] <= 1e-3 * 128**2 for r in reports)
    assert all(set(r["pattern_factors"]) == {"light", "columns", "rows", "pixels"} for r in reports)


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [
        ("b1", "i4"),
        ("i1", "i4"),
        ("i2", "i4"),
        ("i4", "i4"),
        ("u1", "i4"),
        ("u2", "i4"),
        ("u4", "f8"),
        ("i8", "f8"),
        ("u8", "f8"),
        ("f2", "f4"),
        ("f4", "f4"),
        (">f4", "f4"),
        ("f8", "f8"),
    ],
)
def test_what_a_mean_is_kept_as(dtype, kept):
    """In the smallest type that holds every value of it: sums stay exact, and two means take no more than they need."""
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        mean = np.array([[np.iinfo(dtype).min, np.iinfo(dtype).max >> (dtype.itemsize == 8) * 11, 1, 0]], dtype)
    else:
        mean = np.array([[0, 1, 1, 0]], dtype)
    koma = Koma(1)
    koma.push(mean)
    (stored,) = koma.to_dict()["means"]
    assert stored.dtype == np.dtype(kept) and stored.dtype.isnative
    assert np.array_equal(stored, mean.astype(stored.dtype))
    if dtype.kind in "iu":
        assert [int(value) for value in stored[0]] == [int(value) for value in mean[0]]


def test_numbers_of_frames_that_are_not_one_for_each_mean(rng):
    means = rng.poisson(40, (4, 8, 8))
    with pytest.raises(ValueError, match="frames has 3 numbers, expected one for each mean, and there is a mean 4"):
        koma_references(means, 1, frames=[10] * 3)
    with pytest.raises(ValueError, match="frames has more numbers than there are means, 4"):
        koma_references(means, 1, frames=[10] * 5)
    assert len(koma_references(means, 1, frames=iter([10] * 4))) == 4


@pytest.mark.parametrize("name", ["means", "weights", "positions"])
def test_a_state_that_lacks_a_mean_says_so(rng, name):
    koma = Koma(1)
    for mean in rng.poisson(40, (4, 8, 8)):
        koma.push(mean, frames=10)
    state = koma.to_dict()
    assert Koma.from_dict(state).pushed == 4
    kept = len(state[name])
    state[name] = state[name][:-1]
    with pytest.raises(ValueError, match=r"saved means, .* weights and .* positions") as caught:
        Koma.from_dict(state)
    assert f"{kept - 1} " in str(caught.value) and f"{kept} " in str(caught.value)
