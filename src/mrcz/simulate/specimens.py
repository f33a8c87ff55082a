"""What may lie in the beam, drawn with its truth: beads, ice crystals, bars, edges, uneven light, diffraction.

Every function here takes a shape and a random generator and returns a `Drawn`: the expected dose of every pixel
relative to the open beam, and which pixels are structure. Absorbing things act twice: they scatter electrons outside
the objective aperture, t = exp(−thickness/mean free path), and they shift the phase of the rest. Out of focus the two
make Fresnel fringes (`through_lens`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np

__all__ = ["Drawn", "through_lens"]

Shape = tuple[int, int]


@dataclass(frozen=True)
class Drawn:
    """What lies in the beam.

    Attributes
    ----------
    relative : ndarray (ny, nx) float32
        Expected dose of a pixel, 1 for the open beam (flat ice).
    specimen : ndarray (ny, nx) bool
        Pixels of the structure, its edges and fringes included: all that is not flat ice.
    regions : ndarray (ny, nx) int32
        0, or the number of the bead, crystal or bar a pixel belongs to.
    """

    relative: np.ndarray
    specimen: np.ndarray
    regions: np.ndarray


def _drawn(relative: np.ndarray, specimen: np.ndarray, regions: np.ndarray | None = None) -> Drawn:
    regions = specimen.astype(np.int32) if regions is None else regions.astype(np.int32)
    return Drawn(np.maximum(relative, 0).astype(np.float32), specimen, regions)


def _grid(shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Pixel coordinates (y, 1) and (1, x), float32."""
    return np.arange(shape[0], dtype=np.float32)[:, None], np.arange(shape[1], dtype=np.float32)[None]


def _soft(distance: np.ndarray, width: float = 1.0) -> np.ndarray:
    """Coverage of a pixel by what lies at negative ``distance`` (pixels) of its edge: 1 inside, 0 outside."""
    return np.clip(0.5 - distance / width, 0, 1)


def _smooth_noise(shape: Shape, rng: np.random.Generator, scale: float) -> np.ndarray:
    """Gaussian noise (ny, nx) of standard deviation 1, correlated over ``scale`` pixels; 0 where that is all of it."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(rng.standard_normal(shape, np.float32), scale, mode="wrap")
    noise -= noise.mean()
    spread = noise.std()
    return noise / spread if spread > 1e-4 else np.zeros_like(noise)


def through_lens(transmission: np.ndarray, fringe: float, phase: np.ndarray | float = 2.0) -> np.ndarray:
    """Intensity (ny, nx) float32 of an object seen out of focus.

    Parameters
    ----------
    transmission : ndarray (ny, nx)
        Intensity in focus, relative to the open beam, above 0.
    fringe : float
        √(λΔf) in pixels, the width of the first Fresnel fringe: at 300 kV (λ = 1.97 pm), 1.5 µm of defocus and 1.5 Å a
        pixel it is 3.6. 0 is focus.
    phase : ndarray (ny, nx) or float
        Phase shift in radians; as a number, radians per unit of −ln t. 2 is gold at 300 kV (a mean inner potential
        near 28 V makes .18 rad/nm, elastic scattering e^−1 in about 10 nm).

    Notes
    -----
    ψ = √t · e^{iφ} times the propagator exp(−iπλΔf k²) in Fourier space (Reimer & Kohl, *Transmission Electron
    Microscopy*, §3.3), with a Gaussian envelope that is .6 at half of Nyquist for partial coherence and detector.
    """
    transmission = np.maximum(np.asarray(transmission, np.float32), 1e-6)
    if not fringe > 0:
        return transmission
    from scipy import fft

    ny, nx = transmission.shape
    edge = int(min(32, ny - 1, nx - 1))
    shift = np.float32(phase) * -np.log(transmission) if np.ndim(phase) == 0 else np.asarray(phase, np.float32)
    wave = np.pad(np.sqrt(transmission) * np.exp(1j * shift), edge, mode="reflect").astype(np.complex64)
    ky = fft.fftfreq(wave.shape[0])[:, None].astype(np.float32)
    kx = fft.fftfreq(wave.shape[1])[None].astype(np.float32)
    k2 = ky**2 + kx**2
    wave = cast(np.ndarray, fft.fft2(wave, overwrite_x=True))
    wave *= np.exp(-(8.0 + 1j * np.pi * fringe**2) * k2).astype(np.complex64)
    wave = cast(np.ndarray, fft.ifft2(wave, overwrite_x=True))[edge : edge + ny, edge : edge + nx]
    intensity: np.ndarray = (np.real(wave) ** 2 + np.imag(wave) ** 2).astype(np.float32)
    return intensity


def flat(shape: Shape, rng: np.random.Generator) -> Drawn:
    """Vitreous ice and nothing else."""
    nothing = np.zeros(shape, bool)
    return _drawn(np.ones(shape, np.float32), nothing)


def gold(
    shape: Shape,
    rng: np.random.Generator,
    *,
    radius: float | tuple[float, float] = 15.0,
    cover: float = 0.03,
    centre: float = 0.4,
    fringe: float = 0.0,
    disc: bool = False,
) -> Drawn:
    """Gold beads: spheres whose centre passes ``centre`` of the beam.

    ``radius`` in pixels, one (± 10 %) or a range drawn log-uniformly; ``cover`` the share of the image they cover;
    ``disc``: equally dark to the edge, the hardest edge there is. Beads may touch and overlap when crowded.
    """
    ny, nx = shape
    low, high = radius if isinstance(radius, tuple) else (0.9 * radius, 1.1 * radius)
    thickness = np.zeros(shape, np.float32)
    regions = np.zeros(shape, np.int32)
    area, number = 0.0, 0
    while area < cover * ny * nx or not number:
        r = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        cy, cx = rng.uniform(-r / 2, ny + r / 2), rng.uniform(-r / 2, nx + r / 2)
        reach = int(r) + 3
        y0, y1, x0, x1 = max(0, int(cy) - reach), int(cy) + reach + 1, max(0, int(cx) - reach), int(cx) + reach + 1
        here = (slice(y0, min(y1, ny)), slice(x0, min(x1, nx)))
        y, x = np.arange(y0, min(y1, ny))[:, None], np.arange(x0, min(x1, nx))[None]
        number += 1
        area += np.pi * r * r
        # Nine points a pixel: an edge of half a pixel is no defect.
        profile = np.zeros((y.size, x.size))
        for dy in (-1 / 3, 0, 1 / 3):
            for dx in (-1 / 3, 0, 1 / 3):
                inside = 1 - ((y + dy - cy) ** 2 + (x + dx - cx) ** 2) / r**2
                profile += (inside > 0) if disc else np.sqrt(np.maximum(inside, 0))
        thickness[here] += (profile / 9).astype(np.float32)
        regions[here][np.hypot(y - cy, x - cx) < r + 0.5] = number
    relative = through_lens(np.exp(np.log(centre) * thickness), fringe)
    return _drawn(relative, _grown(thickness > 0, 2 + round(1.5 * fringe)), regions)


def _grown(mask: np.ndarray, by: int) -> np.ndarray:
    from scipy.ndimage import maximum_filter

    return maximum_filter(mask, 2 * by + 1) if by > 0 else mask


def ice_crystals(
    shape: Shape,
    rng: np.random.Generator,
    *,
    size: tuple[float, float] = (8, 40),
    cover: float = 0.1,
    fringe: float = 2.0,
) -> Drawn:
    """Crystalline ice and frost: facetted, dark by diffraction, with thickness fringes and bend contours inside."""
    ny, nx = shape
    y, x = _grid(shape)
    log_t = np.zeros(shape, np.float32)
    regions = np.zeros(shape, np.int32)
    area, number = 0.0, 0
    while area < cover * ny * nx or not number:
        r = float(np.exp(rng.uniform(*np.log(size))))
        cy, cx = rng.uniform(0, ny), rng.uniform(0, nx)
        y0, y1, x0, x1 = (
            max(0, int(cy - 2 * r)),
            min(ny, int(cy + 2 * r) + 1),
            max(0, int(cx - 2 * r)),
            min(nx, int(cx + 2 * r) + 1),
        )
        here = (slice(y0, y1), slice(x0, x1))
        dy, dx = y[y0:y1] - cy, x[:, x0:x1] - cx
        # A convex polygon: inside of 5 to 7 half-planes.
        turn = rng.uniform(0, 2 * np.pi)
        distance = np.full((y1 - y0, x1 - x0), -np.inf, np.float32)
        for angle in turn + 2 * np.pi * (np.arange(6) + rng.uniform(-0.25, 0.25, 6)) / 6:
            distance = np.maximum(distance, dy * np.sin(angle) + dx * np.cos(angle) - r * rng.uniform(0.7, 1.1))
        angle, period = rng.uniform(0, np.pi), rng.uniform(5, 15)
        bend = np.sin(2 * np.pi * (dy * np.sin(angle) + dx * np.cos(angle)) / period + rng.uniform(0, 6))
        depth = np.minimum(1, 0.3 - distance / (0.4 * r))
        number += 1
        area += np.pi * r * r
        log_t[here] += _soft(distance) * depth * (-rng.uniform(0.25, 0.9) * (1 + 0.35 * bend))
        regions[here][distance < 0.5] = number
    relative = through_lens(np.exp(log_t), fringe, phase=1.0)
    return _drawn(relative, _grown(regions > 0, 1 + round(1.5 * fringe)), regions)


def grid_bar(
    shape: Shape, rng: np.random.Generator, *, cover: float = 0.2, passes: float = 0.05, fringe: float = 2.5
) -> Drawn:
    """A copper or gold bar across the image: ``passes`` of the beam come through; its edge is rough."""
    distance = _straight_edge(shape, rng, cover, rough=3.0)
    relative = through_lens(1 - (1 - passes) * _soft(distance), fringe, phase=0.2)
    return _drawn(relative, distance < 2 + 2 * fringe, distance < 0.5)


def _straight_edge(shape: Shape, rng: np.random.Generator, cover: float, rough: float = 0.0) -> np.ndarray:
    """Signed distance (pixels) to an oblique line with ``cover`` of the image on its negative side."""
    y, x = _grid(shape)
    angle = rng.uniform(0, 2 * np.pi)
    along = -y * np.sin(angle) + x * np.cos(angle)
    across = y * np.cos(angle) + x * np.sin(angle)
    if rough:
        for period in (9.0, 31.0, 120.0, 400.0):
            across = across + rough * (period / 400) ** 0.6 * np.sin(2 * np.pi * along / period + rng.uniform(0, 6))
    distance: np.ndarray = across - np.quantile(across, cover)
    return distance


def hole_edge(
    shape: Shape,
    rng: np.random.Generator,
    *,
    cover: float = 0.25,
    passes: float = 0.6,
    texture: float = 0.06,
    fringe: float = 3.0,
) -> Drawn:
    """The edge of a round hole: ice inside, granular carbon or gold foil over ``cover`` of the image outside.

    ``texture`` is the contrast (rms) of its grain.
    """
    y, x = _grid(shape)
    ny, nx = shape
    angle = rng.uniform(0, 2 * np.pi)
    radius = rng.uniform(0.7, 1.2) * np.hypot(ny, nx)
    distance = radius - np.hypot(y - ny / 2 - radius * np.sin(angle), x - nx / 2 - radius * np.cos(angle))
    distance = distance - np.quantile(distance, cover)
    return _film(distance, rng, passes, texture, fringe)


def carbon(
    shape: Shape,
    rng: np.random.Generator,
    *,
    cover: float = 0.5,
    passes: float = 0.85,
    texture: float = 0.08,
    fringe: float = 3.0,
) -> Drawn:
    """A carbon film over a part of the image, straight edge, with the grain of its phase contrast."""
    return _film(_straight_edge(shape, rng, cover, rough=4.0), rng, passes, texture, fringe)


def _film(distance: np.ndarray, rng: np.random.Generator, passes: float, texture: float, fringe: float) -> Drawn:
    inside = _soft(distance, 2.0)
    # A weak phase object of phase rms p that is white over a few pixels has a contrast near 2p · rms(sin χ) ≈ √2 p.
    grain = texture / 2**0.5 * _smooth_noise(distance.shape, rng, 1.0)
    relative = through_lens(1 - (1 - passes) * inside, fringe, phase=inside * (0.6 + grain))
    return _drawn(relative, distance < 2 + 2 * fringe, distance < 0.5)


def vignetting(shape: Shape, rng: np.random.Generator, *, radius: float = 0.56, edge: float = 12.0) -> Drawn:
    """Corners outside the condenser aperture: the beam ends ``radius`` (of the longer side) from a centre near the
    middle, over ``edge`` pixels."""
    from scipy.special import ndtr

    y, x = _grid(shape)
    ny, nx = shape
    cy, cx = ny * rng.uniform(0.45, 0.55), nx * rng.uniform(0.45, 0.55)
    distance = np.hypot(y - cy, x - cx) - radius * max(ny, nx)
    lit = ndtr(-distance / edge)
    # A beam's rim has Fresnel fringes of the aperture: weak, and coarse.
    rim = 0.06 * np.cos(distance / 4) * np.exp(-np.maximum(-distance, 0) / 25) * lit
    return _drawn(0.03 + 0.97 * lit + rim, distance > -3 * edge, distance > 0)


def gradient(shape: Shape, rng: np.random.Generator, *, strength: float = 0.4) -> Drawn:
    """Light or thickness that changes by ± ``strength`` across the image, along a plane and a gentle second order."""
    y, x = _grid(shape)
    v, u = 2 * y / max(shape[0] - 1, 1) - 1, 2 * x / max(shape[1] - 1, 1) - 1
    angle = rng.uniform(0, 2 * np.pi)
    plane = (v * np.sin(angle) + u * np.cos(angle)) / (abs(np.sin(angle)) + abs(np.cos(angle)))
    return _drawn(1 + strength * (0.85 * plane - 0.15 * (u * u + v * v - 1)), np.ones(shape, bool), np.zeros(shape))


def tilt(shape: Shape, rng: np.random.Generator, *, angle: float = 60.0) -> Drawn:
    """A slab at ``angle`` degrees: 1/cos as thick, thicker still along the tilt, with gold and a dark film edge."""
    y, x = _grid(shape)
    thick = 0.35 / np.cos(np.radians(angle)) * (1 + 0.6 * (x / shape[1] - 0.5) + 0.1 * (y / shape[0] - 0.5))
    beads = gold(shape, rng, radius=8.0, cover=0.01, centre=0.35, fringe=2.0)
    cells = 0.12 * _smooth_noise(shape, rng, max(2.0, shape[1] / 60))
    relative = np.exp(-thick + cells) * beads.relative
    return _drawn(relative / relative.mean(), np.ones(shape, bool), beads.regions)


def particles(shape: Shape, rng: np.random.Generator, *, contrast: float = 0.08) -> Drawn:
    """Particles under a phase-contrast transfer function, see `mrcz.simulate.Specimen`."""
    from mrcz.simulate.detector import Specimen

    scene = Specimen(n_particles=max(1, shape[0] * shape[1] // 6500), contrast=contrast).scene(shape, rng)
    return _drawn(scene, np.ones(shape, bool), np.zeros(shape))


def bragg(
    shape: Shape, rng: np.random.Generator, *, spacing: float = 23.0, spot: float = 0.6, brightest: float = 60.0
) -> Drawn:
    """A diffraction pattern: spots about a pixel wide on an oblique lattice over a diffuse background, a beam stop.

    Spot intensities are exponentially distributed (Wilson 1949, acentric) and fall with a Debye–Waller factor.
    """
    ny, nx = shape
    y, x = _grid(shape)
    cy, cx = ny / 2 + rng.uniform(-2, 2), nx / 2 + rng.uniform(-2, 2)
    radius = np.hypot(y - cy, x - cx)
    size = max(ny, nx)
    relative = 0.15 + 6 * np.exp(-radius / (0.05 * size)) + 0.8 * np.exp(-radius / (0.25 * size))
    turn = rng.uniform(0, np.pi)
    a = spacing * np.array([np.sin(turn), np.cos(turn)])
    b = 1.2 * spacing * np.array([np.sin(turn + 1.9), np.cos(turn + 1.9)])
    spots = np.zeros(shape, bool)
    reach = int(size / spacing) + 1
    for h in range(-reach, reach + 1):
        for k in range(-reach, reach + 1):
            py, px = cy + h * a[0] + k * b[0], cx + h * a[1] + k * b[1]
            if not (2 <= py < ny - 3 and 2 <= px < nx - 3) or not (h or k):
                continue
            fall = np.exp(-((np.hypot(py - cy, px - cx) / (0.35 * size)) ** 2))
            height = brightest * rng.exponential() * fall
            here = (slice(int(py) - 2, int(py) + 4), slice(int(px) - 2, int(px) + 4))
            relative[here] += height * np.exp(-((y[here[0]] - py) ** 2 + (x[:, here[1]] - px) ** 2) / (2 * spot**2))
            spots[here] |= height > 0.05
    stop = (np.abs(x - cx) < 0.02 * size) & (y < cy + 0.02 * size) | (radius < 0.03 * size)
    relative = np.where(stop, 0.02, relative)
    return _drawn(relative, np.ones(shape, bool), spots)


def eels(shape: Shape, rng: np.random.Generator, *, width: float = 0.7, height: float = 400.0) -> Drawn:
    """A spectrum image of a spectrometer: a zero loss one or two columns wide, plasmons, a falling tail.

    Energy loss runs along x; along y the spectrum fills most of the frame, slightly bent by aberration.
    """
    y, x = _grid(shape)
    ny, nx = shape
    at = 0.12 * nx + 1.5 * ((y - ny / 2) / (ny / 2)) ** 2 + 0.004 * (y - ny / 2)
    loss = x - at
    zero = height * np.exp(-(loss**2) / (2 * width**2)) + 0.004 * height / (1 + (loss / 2) ** 2)
    plasmon = np.zeros_like(loss)
    for n in (1, 2, 3):
        plasmon += 9.0 / n**1.5 * np.exp(-0.5 * ((loss - 0.13 * nx * n) / (0.022 * nx * n**0.5)) ** 2)
    tail = np.where(loss > 0, 2.0 / (1 + np.maximum(loss, 0) / (0.1 * nx)) ** 2.5, 0)
    lit = _soft(np.abs(y - ny / 2) - 0.36 * ny, 0.05 * ny)
    return _drawn(0.02 + lit * (zero + plasmon + tail), np.ones(shape, bool), np.zeros(shape))


def half_shadow(shape: Shape, rng: np.random.Generator, *, passes: float = 0.5) -> Drawn:
    """A part of the frame in the shadow of something at the camera: a step as sharp as one pixel."""
    distance = _straight_edge(shape, rng, rng.uniform(0.3, 0.6))
    return _drawn(1 - (1 - passes) * _soft(distance), distance < 2, distance < 0.5)


def beam_stop(shape: Shape, rng: np.random.Generator) -> Drawn:
    """A needle with a round tip, all black, reaching from an edge to the middle."""
    y, x = _grid(shape)
    ny, nx = shape
    width = 0.03 * max(ny, nx)
    bent = x - nx * (0.5 + rng.uniform(-0.1, 0.1)) - rng.uniform(-0.2, 0.2) * (y - ny / 2)
    distance = np.where(y > ny / 2, np.hypot(y - ny / 2, bent), np.abs(bent)) - width
    return _drawn(1 - 0.99 * _soft(distance), distance < 2, distance < 0.5)


def lamella(shape: Shape, rng: np.random.Generator) -> Drawn:
    """A milled lamella: curtains along y, thickness steps and a slope, cell contents, a black front of platinum."""
    y, x = _grid(shape)
    column = np.cumsum(rng.standard_normal(shape[1]) * (rng.random(shape[1]) < 0.05))
    fine = np.convolve(rng.standard_normal(shape[1]), [0.25, 0.5, 0.25], "same")[: shape[1]]
    curtains = 0.08 * column / max(float(column.std()), 1e-6) + 0.03 * fine
    thick = 0.9 + 0.3 * y / shape[0] + curtains[None].astype(np.float32)
    cells = 0.1 * _smooth_noise(shape, rng, 6.0) + 0.05 * _smooth_noise(shape, rng, 1.5)
    front = _soft(y - 0.1 * shape[0] - 4 * np.sin(x / 37), 2.0)
    relative = through_lens(np.exp(-thick + cells - 3 * front), 2.0, phase=0.2)
    return _drawn(relative / relative.mean(), np.ones(shape, bool), front > 0.5)


def moire(shape: Shape, rng: np.random.Generator, *, contrast: float = 0.25, period: float = 5.0) -> Drawn:
    """Two crystals on each other: fringes of a few pixels that beat, over a part of the image."""
    y, x = _grid(shape)
    angle = rng.uniform(0, np.pi)
    relative = np.ones(shape, np.float32)
    for turn, stretch in ((0, 1.0), (0.06, 1.08), (1.05, 1.0)):
        along = y * np.sin(angle + turn) + x * np.cos(angle + turn)
        relative += contrast / 2 * np.cos(2 * np.pi * along / (period * stretch))
    grain = _smooth_noise(shape, rng, max(8.0, max(shape) / 12)) > 0
    return _drawn(np.where(grain, relative, 1), grain, np.zeros(shape))


def atoms(
    shape: Shape, rng: np.random.Generator, *, spacing: float = 7.0, height: float = 1.5, width: float = 1.3
) -> Drawn:
    """A crystal at atomic resolution: bright columns ``spacing`` pixels apart, over the whole image."""
    y, x = _grid(shape)
    angle = rng.uniform(0, np.pi)
    u = (y * np.sin(angle) + x * np.cos(angle)) / spacing
    v = (y * np.cos(angle) - x * np.sin(angle)) / (0.9 * spacing)
    du, dv = (u - np.rint(u)) * spacing, (v - np.rint(v)) * 0.9 * spacing
    relative = 0.6 + height * np.exp(-(du**2 + dv**2) / (2 * width**2))
    return _drawn(relative / relative.mean(), np.ones(shape, bool), np.zeros(shape))


def low_magnification(shape: Shape, rng: np.random.Generator, *, period: float = 90.0) -> Drawn:
    """Grid squares seen from far: bright windows between bars, film with an array of holes in the windows."""
    y, x = _grid(shape)
    angle = rng.uniform(0, np.pi / 2)
    u = (y * np.sin(angle) + x * np.cos(angle)) / period
    v = (y * np.cos(angle) - x * np.sin(angle)) / period
    bar = np.maximum(np.abs(u - np.rint(u)), np.abs(v - np.rint(v)))
    bars = _soft((0.36 - bar) * period, 2.0)
    holes = period / 8
    hu, hv = u * period / holes, v * period / holes
    inside = np.hypot(hu - np.rint(hu), hv - np.rint(hv))
    film = 0.7 + 0.3 * _soft((inside - 0.3) * holes, 1.5)
    ice = np.exp(0.15 * _smooth_noise(shape, rng, period / 2))
    relative = film * ice * (1 - 0.97 * bars)
    return _drawn(relative / relative.mean(), np.ones(shape, bool), bars > 0.5)


def sectors(shape: Shape, rng: np.random.Generator, *, step: float = 0.04) -> Drawn:
    """Amplifiers or chips of slightly different gain side by side: straight steps between their areas."""
    levels = 1 + step * rng.standard_normal((2, 8))
    ny, nx = shape
    relative = np.repeat(np.repeat(levels, -(-ny // 2), 0), -(-nx // 8), 1)[:ny, :nx]
    return _drawn(relative / relative.mean(), np.ones(shape, bool), np.zeros(shape))


def fibres(
    shape: Shape, rng: np.random.Generator, *, number: int = 14, width: float = 1.2, depth: float = 0.3
) -> Drawn:
    """Nanotubes or filaments: dark lines two or three pixels wide, with a bright rim out of focus."""
    y, x = _grid(shape)
    log_t = np.zeros(shape, np.float32)
    near = np.zeros(shape, bool)
    for _ in range(number):
        angle, bend = rng.uniform(0, np.pi), rng.uniform(5, 30)
        cy, cx = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        along = (y - cy) * np.sin(angle) + (x - cx) * np.cos(angle)
        across = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle) + bend * np.sin(along / rng.uniform(60, 150))
        log_t += depth * np.log(0.5) * 2 * np.exp(-(across**2) / (2 * width**2)).astype(np.float32)
        near |= np.abs(across) < 4
    return _drawn(through_lens(np.exp(log_t), 1.5, phase=1.0), near)


def single_atoms(
    shape: Shape, rng: np.random.Generator, *, density: float = 0.002, width: float = 1.2, height: float = 3.0
) -> Drawn:
    """Heavy atoms in dark-field STEM: bright spots of standard deviation ``width`` pixels on an even background."""
    y, x = _grid(shape)
    relative, near = np.ones(shape, np.float32), np.zeros(shape, bool)
    for _ in range(max(1, round(density * shape[0] * shape[1]))):
        cy, cx = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        here = tuple(slice(max(0, int(c) - 5), int(c) + 7) for c in (cy, cx))
        spot = np.exp(-((y[here[0]] - cy) ** 2 + (x[:, here[1]] - cx) ** 2) / (2 * width**2))
        relative[here] += height * spot
        near[here] |= spot > 0.05
    return _drawn(relative, near)


def powder(shape: Shape, rng: np.random.Generator, *, width: float = 0.9, height: float = 3.0) -> Drawn:
    """Diffraction rings a pixel or two wide around a bright centre."""
    y, x = _grid(shape)
    size = max(shape)
    radius = np.hypot(y - shape[0] * rng.uniform(0.45, 0.55), x - shape[1] * rng.uniform(0.45, 0.55))
    relative = 0.2 + 5 * np.exp(-radius / (0.12 * size))
    for order in (3, 4, 8, 11, 12, 16, 19, 20, 24):
        # The reflections of a face-centred cubic crystal lie at √(h² + k² + l²).
        relative += height * np.exp(-((radius - 0.075 * size * order**0.5) ** 2) / (2 * width**2))
    return _drawn(relative, np.ones(shape, bool))
