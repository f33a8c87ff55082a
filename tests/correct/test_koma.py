"""The moving average: against the formula, live against batch, and what it reaches on a simulated session."""

import functools

import numpy as np
import pytest

from mrcz.correct import Koma, contrast_score, correlation, fit_outliers, koma_references
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
            koma = Koma.from_state(koma.state())
        live += koma.push(mean, exclude=n in excluded)
    live += Koma.from_state(koma.state()).finish()
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
        (lambda: Koma.from_state({}), "state"),
    ],
)
def test_nonsense_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


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
    sums, frames, m, middle = session(seed)
    options, widest = FILTERS[method]
    means = [fit_outliers(counts, method, **options).apply_frame(counts) / m for counts in sums]
    halves = ((frames[: m // 2], frames[m // 2 :]), (frames[m // 2 :], frames[: m // 2]))
    models = [fit_outliers(seen, method, **options) for seen, _ in halves]
    for radius in (r for r in (1, 2, 3, 4, 8, 12) if r <= widest):
        pattern = koma_references(means, radius)[middle].pattern
        reached = np.mean([
            correlation(judged, lambda frame, number, model=model, pattern=pattern: model.apply_frame(frame) - pattern)
            for (_, judged), model in zip(halves, models, strict=True)
        ])
        limit = 1 / (2 * radius * m)
        if radius <= 4:
            assert reached == pytest.approx(limit, rel=0.1)
        else:
            assert reached <= limit + 3e-4
