"""Every tool of the corrections on every odd image and broken reference: a clear error, or numbers without NaN."""

import dataclasses
import json
import re

import numpy as np
import pytest
from odd_images import ODD

from mrcz.correct import (
    Correction,
    Koma,
    apply_gain,
    contrast_score,
    correlation,
    correlation_report,
    fit_gamma,
    fit_outliers,
    held_out_correlation,
    iciness,
    koma_references,
    make_gain,
    search_orientation,
)
from mrcz.correct.outliers import METHODS

FINITE = [name for name, stack in ODD.items() if np.isfinite(stack).all()]
DEFECT = {"all NaN", "NaN row", "infinite"}


def numbers(value):
    """Every array and float inside a result."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, float | np.floating):
        yield np.asarray(value)
    elif isinstance(value, dict):
        for item in value.values():
            yield from numbers(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from numbers(item)
    elif dataclasses.is_dataclass(value):
        yield from numbers([getattr(value, f.name) for f in dataclasses.fields(value) if f.name != "curve"])


def no_nan(result):
    for array in numbers(result):
        assert not np.isnan(array).any()


def mean_of(stack):
    return stack.mean(0, dtype=np.float64) if np.isfinite(stack).all() else stack[0].astype(np.float64)


def gain_for(stack):
    return np.random.default_rng(1).uniform(0.8, 1.25, stack.shape[1:]).astype(np.float32)


#: What may be said, by tool; anything else, a NaN and a warning fail.
SAYS = {
    "gamma": "counted nothing|no pattern|without a good one",
    "make a gain": "without a pixel that counted",
    "iciness": "hold nothing|no contrast|not finite",
    "moving average": "not finite|two stacks",
    "held out": "at least two frames",
    "apply gain": None,
    "orientation": None,
    "contrast": None,
    "correlation": None,
}
TOOLS = {
    "gamma": lambda stack: fit_gamma(mean_of(stack), gain_for(stack)),
    "make a gain": lambda stack: make_gain(mean_of(stack)),
    "iciness": lambda stack: iciness(mean_of(stack), 1.0),
    "moving average": lambda stack: [(r, r.pattern) for r in koma_references(list(stack), 1)],
    "held out": held_out_correlation,
    "apply gain": lambda stack: apply_gain(np.where(np.isfinite(stack[0]), stack[0], 0), gain_for(stack), gamma=1.2),
    "orientation": lambda stack: [score for _, score in search_orientation(mean_of(stack), gain_for(stack))],
    "contrast": lambda stack: contrast_score(np.nan_to_num(mean_of(stack))),
    "correlation": correlation,
}


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("name", ODD)
def test_tools_on_odd_images(name, tool):
    stack = ODD[name]
    before = stack.copy()
    try:
        result = TOOLS[tool](stack)
    except ValueError as error:
        assert SAYS[tool] and re.search(SAYS[tool], str(error)), error
    else:
        no_nan(result)
    assert np.array_equal(stack, before, equal_nan=stack.dtype.kind == "f")


@pytest.mark.parametrize("method", [*METHODS, None])
@pytest.mark.parametrize("name", ODD)
def test_the_whole_correction_of_odd_images(name, method):
    stack, gain = ODD[name], gain_for(ODD[name])
    if method is None and name in DEFECT:
        return  # without a filter what is not finite stays so, as documented
    defects = np.zeros(stack.shape[1:], bool)
    defects[0, 0] = True
    parts = {"dark": np.full(stack.shape[1:], 0.25), "gain": gain, "gamma": 1.1, "defects": defects}
    correction = Correction.fit(stack, method, **parts)
    out = correction.apply(stack)
    total = correction.sum(stack)
    no_nan([out, total])
    # A pixel that was not flagged is raw times gain and nothing else.
    plain = Correction(dark=parts["dark"], gain=gain, gamma=1.1).apply(stack)
    kept = np.ones(stack.shape[1:], bool) if correction.outliers is None else correction.outliers.weights == 1
    assert np.array_equal(out[:, kept], plain[:, kept])
    assert np.array_equal(out, correction.apply(stack)) and np.array_equal(total, correction.sum(stack))
    if method is not None:
        noisy = Correction.fit(stack, method, noise=True, seed=3, **parts)
        assert np.array_equal(noisy.apply(stack), noisy.apply(stack))
        no_nan(noisy.apply(stack))
        json.dumps(correction.outliers.report(), allow_nan=False)
        if len(stack) > 1:
            no_nan(correlation_report(stack, fit_outliers(stack, method, defects=defects)))


def test_a_filter_is_what_takes_nan_out():
    stack = ODD["NaN row"]
    assert np.isnan(Correction.fit(stack, None).apply(stack)[:, 7]).all()
    assert np.isfinite(Correction.fit(stack).apply(stack)).all()


# ---- gain references -------------------------------------------------------------------------------------------------

STACK = ODD["gradient"]
SHAPE = STACK.shape[1:]


def broken(value):
    gain = np.ones(SHAPE, np.float32)
    gain[3, 4] = value
    return gain


USES = {
    "apply_gain": lambda gain: apply_gain(STACK[0], gain),
    "fit_outliers": lambda gain: fit_outliers(STACK, gain=gain).fill,
    "correction": lambda gain: Correction.fit(STACK, gain=gain).apply(STACK),
    "correction without filter": lambda gain: Correction.fit(STACK, None, gain=gain).apply(STACK),
    "its sum": lambda gain: Correction.fit(STACK, gain=gain).sum(STACK),
    "gamma": lambda gain: fit_gamma(
        np.where(np.arange(64) < 32, 9.0, 11.0) / np.ones(SHAPE), np.where(np.arange(64) < 32, 1.1, 0.9) * gain
    ),
    "orientation": lambda gain: [s for _, s in search_orientation(STACK.mean(0), gain)],
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("value", [0, np.nan, np.inf, -np.inf])
def test_unusable_pixels_of_a_gain_never_reach_the_result(use, value):
    no_nan(USES[use](broken(value)))


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(
    ("gain", "words"),
    [(broken(-1), "negative"), (np.ones((64, 65), np.float32), "shape"), (np.ones((4, 64, 64)), "shape")],
)
def test_a_negative_or_misshapen_gain_is_refused_everywhere(use, gain, words):
    with pytest.raises(ValueError, match=f"{words}|broadcast" if use == "gamma" else words):
        USES[use](gain)


def test_unusable_pixels_of_a_gain_are_filled():
    for value in (0, np.nan):
        model = fit_outliers(STACK, gain=broken(value))
        assert model.mask[3, 4] and np.isfinite(model.fill).all()
    out = Correction.fit(STACK, gain=broken(0)).apply(STACK)
    assert out[:, 3, 4].mean() == pytest.approx(STACK[:, 2:5, 3:6].mean(), rel=0.3)
    with pytest.raises(ValueError, match="usable"):
        Correction(gain=np.zeros(SHAPE))


@pytest.mark.parametrize("gamma", [2000.0, -2000.0])
def test_a_gamma_beyond_numbers_is_refused(gamma):
    with pytest.raises(ValueError, match="infinite"):
        Correction(gain=gain_for(STACK), gamma=gamma)
    with pytest.raises(ValueError, match="infinite"):
        apply_gain(STACK[0], gain_for(STACK), gamma=gamma)


@pytest.mark.parametrize("dark", [np.ones(64), np.ones((1, 64)), np.ones((64, 65)), np.full(SHAPE, np.nan)])
@pytest.mark.parametrize(
    "use",
    [
        lambda dark: apply_gain(STACK[0], np.ones(SHAPE), dark=dark),
        lambda dark: make_gain(STACK.mean(0), dark=dark),
        lambda dark: fit_gamma(STACK.mean(0), gain_for(STACK), dark=dark),
        lambda dark: search_orientation(STACK.mean(0), gain_for(STACK), dark=dark),
        lambda dark: fit_outliers(STACK, dark=dark),
        lambda dark: Correction(gain=gain_for(STACK), dark=dark),
    ],
)
def test_a_dark_that_does_not_fit_is_refused_everywhere(use, dark):
    with pytest.raises(ValueError, match=r"dark|one image|different shape"):
        use(dark)


@pytest.mark.parametrize("use", [make_gain, lambda flat, defects: fit_gamma(flat, gain_for(STACK), defects=defects)])
def test_a_map_of_another_shape_is_refused(use):
    with pytest.raises(ValueError, match="map of bad pixels"):
        use(STACK.mean(0), defects=np.zeros((1, 64), bool))


# ---- moving average --------------------------------------------------------------------------------------------------


def test_moving_average_of_means_beyond_float32():
    means = [np.full((8, 8), 1e300) + k for k in range(4)]
    with pytest.raises(ValueError, match="float32"):
        koma_references(means, 1)
    assert all(np.isfinite(r.image).all() for r in koma_references(means, 1, dtype=np.float64))
    with pytest.raises(ValueError, match=r"float64|not finite"):
        koma_references([mean * 1e8 for mean in means], 1, dtype=np.float64)


@pytest.mark.parametrize("name", FINITE)
def test_moving_average_is_the_same_live(name):
    stack = ODD[name]
    if len(stack) < 2:
        with pytest.raises(ValueError, match="two stacks"):
            koma_references(list(stack), 2)
        return
    koma = Koma(2)
    live = [r for image in stack for r in koma.push(image)] + koma.finish()
    for a, b in zip(live, koma_references(list(stack), 2), strict=True):
        assert np.array_equal(a.image, b.image) and a.mean == b.mean
        no_nan([a, a.pattern])


# ---- empty -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(0, 4, 4), (3, 0, 4), (3, 4, 0)])
@pytest.mark.parametrize(
    "use",
    [
        *(lambda s, m=m: fit_outliers(s, m, defects=np.zeros(s.shape[1:], bool)) for m in METHODS),
        Correction.fit,
        lambda s: Correction().apply(s),
        lambda s: Correction().sum(s),
        lambda s: koma_references(list(s), 1),
        correlation,
        held_out_correlation,
        lambda s: make_gain(s[0] if len(s) else s),
        lambda s: fit_gamma(s[0] if len(s) else s, np.ones(s.shape[1:])),
        lambda s: search_orientation(s[0] if len(s) else s, np.ones(s.shape[1:])),
        lambda s: iciness(s[0] if len(s) else s, 1.0),
    ],
)
def test_empty_stacks_are_refused(use, shape):
    with pytest.raises(ValueError, match=r"no pixels|two stacks|one image|counted|usable|shape|no stack"):
        use(np.zeros(shape, np.uint8))
