"""The pipeline as a value: order, sums, metadata, and references that do not fit."""

import pickle

import msgpack
import numpy as np
import pytest

from mrcz.correct import Correction, KomaReference, fit_outliers
from mrcz.simulate import Detector

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
