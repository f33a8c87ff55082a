"""A direct detector on paper: movies whose every defect is known.

`Detector` holds what does not change during a session (pixel gain, etching pattern, additive read-out pattern, dead
pixels) and knows which pixels are hot while stack *n* is recorded. `Detector.stack` records a stack of counted
electrons and returns the truth beside it. Everything follows from ``seed``: the same call gives the same electrons.

The raw counts of a frame are Poisson distributed with the rate

    rate = δ · scene / gain^γ(δ) + cmos + hot,

so that ``(raw − cmos) · gain^γ(δ)`` is flat, as in McLeod et al. 2017, bioRxiv 116533, section 5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

__all__ = ["GAMMA_K2", "Detector", "SimulatedStack", "Specimen", "gamma_of_dose_rate"]

#: (a1, b1, a2, a3) of γ(δ) = a1 δ^b1 + a2 δ + a3 for the K2, δ in e⁻/pixel/s (bioRxiv 116533, eq. 9 and its table).
GAMMA_K2 = (0.12035633, -1.04171635, -0.03363192, 1.03902726)

# The first word of every random stream, so that no two purposes share one.
_GAIN, _CMOS, _DEAD, _HOT, _FRAMES, _SCENE, _FLAT, _DRIFT = range(8)


def gamma_of_dose_rate(dose_rate: float, coefficients: tuple[float, float, float, float] = GAMMA_K2) -> float:
    """The exponent γ of the gain at ``dose_rate`` (e⁻/pixel/s): a1 δ^b1 + a2 δ + a3."""
    a1, b1, a2, a3 = coefficients
    return float(a1 * dose_rate**b1 + a2 * dose_rate + a3)


@dataclass(frozen=True)
class Specimen:
    """Particles in vitreous ice under a phase-contrast transfer function.

    Parameters
    ----------
    n_particles : int
        Particles in the field.
    diameter : float
        Particle diameter, Å.
    contrast : float
        Standard deviation of the scene relative to the mean dose.
    pixel_size : float
        Å per (physical) pixel.
    defocus : float
        Underfocus, µm.
    voltage : float
        kV.
    c3 : float
        Spherical aberration, mm.
    b_factor : float
        Envelope, Å²: exp(−B k²/4).
    """

    n_particles: int = 40
    diameter: float = 120.0
    contrast: float = 0.05
    pixel_size: float = 1.5
    defocus: float = 1.5
    voltage: float = 300.0
    c3: float = 2.7
    b_factor: float = 60.0

    def scene(self, shape: tuple[int, int], rng: np.random.Generator, upsampling: int = 1) -> np.ndarray:
        """Relative dose (ny, nx) float64, mean 1, on a grid ``upsampling`` times as fine as the physical pixels."""
        ny, nx = shape
        step = self.pixel_size / upsampling
        potential = np.zeros(shape)
        radius = self.diameter / 2
        reach = int(np.ceil(radius / step)) + 1
        for _ in range(self.n_particles):
            cy, cx = rng.uniform(0, ny), rng.uniform(0, nx)
            # A handful of soft domains inside a sphere: enough structure to tell defocus and drift.
            yy = np.arange(max(0, int(cy) - reach), min(ny, int(cy) + reach + 1))
            xx = np.arange(max(0, int(cx) - reach), min(nx, int(cx) + reach + 1))
            if not (len(yy) and len(xx)):
                continue
            blob = np.zeros((len(yy), len(xx)))
            for _ in range(6):
                oy, ox = rng.normal(0, radius / 2.5, 2) / step
                width = rng.uniform(0.12, 0.25) * self.diameter / step
                blob += np.exp(-((yy[:, None] - cy - oy) ** 2 + (xx[None] - cx - ox) ** 2) / (2 * width**2))
            potential[yy[0] : yy[-1] + 1, xx[0] : xx[-1] + 1] += blob
        ky = np.fft.fftfreq(ny, step)[:, None]
        kx = np.fft.rfftfreq(nx, step)[None]
        k2 = ky**2 + kx**2
        wavelength = 12.2643 / np.sqrt(self.voltage * 1e3 * (1 + 0.978476e-6 * self.voltage * 1e3))
        chi = np.pi * wavelength * k2 * (self.defocus * 1e4 - 0.5 * self.c3 * 1e7 * wavelength**2 * k2)
        transfer = -np.sin(chi + 0.07) * np.exp(-self.b_factor * k2 / 4)
        image = np.fft.irfft2(np.fft.rfft2(potential) * transfer, s=shape)
        spread = image.std()
        image = (image - image.mean()) * (self.contrast / spread if spread else 0.0)
        relative: np.ndarray = np.maximum(1 + image, 0.05)
        return relative


@dataclass(frozen=True)
class SimulatedStack:
    """A recorded stack and the truth about it.

    Attributes
    ----------
    frames : ndarray (nz, ny, nx)
        Counted electrons, unaligned.
    rate : ndarray (ny, nx) float32
        Expected counts per frame of the first frame, everything included.
    clean : ndarray (ny, nx) float32
        The same without hot and dead pixels.
    hot : ndarray (ny, nx) float32
        Excess counts per frame; 0 where the pixel is not hot.
    dead : ndarray (ny, nx) bool
    clustered : ndarray (ny, nx) bool
        Hot pixels born in groups.
    shifts : ndarray (nz, 2) float64
        Stage drift (y, x) of each frame, in pixels of ``frames``.
    gamma : float
        Exponent the gain acted with.
    dose_rate : float
        e⁻/pixel/frame of a physical pixel.
    index : int
        Number of the stack in its session.
    """

    frames: np.ndarray
    rate: np.ndarray
    clean: np.ndarray
    hot: np.ndarray
    dead: np.ndarray
    clustered: np.ndarray
    shifts: np.ndarray
    gamma: float
    dose_rate: float
    index: int

    @property
    def outliers(self) -> np.ndarray:
        """(ny, nx) bool: every pixel that should be flagged."""
        flagged: np.ndarray = (self.hot > 0) | self.dead
        return flagged

    @property
    def significance(self) -> np.ndarray:
        """(ny, nx) float64: |deviation| of the bad pixels in standard deviations of the stack's sum, 0 elsewhere."""
        sigma = np.sqrt(np.maximum(self.clean, 1e-12) / len(self.frames))
        return np.where(self.outliers, np.abs(self.rate - self.clean) / sigma, 0.0)


def _moved(spectrum: np.ndarray, move: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The image of a spectrum (ny, nx // 2 + 1), moved by (y, x) pixels around its edges."""
    ky, kx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    return np.fft.irfft2(spectrum * np.exp(-2j * np.pi * (ky * move[0] + kx * move[1])), s=shape)


@dataclass(frozen=True)
class Detector:
    """A simulated direct detector; one seed is one camera in one session.

    Parameters
    ----------
    shape : (int, int)
        Physical pixels (ny, nx). In super-resolution the frames are ``super_resolution`` times as large.
    seed : int
    pixel_gain_rms : float
        Pixel-to-pixel spread of the gain.
    etching_rms : float
        Spread of the smooth etching pattern of the back-thinned sensor, which goes through 64-pixel averages.
    cmos_rms : float
        Additive read-out pattern (columns, amplifier blocks, pixels), counts per frame.
    hot_fraction : float
        Fraction of pixels that are hot at any time.
    hot_excess : float
        Mean excess of a hot pixel relative to the dose rate; exponentially distributed.
    cluster_fraction : float
        Fraction of hot sites that are a group of 2 to 4 pixels.
    dead_fraction : float
        Fraction of pixels that never count.
    turnover : float
        Fraction of hot sites that heal, and are replaced elsewhere, from one stack to the next.
    hot_drift : float
        Standard deviation of the change of log excess from one stack to the next.
    gamma_coefficients : tuple of 4 floats
        γ(δ), see `gamma_of_dose_rate`; ``(0, 1, 0, 1)`` for a detector without gamma.
    frame_rate : float
        Frames per second: makes e⁻/pixel/s of e⁻/pixel/frame.
    super_resolution : int
        1, or 2 for half-pixel super-resolution.
    """

    shape: tuple[int, int] = (512, 512)
    seed: int = 0
    pixel_gain_rms: float = 0.02
    etching_rms: float = 0.02
    cmos_rms: float = 0.05
    hot_fraction: float = 0.004
    hot_excess: float = 1.25
    cluster_fraction: float = 0.15
    dead_fraction: float = 2e-4
    turnover: float = 0.03
    hot_drift: float = 0.0
    gamma_coefficients: tuple[float, float, float, float] = GAMMA_K2
    frame_rate: float = 1.0
    super_resolution: int = 1
    _made: dict[str, np.ndarray] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ny, nx = self.shape
        if ny < 1 or nx < 1:
            raise ValueError(f"a detector of {ny} × {nx} pixels has none")
        if self.super_resolution < 1:
            raise ValueError("super_resolution is 1 (off) or a whole factor such as 2")
        if not 0 <= self.hot_fraction < 1 or not 0 <= self.dead_fraction < 1:
            raise ValueError("hot_fraction and dead_fraction are fractions of the pixels, 0 to 1")

    def _rng(self, *purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *purpose])

    def _once(self, name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        # The cached maps are a function of the frozen parameters, so keeping them does not make the detector mutable.
        if name not in self._made:
            value = make()
            value.setflags(write=False)
            self._made[name] = value
        return self._made[name]

    @property
    def gain(self) -> np.ndarray:
        """Multiplicative gain reference (ny, nx) float32, mean 1: what γ(δ) raises."""
        return self._once("gain", self._make_gain)

    def _make_gain(self) -> np.ndarray:
        rng = self._rng(_GAIN)
        ny, nx = self.shape
        y, x = np.linspace(0, 1, ny)[:, None], np.linspace(0, 1, nx)[None]
        pattern = np.zeros(self.shape)
        for _ in range(6):
            fy, fx, phase = rng.uniform(-2, 2), rng.uniform(-2, 2), rng.uniform(0, 2 * np.pi)
            pattern += rng.normal() * np.cos(2 * np.pi * (fy * y + fx * x) + phase)
        # Rings left by the wet etch around a centre that is not the chip's.
        radius = np.hypot(y - rng.uniform(0.3, 0.7), x - rng.uniform(0.3, 0.7))
        pattern += np.cos(2 * np.pi * 2.5 * radius)
        pattern -= pattern.mean()
        pattern *= self.etching_rms / (pattern.std() or 1.0)
        gain = np.exp(pattern + self.pixel_gain_rms * rng.standard_normal(self.shape))
        relative: np.ndarray = (gain / gain.mean()).astype(np.float32)
        return relative

    @property
    def cmos(self) -> np.ndarray:
        """Additive read-out pattern (ny, nx) float32, counts per frame, mean 0."""
        return self._once("cmos", self._make_cmos)

    def _make_cmos(self) -> np.ndarray:
        rng = self._rng(_CMOS)
        ny, nx = self.shape
        blocks = rng.standard_normal((4, max(1, nx // 64)))
        pattern = (
            rng.standard_normal(self.shape)
            + rng.standard_normal(nx)[None]
            + np.repeat(np.repeat(blocks, -(-ny // 4), 0), -(-nx // blocks.shape[1]), 1)[:ny, :nx]
        )
        pattern -= pattern.mean()
        return (pattern * (self.cmos_rms / (pattern.std() or 1.0))).astype(np.float32)

    @property
    def dead(self) -> np.ndarray:
        """Pixels that never count, (ny, nx) bool."""
        return self._once("dead", lambda: self._rng(_DEAD).random(self.shape) < self.dead_fraction)

    def hot(self, index: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Hot pixels of stack ``index``: relative excess (ny, nx) float32 and, bool, those born in groups."""
        ny, nx = self.shape
        rng = self._rng(_HOT)
        mean_size = 1 + self.cluster_fraction * 2.0
        sites = round(self.hot_fraction * ny * nx / mean_size)
        excess = np.zeros(self.shape, np.float32)
        grouped = np.zeros(self.shape, bool)
        if not sites:
            return excess, grouped

        def born(n: int, rng: np.random.Generator) -> list[np.ndarray]:
            size = np.where(rng.random(n) < self.cluster_fraction, rng.integers(2, 5, n), 1)
            return [
                rng.integers(0, ny, n),
                rng.integers(0, nx, n),
                rng.exponential(self.hot_excess, n),
                size,
                rng.integers(0, 4, n),
            ]

        state = born(sites, rng)
        for step in range(1, index + 1):
            rng = self._rng(_HOT, step)
            if self.hot_drift:
                state[2] = state[2] * np.exp(rng.normal(0, self.hot_drift, sites))
            healed = np.flatnonzero(rng.random(sites) < self.turnover)
            for old, new in zip(state, born(len(healed), rng), strict=True):
                old[healed] = new
        y, x, amplitude, size, turn = state
        # The pixels of a group, in a 2 × 2 square, each a little weaker than the one before.
        for k, (dy, dx) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
            here = size > k
            py = np.clip(y[here] + np.where(turn[here] & 1, dy, -dy), 0, ny - 1)
            px = np.clip(x[here] + np.where(turn[here] & 2, dx, -dx), 0, nx - 1)
            np.maximum.at(excess, (py, px), (amplitude[here] * 0.8**k).astype(np.float32))
            grouped[py[size[here] > 1], px[size[here] > 1]] = True
        return excess, grouped

    def gamma(self, dose_rate: float) -> float:
        """γ at ``dose_rate`` in e⁻/pixel/frame (the detector's ``frame_rate`` makes it per second)."""
        return gamma_of_dose_rate(dose_rate * self.frame_rate, self.gamma_coefficients)

    def rates(self, dose_rate: float, index: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Expected counts per frame without specimen: with all defects, without, hot excess, grouped; (ny, nx)."""
        clean = dose_rate / self.gain.astype(np.float64) ** self.gamma(dose_rate) + self.cmos
        clean = np.maximum(clean, 0)
        excess, grouped = self.hot(index)
        hot = np.where(self.dead, 0, excess * dose_rate)
        return np.where(self.dead, 0, clean + hot), clean, hot, grouped

    def flat(self, dose_rate: float, n_frames: int = 1000, index: int = 0) -> np.ndarray:
        """Mean of ``n_frames`` frames without specimen, (ny, nx) float32, counts per frame: a flat for a gain fit.

        A sum of Poisson counts is a Poisson count, so it is drawn at once whatever ``n_frames`` is.
        """
        rate = self.rates(dose_rate, index)[0]
        counts = self._rng(_FLAT, index, n_frames).poisson(rate * n_frames)
        mean: np.ndarray = (counts / n_frames).astype(np.float32)
        return mean

    def _moves(self, n_frames: int, drift: tuple[float, float], jitter: float, index: int) -> np.ndarray:
        """Where the stage is at each frame, (n_frames, 2) pixels (y, x) from where it was at the first."""
        steps = jitter * self._rng(_DRIFT, index).standard_normal((n_frames, 2))
        moves = np.cumsum(np.array(drift)[None] + steps, 0)
        moves -= moves[0]
        return moves

    def stack(
        self,
        n_frames: int = 40,
        dose_rate: float = 1.2,
        index: int = 0,
        *,
        specimen: Specimen | None = None,
        drift: tuple[float, float] = (0.0, 0.0),
        jitter: float = 0.0,
        dtype: np.dtype | type = np.uint8,
    ) -> SimulatedStack:
        """Record a stack; it comes with the truth about it.

        Parameters
        ----------
        n_frames : int
        dose_rate : float
            e⁻/pixel/frame of a physical pixel.
        index : int
            Number of the stack in the session; decides which pixels are hot.
        specimen : Specimen, optional
            What lies in the beam; nothing by default.
        drift, jitter : (float, float), float
            Stage drift (y, x) per frame and its random part, in pixels of the frames.
        dtype : dtype
            Of the frames; counts are clipped to its range.
        """
        if n_frames < 1:
            raise ValueError("a stack has at least one frame")
        if not dose_rate >= 0:
            raise ValueError(f"a dose rate is not negative: {dose_rate}")
        dtype = np.dtype(dtype)
        up = self.super_resolution
        rate, clean, hot, grouped = self.rates(dose_rate, index)
        gain = self.gain.astype(np.float64) ** self.gamma(dose_rate)
        dead = np.asarray(self.dead)
        if up > 1:
            rate, clean, hot = (_finer(a, up) / up**2 for a in (rate, clean, hot))
            grouped, dead, gain = (_finer(a, up) for a in (grouped, dead, gain))
        rng = self._rng(_FRAMES, index, n_frames)
        moves = self._moves(n_frames, drift, jitter, index)
        frames = np.empty((n_frames, *rate.shape), dtype)
        top = np.iinfo(dtype).max if dtype.kind in "iu" else None
        scene = None if specimen is None else specimen.scene(rate.shape, self._rng(_SCENE, index), up)
        spectrum = None if scene is None else np.fft.rfft2(scene - 1)
        first = None
        for t in range(n_frames):
            seen = rate
            if spectrum is not None:
                change = (dose_rate / up**2) * _moved(spectrum, moves[t], rate.shape) / gain
                seen = np.where(dead, 0, np.maximum(rate + change, 0))
                first = change if t == 0 else first
            counts = rng.poisson(seen)
            frames[t] = counts if top is None else np.minimum(counts, top)
        if first is not None:
            rate, clean = np.where(dead, 0, np.maximum(rate + first, 0)), np.maximum(clean + first, 0)
        grouped = np.asarray(grouped) & (hot > 0)
        rate, clean, hot = (a.astype(np.float32) for a in (rate, clean, hot))
        exponent = self.gamma(dose_rate)
        return SimulatedStack(frames, rate, clean, hot, dead.copy(), grouped, moves, exponent, float(dose_rate), index)


def _finer(array: np.ndarray, factor: int) -> np.ndarray:
    return np.repeat(np.repeat(array, factor, 0), factor, 1)
