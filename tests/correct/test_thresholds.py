"""From a histogram to thresholds: histograms whose thresholds are known on paper."""

import dataclasses

import numpy as np
import pytest
from scipy.special import gammaln, ndtr

from mrcz.correct.thresholds import (
    Histogram,
    NormalFit,
    Scale,
    fdr_threshold,
    fit_normal,
    poisson_mean,
    sigma_clip,
    tail_thresholds,
)


def histogram(edges, counts, below=0, above=0):
    return Histogram(np.array(edges, float), np.array(counts), below, above, 0, True)


def standard(z, r):
    """A fit of mean 0 and σ 1 whose residual at z is r."""
    return NormalFit(0.0, 1.0, 0.0, z, ndtr(z - r), ndtr(r - z))


def probability(n, rate):
    """Of n counts where ``rate`` are expected."""
    return np.exp(n * np.log(rate) - rate - gammaln(n + 1))


# ---- histograms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["i2", "u4", "f4", "f8"])
def test_whole_numbers_have_a_bin_a_value_with_the_value_in_its_middle(dtype):
    found = Histogram.of(np.array([[2, 2, 3], [5, 2, 3]], dtype))
    assert found.edges.tolist() == [1.5, 2.5, 3.5, 4.5, 5.5] and found.counts.tolist() == [3, 2, 0, 1]
    assert found.whole and (found.below, found.above, found.bad) == (0, 0, 0)


def test_whole_floats_below_zero_and_beside_nan():
    found = Histogram.of(np.array([np.nan, -3, -1, np.inf, -1], "f4"))
    assert found.whole and found.bad == 2 and found.total == 3
    assert found.edges.tolist() == [-3.5, -2.5, -1.5, -0.5] and found.counts.tolist() == [1, 0, 2]


@pytest.mark.parametrize("dtype", ["i4", "f8"])
@pytest.mark.parametrize(("span", "exact"), [((1 << 20) - 1, True), (1 << 20, False)])
def test_up_to_a_million_values_have_a_bin_each(dtype, span, exact):
    image = np.arange(7, 107).astype(dtype)
    image[0], image[-1] = 5, 5 + span
    found = Histogram.of(image)
    assert (len(found.counts) == 1 << 20) == exact and found.total == 100
    assert found.whole == (exact or dtype == "i4")
    if exact:
        assert found.edges[0] == 4.5 and found.edges[-1] == 5 + span + 0.5


def test_integers_of_a_wide_span_have_bins_of_equally_many_values(rng):
    image = np.round(rng.normal(5e6, 3e5, 20000)).astype("i8")
    image[0] = 1 << 40
    found = Histogram.of(image)
    width = np.diff(found.edges)
    assert found.whole and (width == width[0]).all() and width[0] == round(width[0]) > 1
    assert found.edges[0] % 1 == 0.5  # no value lies on an edge
    assert found.above == 1 and found.total == 20000
    assert width[0] == pytest.approx(3e5 / 64, rel=0.05)


@pytest.mark.parametrize("at", [3, 20_000, 99_999])
def test_one_pixel_with_a_fraction_makes_them_no_counts(at):
    image = np.tile(np.arange(10.0), 10_000)
    assert Histogram.of(image).whole and len(Histogram.of(image).counts) == 10
    image[at] += 0.25
    assert not Histogram.of(image).whole


def test_all_counts_on_all_threads(rng):
    image = rng.integers(0, 200, 300_000)
    for kind in ("i4", "f4"):
        found = Histogram.of(image.astype(kind), 3)
        assert np.array_equal(found.counts, np.bincount(image, minlength=200)[image.min() : image.max() + 1])


def test_fractions_have_64_bins_a_sigma_and_the_median_in_the_middle_of_one(rng):
    image = rng.normal(7, 2, 50_001)
    found = Histogram.of(image)
    assert not found.whole
    assert np.diff(found.edges).mean() == pytest.approx(2 / 64, rel=0.03)
    middle = (found.edges[4096] + found.edges[4097]) / 2
    assert middle == pytest.approx(np.median(image), abs=1e-9) and len(found.counts) == 8193


def test_more_than_half_of_the_pixels_alike(rng):
    # The median deviation is 0: the mean one gives the width of the bins.
    image = np.full(20_000, 0.5)
    image[::4] = rng.normal(0.5, 1, 5000)
    found = Histogram.of(image)
    assert found.total == 20_000 and found.below == found.above == 0
    assert np.diff(found.edges).mean() == pytest.approx(1.2533 * np.abs(image - 0.5).mean() / 64, rel=1e-3)


def test_a_few_pixels_far_away_do_not_widen_the_bins(rng):
    image = rng.normal(7, 0.2, 50_001)
    image[:2000] += 1e4
    found = Histogram.of(image)
    assert np.diff(found.edges).mean() == pytest.approx(0.2 / 64, rel=0.1) and found.above == 2000


def test_images_without_a_spread():
    found = Histogram.of(np.full(100, 0.7))
    assert found.total == 100 and found.counts.max() == 100 and not found.whole
    assert np.diff(found.edges).mean() == pytest.approx(0.7e-6 / 64, rel=1e-3)
    found = Histogram.of(np.full(100, np.nan))
    assert (found.total, found.bad, found.edges.tolist(), found.counts.tolist()) == (0, 100, [0, 1], [0])


def test_numbers_too_large_to_have_a_spread():
    image = np.tile([-1.7e308, 1.7e308, 1e299, -1e299], 50)
    with np.errstate(over="ignore"):
        found = Histogram.of(image)
    assert (found.below, found.above, found.counts.sum()) == (50, 50, 100) and len(found.counts) == 8192
    assert found.edges[0] == -1e300 and found.edges[-1] == pytest.approx(1e300)


def test_pixels_that_are_no_numbers_where_the_sample_is_taken(rng):
    image = np.full(1 << 17, np.nan)
    image[1::2] = rng.normal(7, 2, 1 << 16)  # every second pixel is looked at for the bins
    found = Histogram.of(image)
    assert found.bad == 1 << 16 and np.diff(found.edges).mean() == pytest.approx(2 / 64, rel=0.03)
    image = np.full(50_000, np.nan)
    image[40_000:40_100] = np.arange(100)  # whole numbers behind many that are none
    found = Histogram.of(image)
    assert found.whole and len(found.counts) == 100 and found.total == 100


def test_quantiles_and_spread_count_what_is_outside():
    ten = histogram(range(11), [10] * 10)
    assert ten.quantile(0.5) == 5 and ten.quantile(0.25) == 2.5 and ten.quantile(1) == 10
    median, spread = ten.robust()
    assert median == pytest.approx(5) and spread == pytest.approx(1.4826 * 2.5)
    low, high = histogram(range(11), [10] * 10, below=20), histogram(range(11), [10] * 10, above=20)
    assert low.total == high.total == 120
    assert low.quantile(0.5) == pytest.approx(4) and high.quantile(0.5) == pytest.approx(6)
    assert low.robust()[1] == high.robust()[1] == pytest.approx(1.4826 * 3)


def test_the_spread_where_nearly_half_is_outside():
    # 51 of 100 within [−10, 0]: half of all lie within the median, at one end of it, ± 9.8.
    below = histogram(range(-10, 1), [5.1] * 10, below=49)
    above = histogram(range(-10, 1), [5.1] * 10, above=49)
    for found, median in ((below, -10 + 10 / 51), (above, -10 / 51)):
        assert found.robust() == pytest.approx((median, 1.4826 * 500 / 51 * (1 - 1 / 50)), rel=0.03)
        assert found.robust()[0] == pytest.approx(median)


@pytest.mark.parametrize("flip", [1, -1])
def test_the_spread_of_a_lopsided_histogram(flip):
    # Half of it within [0, 1], a third within [1, 2], the rest far away: median 1, and half lies within 1 ± 0.6.
    found = histogram(range(13), [6, 4, *[0] * 9, 2][::flip])
    median, spread = found.robust()
    assert median == pytest.approx(1 if flip == 1 else 11)
    assert spread == pytest.approx(1.4826 * 0.6)


# ---- scales ----------------------------------------------------------------------------------------------------------


def test_the_square_root_makes_counts_of_any_mean_alike(rng):
    scale = Scale("anscombe", 1.0)
    assert scale.forward(1.0) == pytest.approx(2 * np.sqrt(1.375)) and scale.forward(-5) == scale.forward(0)
    for mean in (10, 100):
        assert scale.forward(rng.poisson(mean, 100_000)).std() == pytest.approx(1, abs=0.02)
    assert Scale("anscombe", 4.0).forward(8.0) == pytest.approx(2 * np.sqrt(2.375))
    assert Scale("anscombe", 4.0).backward(2 * np.sqrt(2.375)) == pytest.approx(8)
    assert scale.backward(2 * np.sqrt(0.375)) == -np.inf and scale.backward(1.3) == pytest.approx(0.0475)


def test_levels_no_count_reaches():
    scale = Scale("poisson", 2.0)
    assert scale.backward(-30.0) == -np.inf
    assert scale.backward(float(scale.forward(0.5))) == pytest.approx(0.5)
    assert scale.backward(float(scale.forward(25.5))) == pytest.approx(25.5)
    assert Scale().backward(3.25) == 3.25 and Scale().forward([3.25]).tolist() == [3.25]


# ---- the fit ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0.25, 1.0])
def test_a_normal_histogram_gives_its_mean_and_sigma(step):
    edges = np.arange(-200, 200 + step, step)
    found = histogram(edges, np.rint(np.diff(ndtr((edges - 10.3) / 20)) * 1e7))
    fit = fit_normal(found, Scale())
    assert fit.mu == pytest.approx(10.3, abs=0.02) and fit.sigma == pytest.approx(20, abs=0.02) and fit.error < 1e-4
    # Right edges, a twelfth of σ apart, as far as 8σ.
    width = np.diff(fit.edges)
    assert width[:-1] == pytest.approx(round(20 / 12 / step) * step)
    assert fit.edges[0] == pytest.approx(10.3 - 8 * 20, abs=3) and fit.edges[-1] == pytest.approx(10.3 + 8 * 20, abs=3)
    assert repr(fit).startswith("NormalFit(mu=10.") and len(repr(fit)) < 120  # no arrays
    assert fit.cdf[-1] == 1 and fit.tail[-1] == 0 and np.allclose(fit.cdf + fit.tail, 1)
    assert fit.cdf == pytest.approx(ndtr((fit.edges - 10.3) / 20), abs=1e-5)


def test_the_fit_looks_as_far_as_8_sigma_and_no_further():
    edges = np.arange(-400.0, 404, 4)
    found = histogram(edges, np.rint(np.diff(ndtr((edges - 10.3) / 20)) * 1e7))
    median, spread = found.robust()
    fit, low, high = fit_normal(found, Scale()), median - 8 * spread, median + 8 * spread
    assert (np.diff(fit.edges) == 4).all()
    assert low <= fit.edges[0] < low + 4 and high + 4 <= fit.edges[-1] < high + 8
    # What lies further away is not in it.
    counts = found.counts.copy()
    counts[[0, -1]] = 10**6
    far = fit_normal(histogram(edges, counts), Scale())
    assert far.mu == pytest.approx(fit.mu, abs=0.05) and far.sigma == pytest.approx(fit.sigma, abs=0.3)


def test_what_was_found_stays():
    fit = standard(np.arange(3.0), np.zeros(3))
    values = [(Scale(), "kind"), (fit, "mu"), (histogram([0, 1], [1]), "below"), (tail_thresholds(fit)[0], "threshold")]
    for value, name in values:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, name, 1)


def test_a_histogram_of_few_pixels_or_values_has_no_fit():
    assert fit_normal(histogram(range(5), [3, 4, 4, 4]), Scale()) is None
    assert fit_normal(histogram(range(5), [3, 5, 4, 4]), Scale()) is not None
    assert fit_normal(histogram(range(5), [8, 8, 0, 0]), Scale()) is None
    assert fit_normal(histogram(range(4), [8, 8, 8]), Scale()) is not None


def test_values_that_their_scale_maps_to_one_have_no_fit():
    """Counts below 0, of which a square root makes the same number."""
    found = histogram(np.arange(-60, -19), np.rint(1e4 * np.exp(-(((np.arange(-60, -20) + 40) / 5) ** 2))))
    assert fit_normal(found, Scale()) is not None and fit_normal(found, Scale("anscombe")) is None


def test_the_poisson_distribution_is_normal_on_its_own_scale():
    n = np.arange(31)
    found = histogram(np.arange(32) - 0.5, np.rint(probability(n, 4.0) * 1e8))
    fit = fit_normal(found, Scale("poisson", 4.0))
    assert fit.mu == pytest.approx(0, abs=1e-3) and fit.sigma == pytest.approx(1, abs=1e-3)


# ---- tails -----------------------------------------------------------------------------------------------------------


def bent(z, dark, hot):
    """Residuals that are 0 in the middle and lines (slope, crossing) in the tails."""
    return np.where(z > hot[1], hot[0] * (z - hot[1]), np.where(z < dark[1], dark[0] * (z - dark[1]), 0.0))


def test_thresholds_are_where_the_lines_of_the_tails_cross_zero():
    z = np.linspace(-7.01, 7.01, 169)
    dark, hot = tail_thresholds(standard(z, bent(z, (0.4, -3.5), (0.5, 3.0))))
    assert dark.threshold == pytest.approx(-3.5, abs=1e-6) and hot.threshold == pytest.approx(3, abs=1e-6)
    assert dark.found == hot.found == "tail"
    assert dark.slope == pytest.approx(0.4, abs=1e-6) and dark.intercept == pytest.approx(0.4 * 3.5, abs=1e-6)
    assert hot.slope == pytest.approx(0.5, abs=1e-6) and hot.intercept == pytest.approx(-1.5, abs=1e-6)
    # Their bins: r < −0.5 begins at −3.5 − 0.5/0.4, r ≥ 0.5 at 3 + 0.5/0.5.
    assert dark.n_bins == np.count_nonzero(z <= -4.75) and hot.n_bins == np.count_nonzero(z >= 4)


@pytest.mark.parametrize("crossing", [1.9, 2.1, 7.9, 8.1])
def test_a_tail_begins_between_2_and_8_sigma(crossing):
    z = np.linspace(-12, 12, 289)
    found = tail_thresholds(standard(z, bent(z, (0.45, -crossing), (0.45, crossing))))
    for tail, sign in zip(found, (-1, 1), strict=True):
        if 2 < crossing < 8:
            assert tail.threshold == pytest.approx(sign * crossing, abs=1e-3) and tail.found == "tail"
        else:
            assert tail.threshold == sign * np.inf and tail.found == "none" and np.isnan(tail.slope)


@pytest.mark.parametrize("n", [2, 3])
def test_a_tail_has_three_bins(n):
    z = np.array([-3, -2, -1, 0, 1, 2, 3, *np.linspace(4.2, 5, n)])
    dark, hot = tail_thresholds(standard(z, bent(z, (0.5, -9), (0.5, 3.0))))
    assert (dark.found, dark.n_bins) == ("none", 0)
    assert hot.n_bins == n and hot.found == ("tail" if n == 3 else "none")


def test_a_tail_that_bends_the_other_way_is_none():
    z = np.linspace(-7, 7, 169)
    r = np.where(z > 4, 1.5 - 0.1 * (z - 4), np.where(z < -4, -1.5 - 0.1 * (z + 4), 0.0))
    dark, hot = tail_thresholds(standard(z, r))
    assert (dark.threshold, hot.threshold) == (-np.inf, np.inf) and dark.n_bins > 3 < hot.n_bins


def test_edges_beyond_every_pixel_say_nothing():
    z = np.linspace(-7, 7, 169)
    fit = standard(z, bent(z, (0.4, -3.5), (0.5, 3.0)))
    cdf, tail = fit.cdf.copy(), fit.tail.copy()
    cdf[:5], tail[-5:] = 0, 0
    model, residual = NormalFit(0.0, 1.0, 0.0, z, cdf, tail).residual()
    assert np.array_equal(model, z[5:-5]) and np.isfinite(residual).all()
    assert residual == pytest.approx(bent(model, (0.4, -3.5), (0.5, 3.0)), abs=1e-6)


# ---- the false-discovery rate ----------------------------------------------------------------------------------------


UNIT = NormalFit(0.0, 1.0, 0.0, *[np.empty(0)] * 3)


@pytest.mark.parametrize(("alpha", "at"), [(0.2, 3), (0.1, 4), (1e-9, np.inf)])
@pytest.mark.parametrize("outside", [False, True])
def test_the_rate_of_false_discoveries(alpha, at, outside):
    # 10 of 1000 pixels above 5, none between 1 and 5: n·Q(z) ≤ α·10 begins at z = 2.88 for α = 0.2, 3.09 for 0.1.
    edges = np.arange(-6, 7)
    counts = np.zeros(12, int)
    counts[[5, 6]] = 490
    if not outside:
        counts[[0, 11]] = 10
    given = (10, 10) if outside else (0, 0)
    dark, hot = fdr_threshold(histogram(edges, counts, *given), Scale(), UNIT, alpha)
    assert (dark.threshold, hot.threshold) == (-at, at)
    assert dark.found == hot.found == ("none" if at == np.inf else "fdr")


def test_one_outlier_of_a_thousand_and_none():
    edges, counts = np.arange(-50, 51), np.zeros(100, int)
    counts[[49, 50]] = 500, 499
    counts[60] = 1  # between 10 and 11: 1000·Q(z) ≤ 0.2 begins at 3.54
    dark, hot = fdr_threshold(histogram(edges, counts), Scale(), UNIT, 0.2)
    assert (hot.threshold, hot.found, hot.n_bins) == (4, "fdr", 0)
    assert (dark.threshold, dark.found, dark.n_bins) == (-np.inf, "none", 0)
    dark, hot = fdr_threshold(histogram(edges, counts[::-1]), Scale(), UNIT, 0.2)
    assert (dark.threshold, hot.threshold) == (-4, np.inf)
    counts[60] = 0  # and 40σ from the mean nothing is expected, nothing is there, and nothing is found
    assert [tail.found for tail in fdr_threshold(histogram(edges, counts), Scale(), UNIT, 0.2)] == ["none", "none"]


def test_each_tail_has_its_own():
    edges, counts = np.arange(-6, 7), np.array([0, 0, 0, 0, 0, 500, 490, 0, 0, 0, 0, 10])
    dark, hot = fdr_threshold(histogram(edges, counts), Scale(), UNIT, 0.2)
    assert dark.threshold == -np.inf and hot.threshold == 3
    dark, hot = fdr_threshold(histogram(edges, counts[::-1]), Scale(), UNIT, 0.2)
    assert dark.threshold == -3 and hot.threshold == np.inf


def test_nothing_within_2_sigma_is_an_outlier():
    edges, counts = np.arange(-6, 7), np.array([300, 0, 0, 0, 0, 200, 200, 0, 0, 0, 0, 300])
    dark, hot = fdr_threshold(histogram(edges, counts), Scale(), UNIT, 0.5)
    assert (dark.threshold, hot.threshold) == (-3, 3)


def test_just_the_rate_is_enough():
    edges, counts = np.arange(-6, 7), np.array([8, 0, 0, 0, 0, 492, 492, 0, 0, 0, 0, 8])
    alpha = 1000 * ndtr(-3.0) / 8  # exact: 8 is a power of two
    dark, hot = fdr_threshold(histogram(edges, counts), Scale(), UNIT, alpha)
    assert (dark.threshold, hot.threshold) == (-3, 3)


def test_the_rate_on_the_scale_of_the_fit():
    # The same histogram, stretched and moved: the thresholds are in σ.
    edges, counts = 100 + 20 * np.arange(-6, 7), np.array([10, 0, 0, 0, 0, 490, 490, 0, 0, 0, 0, 10])
    fit = NormalFit(100.0, 20.0, 0.0, *[np.empty(0)] * 3)
    dark, hot = fdr_threshold(histogram(edges, counts), Scale(), fit, 0.2)
    assert (dark.threshold, hot.threshold) == (-3, 3)


# ---- the other two ---------------------------------------------------------------------------------------------------


def test_clipping_leaves_what_is_near():
    counts = np.zeros(101, int)
    counts[[0, 2]], counts[100] = 50, 1
    mean, spread = sigma_clip(histogram(np.arange(102) - 0.5, counts), 4)
    assert mean == pytest.approx(1) and spread == pytest.approx(1)
    mean, spread = sigma_clip(histogram(np.arange(102) - 0.5, counts), 20)
    assert mean == pytest.approx(200 / 101) and spread == pytest.approx(np.sqrt((200 + 10000) / 101 - (200 / 101) ** 2))


def test_clipping_goes_on_until_nothing_is_left_to_clip():
    # 100 hides 12 at first.
    counts = np.zeros(101, int)
    counts[[0, 2]], counts[12], counts[100] = 500, 1, 1
    mean, spread = sigma_clip(histogram(np.arange(102) - 0.5, counts), 3)
    assert mean == pytest.approx(1) and spread == pytest.approx(1)


def test_clipping_of_nothing_and_of_one_value():
    assert sigma_clip(histogram(range(4), [0, 0, 0]), 3) == (0, 0)
    assert sigma_clip(histogram(range(4), [0, 9, 0]), 3) == (1.5, 0)


@pytest.mark.parametrize("rate", [0.05, 0.7, 3.7, 25.0])
def test_the_mean_of_counts_is_blind_to_a_few_outliers(rate):
    n = np.arange(300)
    counts = np.rint(probability(n, rate) * 1e6)
    edges = np.arange(301) - 0.5
    assert poisson_mean(histogram(edges, counts)) == pytest.approx(rate, rel=1e-3)
    counts[[150, 280]] += 200
    assert poisson_mean(histogram(edges, counts)) == pytest.approx(rate, abs=1e-3, rel=5e-3)
    assert (counts * n).sum() / counts.sum() > rate + 0.07
