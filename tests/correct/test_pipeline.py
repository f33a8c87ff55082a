"""The pipeline as a value: order, sums, metadata, and references that do not fit."""

import pickle

import msgpack
import numpy as np
import pytest

from mrcz.correct import Correction, EventModel, KomaReference, OutlierModel, fit_outliers
from mrcz.correct.pipeline import digest
from mrcz.errors import StructureWarning
from mrcz.simulate import Detector, record

SHAPE = (96, 128)


@pytest.fixture(scope="module")
def detector():
    return Detector(SHAPE, seed=6, etching_rms=0.06, pixel_gain_rms=0.05, cmos_rms=0.2)


@pytest.fixture(scope="module")
def stack(detector):
    return detector.stack(60, 4.0).frames


@pytest.fixture(scope="module")
def correction(detector, stack):
    return Correction.fit(
        stack, dark=detector.cmos, gain=detector.gain, gamma=detector.gamma(4.0), koma=np.full(SHAPE, 0.25, np.float32)
    )


def test_the_order_is_dark_gain_outliers_koma(detector, stack, correction):
    frame = stack[3].astype(np.float32)
    factor = (detector.gain.astype(np.float64) ** detector.gamma(4.0)).astype(np.float32)
    normal = (frame - detector.cmos) * factor
    expected = correction.outliers.apply_frame(normal, number=3) - np.float32(0.25)
    assert np.array_equal(correction.apply_frame(stack[3], number=3), expected)
    assert np.array_equal(correction.apply(stack)[3], expected)
    assert np.array_equal(list(correction.frames(stack))[3], expected)


def test_the_corrected_mean_is_flat_to_the_shot_noise(detector, stack, correction):
    mean = correction.apply(stack).mean(0, dtype=np.float64)
    assert mean.std() < 1.1 * np.sqrt(4 / 60)
    assert stack.mean(0).std() > 2 * mean.std()


def test_sum_is_the_sum_of_the_frames(stack, correction):
    direct = correction.apply(stack).sum(0, dtype=np.float64)
    np.testing.assert_allclose(correction.sum(stack), direct, rtol=1e-5, atol=1e-2)
    noisy = Correction.from_dict({**correction.to_dict(), "noise": True})
    np.testing.assert_allclose(noisy.sum(stack), direct, rtol=1e-5, atol=1e-2)


def test_out_and_threads_and_read_only(stack, correction):
    raw = stack.copy()
    raw.setflags(write=False)
    out = np.empty(stack.shape, np.float32)
    assert correction.apply(raw, out, n_threads=2) is out
    assert np.array_equal(out, correction.apply(raw, n_threads=1))
    floats = raw.astype(np.float32)
    assert np.array_equal(correction.apply(floats, floats), out)
    frame = raw[0].astype(np.float32)
    assert correction.apply_frame(frame, frame) is frame and np.array_equal(frame, out[0])


def test_zeros_of_the_gain_are_filled(detector, stack):
    gain = detector.gain.copy()
    gain[10, 10], gain[20, 20] = 0, np.nan
    fitted = Correction.fit(stack, gain=gain)
    assert fitted.outliers.mask[10, 10] and fitted.outliers.mask[20, 20]
    assert abs(fitted.apply(stack).mean(0)[10, 10] - 4) < 1
    assert "2 unusable" in str(fitted)
    assert np.isfinite(Correction(gain=gain).apply(stack)).all()
    again = Correction.from_dict(fitted.to_dict())
    assert np.array_equal(again.unusable, fitted.unusable)


def test_an_empty_correction_converts(stack):
    out = Correction().apply(stack)
    assert out.dtype == np.float32 and np.array_equal(out, stack)
    assert str(Correction()) == "Correction: none"


def test_prints_pickles_and_goes_through_messagepack(stack, correction):
    text = str(correction)
    assert len(repr(correction)) < 120 and repr(correction).startswith("Correction(gamma=0.9")  # no arrays
    assert text.index("dark") < text.index("gain^0.93") < text.index("outliers") < text.index("KOMA")
    assert np.array_equal(pickle.loads(pickle.dumps(correction)).apply(stack), correction.apply(stack))
    with pytest.raises(AttributeError):
        correction.gamma = 2
    with pytest.raises(ValueError, match="read-only"):
        correction.gain[0, 0] = 2

    def pack(value):
        return {"shape": value.shape, "dtype": value.dtype.str, "bytes": value.tobytes()}

    def unpack(value):
        if value.keys() == {"shape", "dtype", "bytes"}:
            return np.frombuffer(value["bytes"], value["dtype"]).reshape(value["shape"])
        return value

    packed = msgpack.packb(correction.to_dict(), default=pack)
    again = Correction.from_dict(msgpack.unpackb(packed, object_hook=unpack))
    assert np.array_equal(again.apply(stack), correction.apply(stack))


def test_references_may_be_named_instead_of_stored(detector, stack, correction):
    state = correction.to_dict(references=False)
    assert state["gain"] is None and len(state["gain_digest"]) == 32
    references = {"dark": detector.cmos, "gain": detector.gain, "koma": correction.koma}
    again = Correction.from_dict(state, **references)
    assert np.array_equal(again.apply(stack), correction.apply(stack))
    with pytest.raises(ValueError, match="needs its gain"):
        Correction.from_dict(state, dark=detector.cmos, koma=correction.koma)
    with pytest.raises(ValueError, match="not the one"):
        Correction.from_dict(state, **{**references, "dark": detector.cmos + 1})


def test_a_koma_reference_brings_its_pattern(stack):
    image = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    reference = KomaReference(0, image, float(image.mean()), 2)
    assert np.array_equal(Correction(koma=reference).apply(stack)[0], stack[0] - reference.pattern)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Correction(gain=np.ones((4, 4)), dark=np.ones((4, 5))), "different shape"),
        (lambda: Correction(gain=np.ones((4, 4)), outliers=fit_outliers(np.ones((2, 5, 4)))), "different shape"),
        (lambda: Correction(gain=-np.ones((4, 4))), "negative"),
        (lambda: Correction(dark=np.full((4, 4), np.nan)), "not finite"),
        (lambda: Correction(dark=np.ones(4)), "one image"),
        (lambda: Correction(gamma=float("nan")), "number"),
        (lambda: Correction(gain=np.ones((4, 4))).apply(np.ones((2, 4, 5))), "shape"),
        (lambda: Correction().apply_frame(np.ones((4, 5)), np.ones((4, 5))), "float32"),
        (lambda: Correction().apply(np.ones((2, 4, 5)), np.ones((4, 5), np.float32)), "float32"),
        (lambda: Correction().correct_sum(np.ones((2, 2)), 0), "at least one"),
        (lambda: Correction.from_dict({}), "Correction"),
        (lambda: fit_outliers(np.ones((2, 4, 4)), dark=np.ones((2, 2))), "dark reference"),
    ],
)
def test_parts_that_do_not_fit_say_so(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# ---- on paper --------------------------------------------------------------------------------------------------------

SMALL = (2, 3)
DARK = np.array([[1, 0, 0], [0, 0, 2]], np.float32)
GAIN = np.array([[1, 2, 4], [0, 0.5, 1]], np.float32)
KOMA = np.array([[0.5, 0, 0], [0, 0, -0.5]], np.float32)
RAW = np.array([[[3, 4, 5], [6, 7, 8]], [[9, 8, 7], [6, 5, 4]], [[1, 1, 1], [2, 2, 2]]], "u2")

#: Of frame 0 the pixel 4, of frame 2 the pixels 1 and 5.
EVENTS = EventModel.from_dict(
    {
        "type": "mrcz.EventModel",
        "version": 1,
        "shape": SMALL,
        "n_frames": 3,
        "alpha": 0.1,
        "n_events": 3,
        "noise": "poisson",
        "reason": "",
        "frame": [0, 2, 2],
        "pixel": [4, 1, 5],
        "value": [7, 1, 2],
        "fill": [3, 2.5, 4],
    }
)


def outliers(index, weight=0.0, fill=10.0):
    """A model that replaces these pixels."""
    state = fit_outliers(np.ones((2, *SMALL)), "defects", defects=np.zeros(SMALL, bool)).to_dict()
    n = len(index)
    state |= {"index": np.array(index), "weight": np.full(n, weight, "f4"), "fill": np.full(n, fill, "f4")}
    return OutlierModel.from_dict(state)


@pytest.mark.parametrize(
    ("parts", "expected", "text"),
    [
        ({"dark": DARK}, [[2, 4, 5], [6, 7, 6]], "dark subtracted"),
        ({"gain": GAIN}, [[3, 8, 20], [6, 3.5, 8]], "gain (1 unusable pixels)"),
        ({"gain": GAIN, "gamma": 2}, [[3, 16, 80], [6, 1.75, 8]], "gain^2 (1 unusable pixels)"),
        ({"koma": KOMA}, [[2.5, 4, 5], [6, 7, 8.5]], "KOMA pattern subtracted"),
        ({"outliers": outliers([3])}, [[3, 4, 5], [10, 7, 8]], "1 outliers (defects) replaced"),
        ({"events": EVENTS}, [[3, 4, 5], [6, 3, 8]], "3 events of 3 pixels replaced"),
        (
            {"dark": DARK, "gain": GAIN, "koma": KOMA, "outliers": outliers([3, 5]), "events": EVENTS},
            [[1.5, 8, 20], [10, 1.5, 10.5]],
            "3 events of 3 pixels replaced → dark subtracted → gain (1 unusable pixels) → 2 outliers (defects) replaced"
            " → KOMA pattern subtracted",
        ),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_each_part_on_paper(parts, expected, text):
    correction = Correction(**parts)
    assert np.array_equal(correction.apply_frame(RAW[0], number=0), np.array(expected, np.float32))
    assert correction.shape == SMALL and str(correction) == f"Correction of 2 × 3 frames: {text}"
    every = correction.apply(RAW)
    assert np.array_equal(list(correction.frames(RAW)), every) and np.array_equal(every[0], expected)
    assert np.allclose(correction.sum(RAW), every.sum(0), rtol=1e-6)
    again = Correction.from_dict(correction.to_dict())
    assert np.array_equal(again.apply(RAW), every) and str(again) == str(correction)


def test_nothing_to_do():
    nothing = Correction()
    assert nothing.shape is None and nothing.steps is None and nothing.frame_events([0]) is None
    assert nothing.unusable is None and Correction(gain=np.ones(SMALL)).unusable is None
    assert np.array_equal(Correction(gain=GAIN).unusable, GAIN == 0)
    assert (nothing.gamma, nothing.noise, nothing.seed) == (1, False, 0)
    assert repr(nothing) == "Correction(gamma=1.0, noise=False, seed=0)"
    fitted = Correction.fit(RAW, None)
    assert (fitted.gamma, fitted.noise, fitted.seed) == (1, False, 0)
    assert len({nothing, nothing, fitted}) == 2 and nothing != fitted  # values with arrays: each is itself alone
    frame = RAW[0].astype(np.float32)
    assert nothing.apply_frame(frame, frame) is frame and nothing.apply_frame(frame) is not frame


@pytest.mark.parametrize("bad", [0, np.nan, np.inf, -np.inf])
def test_an_unusable_pixel_keeps_its_count_and_is_written_as_0(bad):
    gain = GAIN.copy()
    gain[1, 0] = bad
    correction = Correction(gain=gain, gamma=1.5)
    assert correction.gain[1, 0] == 0 and correction.apply_frame(RAW[0])[1, 0] == 6
    assert correction.to_dict()["gain"][1, 0] == 0


def test_the_events_of_some_frames_for_the_core():
    correction = Correction(dark=DARK, gain=GAIN, events=EVENTS)
    starts, index, values = correction.frame_events([2, 1, 0])
    assert starts.tolist() == [0, 2, 2, 3] and index.tolist() == [1, 5, 4]
    assert values.tolist() == [2.5 * 2, (4 - 2) * 1, 3 * 0.5]
    assert (index.dtype, values.dtype) == (np.int32, np.float32)
    assert [part.size for part in correction.frame_events([])] == [1, 0, 0]
    with pytest.raises(ValueError, match="frame 3 for events of 3"):
        correction.frame_events([3])


def test_frames_that_do_not_fit():
    correction = Correction(dark=DARK, events=EVENTS)
    for frame in (RAW[0, :, :2], RAW, RAW[0, 0]):
        with pytest.raises(ValueError, match=r"a frame of shape .* for a correction of \(2, 3\)"):
            correction.apply_frame(frame, number=0)
    with pytest.raises(ValueError, match="a frame of shape"):
        Correction().apply_frame(RAW)
    with pytest.raises(TypeError, match="real pixels, not complex64"):
        correction.apply_frame(RAW[0].astype("c8"), number=0)
    with pytest.raises(ValueError, match="needs the number"):
        correction.apply_frame(RAW[0])
    for out in (np.empty((3, 2), "f4"), np.empty(SMALL, "f8")):
        with pytest.raises(ValueError, match=r"out is float32 \(2, 3\)"):
            correction.apply_frame(RAW[0], out, number=0)
    for out in (np.empty((2, *SMALL), "f4"), np.empty(RAW.shape, "f8")):
        with pytest.raises(ValueError, match=r"out is float32 \(3, 2, 3\)"):
            correction.apply(RAW, out)


def test_sums_of_some_frames():
    correction = Correction(dark=DARK, gain=GAIN, koma=KOMA, events=EVENTS)
    every = correction.apply(RAW)
    for numbers in ([0], [2, 0], [1, 1]):
        total = correction.correct_sum(RAW[numbers].sum(0), len(numbers), frames=numbers)
        assert np.allclose(total, every[numbers].sum(0), rtol=1e-6)
    out = np.empty(SMALL, np.float32)
    assert correction.correct_sum(RAW.sum(0), 3, out) is out and np.allclose(out, every.sum(0), rtol=1e-6)
    assert np.array_equal(Correction(dark=DARK).correct_sum(RAW[0], 1), RAW[0] - DARK)
    with pytest.raises(ValueError, match="a sum of 2 frames and events of 3: which frames"):
        correction.correct_sum(RAW[:2].sum(0), 2)
    with pytest.raises(ValueError, match="1 numbers for a sum of 2 frames"):
        correction.correct_sum(RAW[:2].sum(0), 2, frames=[0])


def test_the_noise_has_the_seed_and_the_number_of_the_frame(rng):
    flat = rng.poisson(50, (1, *SHAPE)).astype("u2")
    bad = np.zeros(SHAPE, bool)
    bad[::8, ::8] = True
    model = fit_outliers(flat, "defects", defects=bad)
    stack, noisy = np.concatenate([flat] * 3), Correction(outliers=model, noise=True)
    made = noisy.apply(stack)
    assert not np.array_equal(made[0], made[1]) and not np.array_equal(made[1], made[2])
    assert np.array_equal(noisy.apply_frame(stack[2], number=2), made[2])
    assert np.array_equal(list(noisy.frames(stack)), made) and np.array_equal(noisy.apply(stack, n_threads=2), made)
    assert not np.array_equal(Correction(outliers=model, noise=True, seed=1).apply(stack), made)
    assert np.array_equal(made[0][~bad], flat[0][~bad]) and np.ptp(made[0][bad] - model.fill) > 5
    assert "replaced with noise" in str(noisy)
    again = Correction.from_dict(Correction(outliers=model, noise=True, seed=7).to_dict())
    assert again.noise and again.seed == 7 and again.gamma == 1


def test_what_the_core_can_do_while_it_decodes(rng):
    """All but the noise of outliers, for which it would have to see the frame first."""
    assert Correction(dark=DARK, noise=True).steps is not None
    model = outliers([3, 5])
    assert Correction(outliers=model).steps is not None
    assert Correction(outliers=model, noise=True).steps is None
    assert Correction(outliers=outliers([]), noise=True).steps is not None
    correction = Correction(dark=DARK, outliers=model)
    assert correction.steps is correction.steps
    assert np.array_equal(pickle.loads(pickle.dumps(correction)).apply(RAW), correction.apply(RAW))


# ---- fitting and keeping ---------------------------------------------------------------------------------------------


def test_bad_pixels_of_the_gain_count_beside_the_defects(detector, stack):
    gain, defects = detector.gain.copy(), np.zeros(SHAPE, int)
    gain[10, 10], defects[30, 31] = 0, 2
    only = Correction.fit(stack, "defects", gain=gain, defects=defects).outliers
    assert np.argwhere(only.mask).tolist() == [[10, 10], [30, 31]]
    assert np.argwhere(Correction.fit(stack, "defects", gain=gain).outliers.mask).tolist() == [[10, 10]]
    assert Correction.fit(stack, None, gain=gain).outliers is None


def test_outliers_are_found_after_dark_and_gain(detector, stack, correction):
    gain = (detector.gain.astype(np.float64) ** detector.gamma(4.0)).astype(np.float32)
    direct = fit_outliers(stack, dark=detector.cmos, gain=gain)
    assert np.array_equal(direct.index, correction.outliers.index)
    np.testing.assert_allclose(direct.fill, correction.outliers.fill, rtol=1e-5)


def test_events_found_or_given(rng):
    stack = rng.poisson(2, (20, 64, 64)).astype("u2")
    stack[:, 5, 5] += 40  # in every frame: an outlier, and no event
    stack[7, 30, 31] += 60
    found = Correction.fit(stack, events=True)
    assert (7, 30 * 64 + 31) in zip(found.events.frame.tolist(), found.events.pixel.tolist(), strict=True)
    assert found.outliers.mask[5, 5] and not found.outliers.mask[30, 31] and 5 * 64 + 5 not in found.events.pixel
    given = Correction.fit(stack, events=found.events)
    assert np.array_equal(given.events.pixel, found.events.pixel) and np.array_equal(
        given.apply(stack), found.apply(stack)
    )
    only = Correction.fit(stack, None, events=True)
    assert only.outliers is None and only.events.n_pixels >= found.events.n_pixels
    assert Correction.fit(stack).events is None


def test_events_that_are_given_are_kept_where_found_ones_are_not():
    """In what looks like a crystal nobody tells events from spots, unless somebody did."""
    stack = record("Bragg", n_frames=4).stack
    with pytest.warns(StructureWarning, match="nothing is filtered"):
        found = Correction.fit(stack, events=True)
    assert found.events.n_pixels == 0 and "the image looks like lattice" in found.events.reason
    state = EVENTS.to_dict() | {"shape": stack.shape[1:], "n_frames": 4, "frame": [0, 2, 2]}
    with pytest.warns(StructureWarning, match="nothing is filtered"):
        given = Correction.fit(stack, events=EventModel.from_dict(state))
    assert given.events.n_pixels == 3 and given.events.reason == "" and given.outliers.n_outliers == 0


def test_what_is_no_correction_or_another_one():
    correction = Correction(DARK, GAIN, 1.25, koma=KOMA, seed=3, events=EVENTS)
    with pytest.raises(TypeError, match="positional"):
        Correction(DARK, GAIN, 1.25, None, KOMA, EVENTS, False, 3)  # events came last, and have a name only
    with pytest.raises(TypeError, match="unexpected keyword"):
        Correction(unusable=GAIN == 0)  # it follows from the gain
    state = correction.to_dict()
    assert state["gamma"] == 1.25 and state["seed"] == 3 and state["noise"] is False and state["outliers"] is None
    assert "events" not in Correction(dark=DARK).to_dict() and Correction(dark=DARK).to_dict()["gain_digest"] is None
    for wrong in ({"type": "mrcz.OutlierModel"}, {"version": 2}, {"version": None}):
        with pytest.raises(ValueError, match="not a Correction of version 1"):
            Correction.from_dict(state | wrong)
    named = correction.to_dict(references=False)
    assert named["dark"] is named["gain"] is named["koma"] is None
    given = {"dark": DARK, "gain": GAIN, "koma": KOMA}
    assert np.array_equal(Correction.from_dict(named, **given).apply(RAW), correction.apply(RAW))
    for name in given:
        with pytest.raises(ValueError, match=f"needs its {name} "):
            Correction.from_dict(named, **(given | {name: None}))
        with pytest.raises(ValueError, match=f"this {name} is not the one"):
            Correction.from_dict(named, **(given | {name: given[name] + 1}))
        # A map that was changed where it is stored is told, too.
        with pytest.raises(ValueError, match=f"this {name} is not the one"):
            Correction.from_dict(state | {name: given[name] + 1})


def test_a_digest_is_of_values_and_shape():
    known = digest(DARK)
    assert known == digest(DARK.astype(">f4")) == digest(np.asfortranarray(DARK)) == digest(DARK.astype("f8"))
    assert known != digest(DARK.reshape(3, 2)) and known != digest(DARK + 1)
    assert known == "ac3da186508cd5cd5cff70fefd02c67a"  # stays: it is in files
