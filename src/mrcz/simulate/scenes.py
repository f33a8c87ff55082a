"""One stack of a scene, with the truth of every pixel: what a filter of outliers has to find, and what to leave alone.

    seen = record("gold r8 fringes", dose=48, n_frames=40, seed=1)
    model = fit_outliers(seen.stack, gain=seen.gain)
    flagged = (model.mask & seen.specimen & ~seen.outliers).sum()

`SCENES` names what lies in the beam and `CAMERAS` what records it. The stage stands still, which is the hardest case: a
drifting edge is a smoother one.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np

from mrcz.simulate import specimens
from mrcz.simulate.events import Events, add_events
from mrcz.simulate.specimens import Drawn

__all__ = ["CAMERAS", "SCENES", "Camera", "Events", "Recorded", "Scene", "add_events", "record"]

# The first word of every random stream, so that no two purposes share one and no change of one moves another.
_SCENE, _GAIN, _OFFSET, _DEFECTS, _FRAMES, _ON = range(8, 14)


@dataclass(frozen=True)
class Camera:
    """How electrons become numbers.

    Attributes
    ----------
    gain_rms : float
        Spread of the pixels' sensitivity. The map that undoes it is `Recorded.gain`, unless ``normalised``.
    normalised : bool
        The stack is float32 and multiplied by the gain already, as movies often are when they come.
    super_resolution : int
        Frames are so many times finer than the physical pixels; defects are blocks.
    binary : bool
        A frame holds 0 or 1 a pixel: two electrons in one frame count once (coincidence loss).
    counts_per_electron : float
        Above 1 the camera integrates: every electron deposits a number of its own.
    landau : float
        Shape k of the gamma distribution of that number, variance mean²/k: a stand-in for Landau's, whose variance
        does not exist (Li et al. 2013, doi 10.1016/j.jsb.2013.08.005: widths comparable with the mean). inf: all alike.
    charge_spread : float
        Standard deviation in pixels of the Gaussian an electron's signal spreads over; neighbours share their noise.
        Hot pixels do not share: their current arises in the pixel's own transistor, after the charge was collected.
    read_noise, offset : float
        Counts rms a frame, and the level added to every frame.
    offset_rms : float
        Spread of that level from pixel to pixel and from column to column, counts.
    dtype : str
        "" for the smallest of uint8 and uint16 that holds the scene.
    """

    gain_rms: float = 0.0
    normalised: bool = False
    super_resolution: int = 1
    binary: bool = False
    counts_per_electron: float = 1.0
    landau: float = np.inf
    charge_spread: float = 0.0
    read_noise: float = 0.0
    offset: float = 0.0
    offset_rms: float = 0.0
    dtype: str = ""

    @property
    def integrates(self) -> bool:
        """Numbers are sums of deposited charge rather than counted electrons."""
        return self.counts_per_electron != 1 or self.charge_spread > 0 or self.read_noise > 0


#: What records a scene.
CAMERAS: Mapping[str, Camera] = MappingProxyType(
    {
        "counting": Camera(),
        "counting, gain": Camera(gain_rms=0.03),
        "gain-normalised": Camera(gain_rms=0.03, normalised=True, dtype="float32"),
        "super-resolution": Camera(super_resolution=2),
        "binary": Camera(binary=True),
        "charge sharing": Camera(
            counts_per_electron=24.0, landau=4.0, charge_spread=0.55, read_noise=3.0, offset=20.0, dtype="uint16"
        ),
        "charge sharing, floats": Camera(
            counts_per_electron=24.0,
            landau=4.0,
            charge_spread=0.55,
            read_noise=3.0,
            gain_rms=0.03,
            normalised=True,
            dtype="float32",
        ),
        "sCMOS": Camera(
            counts_per_electron=6.0,
            landau=8.0,
            charge_spread=0.4,
            read_noise=1.8,
            offset=100.0,
            offset_rms=0.7,
            dtype="uint16",
        ),
        "sCMOS, floats": Camera(
            counts_per_electron=6.0,
            landau=8.0,
            charge_spread=0.4,
            read_noise=1.8,
            offset=0.0,
            offset_rms=0.7,
            dtype="float32",
        ),
    }
)


@dataclass(frozen=True)
class Scene:
    """What lies in the beam and what is wrong with the camera looking at it.

    Attributes
    ----------
    draw : callable
        ``draw(shape, rng)`` → `Drawn`.
    camera : str
        One of `CAMERAS`.
    lines : int
        Dead and hot columns and rows.
    telegraph : float
        Share of the hot pixels that are hot in some frames only.
    defects : bool
        False for a camera without any.
    one_pixel_structure : bool
        Structure as narrow as a defect (spots, lines): a filter should say so and leave the image alone.
    dose, n_frames : float, int
        What `record` takes if it is not told: e⁻/pixel of the open beam in all frames, and their number.
    """

    draw: Callable[[tuple[int, int], np.random.Generator], Drawn]
    camera: str = "counting"
    lines: int = 0
    telegraph: float = 0.0
    defects: bool = True
    one_pixel_structure: bool = False
    dose: float = 48.0
    n_frames: int = 40


def _scenes() -> dict[str, Scene]:
    s = specimens
    gold = partial(s.gold, radius=15.0)
    out = {"clean": Scene(s.flat, defects=False), "flat ice": Scene(s.flat)}
    for radius in (4.0, 8.0, 15.0, 30.0):
        name = f"gold r{radius:.0f}"
        out[name] = Scene(partial(s.gold, radius=radius))
        out[name + " fringes"] = Scene(partial(s.gold, radius=radius, fringe=3.0))
    out |= {
        "gold discs": Scene(partial(s.gold, radius=22.0, disc=True)),
        "gold crowded": Scene(partial(s.gold, radius=(4.0, 30.0), cover=0.4, fringe=2.0)),
        "small gold crowded": Scene(partial(s.gold, radius=(4.0, 8.0), cover=0.2)),
        "ice crystals": Scene(s.ice_crystals),
        "grid bar 5 %": Scene(partial(s.grid_bar, cover=0.05)),
        "grid bar 20 %": Scene(partial(s.grid_bar, cover=0.2)),
        "grid bar 40 %": Scene(partial(s.grid_bar, cover=0.4)),
        "hole edge 10 %": Scene(partial(s.hole_edge, cover=0.1)),
        "hole edge 40 %": Scene(partial(s.hole_edge, cover=0.4)),
        "carbon": Scene(s.carbon),
        "vignetting": Scene(s.vignetting),
        "gradient": Scene(s.gradient),
        "tilt": Scene(s.tilt),
        "particles": Scene(s.particles),
        "charge sharing": Scene(gold, "charge sharing"),
        "gain": Scene(gold, "counting, gain"),
        "gain-normalised": Scene(gold, "gain-normalised"),
        "super-resolution": Scene(gold, "super-resolution"),
        "binary counting": Scene(gold, "binary", dose=6.0, n_frames=100),
        "sCMOS": Scene(gold, "sCMOS"),
        "sCMOS, floats": Scene(gold, "sCMOS, floats"),
        "columns and rows": Scene(gold, lines=12),
        "telegraph noise": Scene(gold, telegraph=0.5),
        "Bragg": Scene(s.bragg, one_pixel_structure=True),
        "EELS": Scene(s.eels, one_pixel_structure=True),
        "single atoms": Scene(s.single_atoms, one_pixel_structure=True),
        "powder rings": Scene(s.powder, one_pixel_structure=True),
        "atoms": Scene(s.atoms, one_pixel_structure=True),
        "tilt 70°": Scene(partial(s.tilt, angle=70.0)),
        "half shadow": Scene(s.half_shadow),
        "beam stop": Scene(s.beam_stop),
        "lamella": Scene(s.lamella),
        "moiré": Scene(s.moire),
        "low magnification": Scene(s.low_magnification),
        "sectors": Scene(s.sectors),
        "fibres": Scene(s.fibres),
    }
    return out


#: Scenes by name.
SCENES: Mapping[str, Scene] = MappingProxyType(_scenes())


@dataclass(frozen=True)
class Recorded:
    """A recorded scene and the truth about it. (ny, nx) is the size of the frames.

    Attributes
    ----------
    name : str
    stack : ndarray (nz, ny, nx)
        uint8, uint16 or float32, as the camera writes it.
    gain : ndarray (ny, nx) float32 or None
        To multiply the frames by.
    expected : ndarray (ny, nx) float32
        Noise-free mean of a frame without defects, in the units of ``stack``.
    clean_sum : ndarray (ny, nx) float64
        Sum of the same frames, the same electrons, from a camera without defects.
    excess : ndarray (ny, nx) float32
        By how much a defect moves its pixel's expected sum, in standard deviations of that sum without defects:
        positive hot, negative dead or weak, 0 good. In super-resolution of the physical pixel's sum.
    hot, dead, weak : ndarray (ny, nx) bool
        Pixels with additional counts; without any; that count too few.
    specimen : ndarray (ny, nx) bool
        Pixels of the structure with its edges and fringes.
    regions : ndarray (ny, nx) int32
        0, or the number of a bead, crystal or bar.
    super_resolution : int
    """

    name: str
    stack: np.ndarray
    gain: np.ndarray | None
    expected: np.ndarray
    clean_sum: np.ndarray
    excess: np.ndarray
    hot: np.ndarray
    dead: np.ndarray
    weak: np.ndarray
    specimen: np.ndarray
    regions: np.ndarray
    super_resolution: int = 1

    @property
    def outliers(self) -> np.ndarray:
        """(ny, nx) bool: every defect, strong or not."""
        defects: np.ndarray = self.hot | self.dead | self.weak
        return defects

    def strong(self, sigma: float = 5.0) -> np.ndarray:
        """(ny, nx) bool: defects that move their pixel's sum by more than ``sigma`` of its own noise."""
        strong: np.ndarray = np.abs(self.excess) > sigma
        return strong


def _finer(array: np.ndarray, factor: int) -> np.ndarray:
    return array if factor == 1 else np.repeat(np.repeat(array, factor, 0), factor, 1)


@dataclass(frozen=True)
class _Defects:
    """Of the physical pixels (ny, nx): additional counts a frame in σ of the open beam's sum, and sensitivity."""

    hot: np.ndarray
    sensitivity: np.ndarray


def _plant(
    shape: tuple[int, int],
    rng: np.random.Generator,
    hot: float,
    excess: tuple[float, float] | float,
    dead: float,
    weak: float,
    lines: int,
) -> _Defects:
    ny, nx = shape
    extra, sensitivity = np.zeros(shape, np.float32), np.ones(shape, np.float32)
    # Of 100 sites 85 are single pixels and 15 have two to four in a 2 × 2 square, each weaker than the one before.
    sites = round(hot * ny * nx / 1.3)
    y, x = rng.integers(0, ny, sites), rng.integers(0, nx, sites)
    size = np.where(rng.random(sites) < 0.15, rng.integers(2, 5, sites), 1)
    if isinstance(excess, tuple):
        height = np.exp(rng.uniform(np.log(excess[0]), np.log(excess[1]), sites))
        height[rng.random(sites) < 0.02] = 1e6  # stuck at the top
    else:
        height = rng.exponential(excess, sites)
    turn = rng.integers(0, 4, sites)
    for k, (dy, dx) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        here = size > k
        py = np.clip(y[here] + np.where(turn[here] & 1, dy, -dy), 0, ny - 1)
        px = np.clip(x[here] + np.where(turn[here] & 2, dx, -dx), 0, nx - 1)
        np.maximum.at(extra, (py, px), (height[here] * 0.8**k).astype(np.float32))
    chance = rng.random(shape)
    sensitivity[chance < weak] = rng.uniform(0.2, 0.85, shape)[chance < weak]
    sensitivity[chance > 1 - dead] = 0
    for line in range(lines):
        along = rng.integers(0, shape[line % 2])
        length = shape[1 - line % 2]
        start, stop = (0, length) if rng.random() < 0.6 else sorted(rng.integers(0, length, 2).tolist())
        where = (along, slice(start, stop)) if line % 2 == 0 else (slice(start, stop), along)
        if line // 2 % 3 == 0:
            sensitivity[where] = 0
        else:
            extra[where] = np.maximum(extra[where], np.exp(rng.uniform(np.log(5), np.log(100))))
    extra[sensitivity < 1] = 0
    return _Defects(extra, sensitivity)


def _psf(camera: Camera) -> Callable[[np.ndarray], np.ndarray]:
    from scipy.ndimage import gaussian_filter

    if not camera.charge_spread:
        return lambda image: image
    return partial(gaussian_filter, sigma=camera.charge_spread, mode="reflect", truncate=5)


def _noise_kept(camera: Camera) -> float:
    """Σ psf²: what spreading leaves of white noise's variance."""
    point = np.zeros((15, 15))
    point[7, 7] = 1
    return float((_psf(camera)(point) ** 2).sum())


def record(
    name: str,
    *,
    shape: tuple[int, int] = (512, 512),
    dose: float | None = None,
    n_frames: int | None = None,
    seed: int = 0,
    camera: str | Camera | None = None,
    hot: float = 0.004,
    excess: tuple[float, float] | float = (3.0, 300.0),
    dead: float = 2e-4,
    weak: float = 3e-4,
    scene: Scene | None = None,
) -> Recorded:
    """Record a stack of a scene.

    Parameters
    ----------
    name : str
        One of `SCENES`; with ``scene``, any name.
    shape : (int, int)
        Physical pixels; in super-resolution the frames are larger.
    dose : float, optional
        Electrons a physical pixel of the open beam gets in all frames together; by default the scene's own, often 48.
    n_frames : int, optional
        By default the scene's own, often 40. A few suffice where only sums matter: a sum of Poisson counts does not
        show how many there were.
    seed : int
        The same call gives the same electrons. Defects depend on seed and shape alone, not on the scene.
    camera : str or Camera, optional
        Instead of the scene's own.
    hot, dead, weak : float
        Shares of the physical pixels that count too much, not at all, or 20 to 85 %.
    excess : (float, float) or float
        Range of the excess of hot pixels, in σ of the open beam's sum, log-uniform, and one of fifty stuck at the top;
        or the mean of exponentially distributed ones, as `Detector` has them (8.7 at its 1.2 e⁻ × 40).
    scene : Scene, optional
        Instead of one of `SCENES`.
    """
    chosen = SCENES[name] if scene is None else scene
    cam = chosen.camera if camera is None else camera
    cam = CAMERAS[cam] if isinstance(cam, str) else cam
    dose = chosen.dose if dose is None else dose
    n_frames = chosen.n_frames if n_frames is None else n_frames
    if n_frames < 1 or not dose > 0:
        raise ValueError(f"a stack has at least one frame and a dose above 0, not {n_frames} and {dose}")
    up = cam.super_resolution
    size = (shape[0] * up, shape[1] * up)

    def rng(purpose: int) -> np.random.Generator:
        return np.random.default_rng([seed, purpose, zlib.crc32(name.encode()) if purpose in (_SCENE, _FRAMES) else 0])

    drawn = chosen.draw(size, rng(_SCENE))
    if not chosen.defects:
        hot = dead = weak = 0.0
    planted = _plant(shape, rng(_DEFECTS), hot, excess, dead, weak, chosen.lines)
    return _Recording(cam, drawn, planted, dose, n_frames, rng).run(name, chosen.telegraph)


class _Recording:
    """The electrons of one call of `record`, frame by frame."""

    def __init__(
        self,
        camera: Camera,
        drawn: Drawn,
        planted: _Defects,
        dose: float,
        n_frames: int,
        rng: Callable[[int], np.random.Generator],
    ) -> None:
        self.camera, self.drawn, self.n_frames, self.rng = camera, drawn, n_frames, rng
        up = camera.super_resolution
        shape = drawn.relative.shape
        gain = np.exp(camera.gain_rms * rng(_GAIN).standard_normal(planted.hot.shape))
        self.gain = _finer((gain / gain.mean()).astype(np.float32), up) if camera.gain_rms else None
        self.rate = drawn.relative * np.float32(dose / n_frames / up**2)
        noise = rng(_OFFSET)
        self.level = np.full(shape, camera.offset, np.float32)
        if camera.offset_rms:
            pattern = noise.standard_normal(shape) + noise.standard_normal((1, shape[1]))
            self.level += (camera.offset_rms / 2**0.5 * pattern).astype(np.float32)
        self.psf = _psf(camera)
        self.expected, self.variance = self._moments(self.rate, self.gain)
        open_beam = np.full((1, 1), dose / n_frames / up**2, np.float32)
        # Hot pixels know nothing of the scene: their excess is absolute.
        step = float(np.sqrt(np.mean(self._moments(open_beam, None)[1]) * up**2 / n_frames))
        self.hot = _finer(planted.hot * np.float32(step / up**2), up)
        self.sensitivity = _finer(planted.sensitivity, up)

    def _moments(self, rate: np.ndarray, gain: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Mean of the signal (without the level) and variance of one frame's pixels, before any gain is applied."""
        cam = self.camera
        seen = rate if gain is None else rate / gain
        if cam.binary:
            p = -np.expm1(-seen)
            return p, p * (1 - p)
        if not cam.integrates:
            return seen, seen
        seen = self.psf(rate) * np.float32(cam.counts_per_electron)
        variance = seen * (cam.counts_per_electron * (1 + 1 / cam.landau) * _noise_kept(cam))
        if gain is not None:
            seen, variance = seen / gain, variance / gain**2
        rounding = 0 if cam.dtype == "float32" else 1 / 12
        return seen, variance + np.float32(cam.read_noise**2 + rounding)

    def run(self, name: str, telegraph: float) -> Recorded:
        cam, up = self.camera, self.camera.super_resolution
        dtype = np.dtype(cam.dtype or ("uint8" if self._top() < 200 else "uint16"))
        stack = np.empty((self.n_frames, *self.rate.shape), dtype)
        total = np.zeros(self.rate.shape)
        on = self._telegraph(telegraph)
        applied = self.gain if cam.normalised else None
        rng = self.rng(_FRAMES)
        for t in range(self.n_frames):
            clean, seen = self._frame(rng, t, on)
            for raw, out in ((clean, None), (seen, stack[t])):
                raw = np.clip(np.rint(raw), 0, np.iinfo(dtype).max) if dtype.kind == "u" else raw
                raw = raw if applied is None else raw * applied
                if out is None:
                    total += raw
                else:
                    out[...] = raw
        mean = self.expected + self.level
        hot, dead = self.hot > 0, self.sensitivity == 0
        return Recorded(
            name,
            stack,
            None if cam.normalised else self.gain,
            (mean if applied is None else mean * applied).astype(np.float32),
            total,
            self._excess(dtype, up),
            hot,
            dead,
            (self.sensitivity < 1) & ~dead,
            self.drawn.specimen,
            self.drawn.regions,
            up,
        )

    def _top(self) -> float:
        highest = float(self.expected.max())
        top: float = highest + 10 * highest**0.5
        return top

    def _telegraph(self, share: float) -> tuple[np.ndarray, np.ndarray] | None:
        """Flat indices of hot pixels that blink, and their relative strength in each frame (k, nz), mean 1."""
        if not share:
            return None
        rng = self.rng(_ON)
        where = np.flatnonzero(self.hot.reshape(-1))
        where = where[rng.random(where.size) < share]
        duty = np.maximum(1, np.rint(self.n_frames * rng.uniform(0.1, 0.6, where.size)))
        start = rng.integers(0, self.n_frames, where.size)
        phase = (np.arange(self.n_frames)[None] - start[:, None]) % self.n_frames
        return where, (phase < duty[:, None]) * (self.n_frames / duty[:, None])

    def _frame(
        self, rng: np.random.Generator, t: int, on: tuple[np.ndarray, np.ndarray] | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """One frame of the camera without defects, and of the one there is."""
        cam = self.camera
        hot = self.hot
        if on is not None:
            hot = hot.copy()
            hot.reshape(-1)[on[0]] *= on[1][:, t]
        bad, less = np.nonzero(hot), np.nonzero(self.sensitivity < 1)
        if not cam.integrates:
            clean = rng.poisson(self.rate if self.gain is None else self.rate / self.gain)
            seen = clean.copy()
            seen[less] = rng.binomial(clean[less], self.sensitivity[less])
            seen[bad] += rng.poisson(np.minimum(hot[bad], 1e6))
            return (np.minimum(clean, 1), np.minimum(seen, 1)) if cam.binary else (clean, seen)
        electrons = rng.poisson(self.rate).astype(np.float32)
        if np.isfinite(cam.landau):
            electrons = rng.standard_gamma(electrons * cam.landau).astype(np.float32) / np.float32(cam.landau)
        signal = self.psf(electrons) * np.float32(cam.counts_per_electron)
        if self.gain is not None:
            signal = signal / self.gain
        level = self.level + np.float32(cam.read_noise) * rng.standard_normal(signal.shape, np.float32)
        seen = signal * self.sensitivity
        seen[bad] += rng.poisson(np.minimum(hot[bad] / cam.counts_per_electron, 1e6)) * cam.counts_per_electron
        return signal + level, seen + level

    def _excess(self, dtype: np.dtype, up: int) -> np.ndarray:
        mean = self.expected * self.sensitivity + self.hot
        if self.camera.binary:
            rate = (self.rate if self.gain is None else self.rate / self.gain) * self.sensitivity + self.hot
            mean = -np.expm1(-rate)
        elif dtype.kind == "u":
            mean = np.minimum(mean, np.iinfo(dtype).max - self.level)
        change, variance = mean - self.expected, self.variance
        if up > 1:
            change, variance = (
                _finer(a.reshape(a.shape[0] // up, up, a.shape[1] // up, up).sum((1, 3)), up)
                for a in (change, variance)
            )
        out = change * np.sqrt(self.n_frames / np.maximum(variance, 1e-12))
        return np.where((self.hot > 0) | (self.sensitivity < 1), out, 0).astype(np.float32)
