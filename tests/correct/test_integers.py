"""Counts out of floats: movies whose counts and gain are known, and data that are none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from mrcz.correct import integers
from mrcz.correct.integers import ORIENTATIONS, NoIntegersError, Operation, orient, recover_integers

SIZE = 256


def scene(dose, frames, seed=0, shape=(SIZE, SIZE)):
    """Poisson counts, and a gain reference that varies by 5 %."""
    rng = np.random.default_rng(seed)
    gain = (1 + 0.05 * rng.standard_normal(shape)).astype(np.float32)
    return rng.poisson(dose, (frames, *shape)).astype(np.float32), gain


def bits(array):
    return np.asarray(array).view(np.uint32)


def check_restored(found, movie):
    for k, frame in enumerate(movie):
        np.testing.assert_array_equal(bits(found.restored(k)), bits(frame))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("dose", "frames"), [(0.02, 40), (0.1, 40), (1, 40), (10, 40), (40, 40), (1, 5), (3, 10)])
def test_gain_unknown(dose, frames, seed):
    counts, gain = scene(dose, frames, seed)
    movie = counts * gain
    found = recover_integers(movie)
    hit = (counts > 0).any(axis=0)
    # Up to a rounding: several gains of float32 may give the same floats for the counts that were seen.
    assert (np.abs(found.gain / gain - 1) < 1e-6)[hit].mean() > 0.999
    assert (found.counts[:] == counts).mean() > 0.9999
    assert found.counts.dtype == np.uint8
    check_restored(found, movie)


def test_the_least_value_is_not_one_count():
    """Where RELION's rule finds few gains, as single counts are rare."""
    counts, gain = scene(10, 40)
    movie = counts * gain
    least = np.where(movie > 0, movie, np.inf).min(axis=0)
    assert (least == gain).mean() < 0.1
    assert (recover_integers(movie).gain == gain).mean() > 0.999


def test_defects_are_exceptions():
    """Pixels filled from their neighbours, dead ones, ones with even counts only, and NaN."""
    counts, gain = scene(1, 40)
    counts[:, 7, :] *= 2
    movie = counts * gain
    rng = np.random.default_rng(1)
    flat = movie.reshape(40, -1)
    defects = rng.choice(np.arange(2000, flat.shape[1] - 1), 60, replace=False)
    flat[:, defects] = (flat[:, defects - 1] + flat[:, defects + 1]) / 2
    movie[:, 100, 5] = 0
    movie[:, 101, 5] = np.nan
    movie[3, 102, 5], movie[4, 102, 5], movie[5, 102, 5] = -3, np.inf, -0.0
    found = recover_integers(movie)
    check_restored(found, movie)
    assert len(found.exceptions) <= 40 * 61 + 3
    assert (found.counts[:, 7] == counts[:, 7]).mean() > 0.99


def test_a_filled_pixel_is_no_fine_lattice():
    """Its values are multiples of a hundredth of a count by chance: that would make counts of hundreds."""
    counts, gain = scene(1, 12, seed=4)
    movie = counts * gain
    movie[:, 50:60, 50:60] = gain[55, 55] / np.float32(61) * (counts[:, 50:60, 50:60] * 61 + counts[:, 60:70, 50:60])
    found = recover_integers(movie)
    check_restored(found, movie)
    assert found.most < 16 and len(found.exceptions) < 12 * 100


def test_one_odd_value_does_not_cost_a_pixel():
    counts, gain = scene(2, 30)
    movie = counts * gain
    rng = np.random.default_rng(2)
    y, x = rng.integers(0, SIZE, (2, 200))
    movie[rng.integers(0, 30, 200), y, x] *= np.float32(1.234567)
    found = recover_integers(movie)
    check_restored(found, movie)
    assert len(found.exceptions) < 400


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_gain_in_any_orientation(orientation):
    counts, gain = scene(1, 3, shape=(64, 64))
    movie = counts * orient(gain, orientation)
    found = recover_integers(movie, gain)
    assert found.operation == Operation(orientation=orientation)
    np.testing.assert_array_equal(found.counts[:], counts)
    assert len(found.exceptions) == 0


@pytest.mark.parametrize("divide", [False, True])
@pytest.mark.parametrize("dose", [100, 1000, 20000])
def test_a_gain_that_is_given_serves_large_counts(dose, divide):
    """Of an integrating camera: no frame has a pixel of a few counts, that would show a scale."""
    counts, gain = scene(dose, 3, shape=(64, 64))
    movie = counts / gain if divide else counts * gain
    found = recover_integers(movie, gain)
    assert found.operation == Operation(divide) and found.found_by == "given" and len(found.exceptions) == 0
    np.testing.assert_array_equal(found.counts[:], counts)
    check_restored(found, movie)
    with pytest.raises(NoIntegersError):
        recover_integers(movie, scene(1, 1, seed=9, shape=(64, 64))[1])


def test_the_shutter_opens_late():
    counts, gain = scene(1, 6)
    counts[:2] = 0
    found = recover_integers(counts * gain, gain)
    assert found.found_by == "given" and len(found.exceptions) == 0
    assert recover_integers(np.zeros((3, 8, 8), np.float32)).found_by == "integers"


@pytest.mark.parametrize("flip", [False, True])
def test_a_gain_of_a_sensor_that_is_not_square(flip):
    counts, gain = scene(1, 3, shape=(40, 70))
    movie = counts * orient(gain, (flip, 0))
    assert recover_integers(movie, gain).operation == Operation(orientation=(flip, 0))
    turned = np.rot90(gain)
    assert recover_integers(counts * gain, turned).operation.orientation == (False, 3)


SCALES = [(1.0, 1.0), (1.0, 100.0), (float(np.float32(0.37)), 1.0), (1.0, float(np.float32(1 / 3.1)))]


@pytest.mark.parametrize("scales", SCALES)
@pytest.mark.parametrize("divide", [False, True])
def test_every_operation_of_float32(divide, scales):
    counts, gain = scene(1, 3)
    before, after = map(np.float32, scales)
    movie = (counts * before) / gain * after if divide else (counts * before) * gain * after
    found = recover_integers(movie, gain)
    assert (found.operation.divide, found.operation.precision) == (divide, "float32")
    np.testing.assert_array_equal(found.counts[:], counts)
    assert len(found.exceptions) == 0
    check_restored(found, movie)


@pytest.mark.parametrize("divide", [False, True])
def test_a_gain_of_float64(divide):
    counts, _ = scene(1, 3)
    gain = 1 + 0.05 * np.random.default_rng(3).standard_normal((SIZE, SIZE))
    movie = (counts / gain if divide else counts * gain).astype(np.float32)
    found = recover_integers(movie, gain)
    assert found.operation == Operation(divide, "float64")
    assert len(found.exceptions) == 0
    # without it: one of float64 that makes the same floats
    unknown = recover_integers(movie)
    assert unknown.operation.precision == "float64" and len(unknown.exceptions) == 0
    check_restored(unknown, movie)


def test_a_gain_that_does_not_fit_is_not_used():
    counts, gain = scene(1, 20)
    other = scene(1, 1, seed=9)[1]
    found = recover_integers(counts * gain, other)
    assert (found.counts[:] == counts).mean() > 0.9999


def test_another_movie_of_the_session():
    counts, gain = scene(1, 20)
    first = recover_integers(counts * gain)
    more = np.random.default_rng(8).poisson(1, counts.shape).astype(np.float32)
    second = recover_integers(more * gain, first.gain, operation=first.operation)
    assert second.operation == first.operation
    assert second.gain is not None and len(second.exceptions) < more.size // 1000
    check_restored(second, more * gain)


def test_floats_that_are_integers():
    counts, _ = scene(300, 4)
    found = recover_integers(counts)
    assert found.gain is None and found.counts.dtype == np.uint16
    np.testing.assert_array_equal(found.counts[:], counts)
    assert (found.evidence["exceptions"], found.most) == (0, int(counts.max()))


def dose_weighted(movie, dose=1.0):
    """Each spatial frequency of each frame by the dose it has seen: Grant and Grigorieff, eLife 2015, e06980, equations
    3, 5 and 9; as a stack, and in ``.sum(0)`` what MotionCor writes."""
    ny, nx = movie.shape[1:]
    k = np.hypot(np.fft.fftfreq(ny)[:, None], np.fft.rfftfreq(nx)[None])  # 1/Å at a pixel of 1 Å
    k[0, 0] = 1e-6
    critical = 0.24499 * k**-1.6649 + 2.8141
    weights = np.stack([np.exp(-(n + 0.5) * dose / (2 * critical)) for n in range(len(movie))])
    weights /= np.sqrt((weights**2).sum(axis=0))
    return np.fft.irfft2(np.fft.rfft2(movie) * weights, (ny, nx)).astype("f4")


def fourier_cropped(movie):
    """Super-resolution to physical pixels: the middle of the transform."""
    ny, nx = movie.shape[1:]
    middle = (slice(None), slice(ny // 4, 3 * ny // 4), slice(nx // 4, 3 * nx // 4))
    transform = np.fft.fftshift(np.fft.fft2(movie), axes=(1, 2))[middle]
    return (np.fft.ifft2(np.fft.ifftshift(transform, axes=(1, 2))).real / 4).astype("f4")


def aligned(movie):
    """Each frame moved by parts of a pixel: a ramp of phases."""
    ny, nx = movie.shape[1:]
    ky, kx = np.fft.fftfreq(ny)[:, None], np.fft.rfftfreq(nx)[None]
    turns = [np.exp(-2j * np.pi * (ky * (0.3 + 0.37 * k) + kx * (0.21 - 0.53 * k))) for k in range(len(movie))]
    return np.fft.irfft2(np.fft.rfft2(movie) * np.stack(turns), (ny, nx)).astype("f4")


NONE = {
    "dose-weighted": (dose_weighted, "resampled, filtered"),
    "dose-weighted, summed": (lambda x: dose_weighted(x).sum(0, keepdims=True), "two different values"),
    "Fourier-cropped": (fourier_cropped, "resampled, filtered"),
    "aligned": (aligned, "resampled, filtered"),
    "aligned bilinearly": (
        lambda x: np.array([ndimage.shift(f, (0.3 + 0.1 * k, 0.6), order=1) for k, f in enumerate(x)]),
        "resampled, filtered",
    ),
    "binned": (lambda x: x.reshape(len(x), SIZE // 2, 2, SIZE // 2, 2).sum((2, 4), dtype="f4"), "resampled, filtered"),
    "mean 0": (lambda x: x - x.mean((1, 2), keepdims=True, dtype="f4"), "resampled, filtered"),
    "filtered": (lambda x: np.array([ndimage.gaussian_filter(frame, 1) for frame in x]), "resampled, filtered"),
    "resampled": (lambda x: np.array([ndimage.shift(frame, 0.5, order=1) for frame in x]), "resampled, filtered"),
    "float16": (lambda x: x.astype(np.float16).astype(np.float32), "float16"),
    "one frame": (lambda x: x[:1], "two different values"),
    "one frame, again and again": (lambda x: np.repeat(x[:1], 5, axis=0), "two different values"),
    "negative": (lambda x: -x - 1, "negative"),
    "noise": (lambda x: np.random.default_rng(1).random(x.shape, np.float32), "resampled, filtered"),
}


@pytest.mark.parametrize("dose", [0.05, 2, 30])
@pytest.mark.parametrize("name", NONE)
def test_what_is_no_lattice_is_refused(name, dose):
    counts, gain = scene(dose, 12)
    change, words = NONE[name]
    with pytest.raises(NoIntegersError, match=words):
        recover_integers(change(counts * gain))


@pytest.mark.parametrize("change", [dose_weighted, fourier_cropped, aligned])
@pytest.mark.parametrize("gain", [None, "of the session"])
def test_what_was_processed_is_refused_though_there_was_no_gain(change, gain):
    counts, known = scene(1, 12)
    with pytest.raises(NoIntegersError, match="resampled, filtered"):
        recover_integers(change(counts), None if gain is None else known)


def test_a_refusal_does_not_read_the_whole_movie():
    counts, gain = scene(1, 60)
    told = []
    with pytest.raises(NoIntegersError, match="resampled, filtered"):
        recover_integers(aligned(counts * gain), progress=lambda done, total: told.append(done))
    assert max(told) <= 8


def test_what_is_no_movie_of_floats_is_refused():
    with pytest.raises(TypeError, match="uint8"):
        recover_integers(np.zeros((2, 3, 4), np.uint8))
    with pytest.raises(NoIntegersError, match="float16"):
        recover_integers(np.zeros((2, 3, 4), np.float16))


def test_an_operation_is_plain_data():
    made = Operation(True, "float64", 2.0, 0.5, (True, 3))
    assert Operation.from_dict(made.asdict()) == made
    for name, wrong in [("precision", "float80"), ("after", 0.0), ("before", float("nan")), ("orientation", [1])]:
        with pytest.raises(ValueError, match="no operation"):
            Operation.from_dict({**made.asdict(), name: wrong})


def test_progress_is_told():
    counts, gain = scene(1, 6)
    told = []
    recover_integers(counts * gain, progress=lambda done, total: told.append((done, total)))
    assert (6, 6) in told and all(total == 6 for _, total in told)


def test_memory_is_bounded(monkeypatch):
    """Frames are asked for one by one: a movie may be larger than memory."""
    counts, gain = scene(1, 8)
    movie = counts * gain

    class Frames:
        shape, dtype = movie.shape, movie.dtype

        def __getitem__(self, k):
            assert isinstance(k, int)
            return movie[k]

        def __iter__(self):
            return iter(movie)

    assert integers.recover_integers(Frames(), n_threads=2).most == int(counts.max())
