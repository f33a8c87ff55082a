"""What the outlier filter is judged by: other programs' rules, and measures of a mask against the truth of a scene.

A rule is ``find(image) → mask``, image the sum (ny, nx) float64 of gain-normalised frames. All masks are filled in the
same way, so that finding is compared and not filling. Used by the tests and by bench/scenes.py.
"""

import numpy as np
from scipy.ndimage import gaussian_filter, median_filter

from mrcz.correct import correlation, defect_model, fit_outliers


def median_score(image, size=5):
    """Distance (ny, nx) of each pixel from the median of its size × size pixels, in robust σ of all those distances."""
    off = image - median_filter(image, size, mode="nearest")
    off -= np.median(off)
    spread = 1.4826 * np.median(np.abs(off))
    return np.abs(off) / (spread or 1.0)


def median_5x5(image):
    """Further than 5 robust σ from the median of its 5 × 5 pixels."""
    return median_score(image) > 5


def relion(image):
    """Above mean + 6σ of the summed image, σ not robust: RELION's motion correction (its ``hotpixel_sigma``)."""
    return image > image.mean() + 6 * image.std()


def sigma_clip(image, n_sigma=4.0):
    """Outside mean ± 4σ, iterated until nothing more is."""
    keep = np.ones(image.shape, bool)
    for _ in range(50):
        mean, spread = image[keep].mean(), image[keep].std()
        now = np.abs(image - mean) <= n_sigma * spread
        if np.array_equal(now, keep):
            break
        keep = now
    return ~keep


RULES = {"5 × 5 median, 5σ": median_5x5, "RELION's rule": relion, "iterated 4σ clip": sigma_clip}


def normalised(seen, frames=slice(None)):
    """Sum (ny, nx) float64 of the scene's frames times its gain, in physical pixels."""
    image = seen.stack[frames].sum(0, dtype=np.float64)
    if seen.gain is not None:
        image *= seen.gain
    return physical(image, seen.super_resolution)


def physical(image, up):
    """Sums (ny/up, nx/up) of blocks."""
    return image if up == 1 else image.reshape(image.shape[0] // up, up, image.shape[1] // up, up).sum((1, 3))


def by_rule(rule):
    """``find(seen, frames) → mask (ny, nx)`` of a rule of `RULES`."""

    def find(seen, frames=slice(None)):
        mask = rule(normalised(seen, frames))
        up = seen.super_resolution
        return np.repeat(np.repeat(mask, up, 0), up, 1) if up > 1 else mask

    return find


def ours(method, **options):
    """``find(seen, frames) → mask`` of `fit_outliers`."""

    def find(seen, frames=slice(None)):
        return model_of(seen, method, frames, **options).mask

    return find


def model_of(seen, method, frames=slice(None), **options):
    return fit_outliers(seen.stack[frames], method, gain=seen.gain, super_resolution=seen.super_resolution, **options)


def true_mask(seen, frames=slice(None)):
    return seen.outliers


# ---- measures --------------------------------------------------------------------------------------------------------


def share(mask, of):
    """(pixels of ``of`` in ``mask``, pixels of ``of``)."""
    return int(np.count_nonzero(mask & of)), int(np.count_nonzero(of))


def divide(pairs):
    """Pairs of `share` added up and divided; 0 of nothing is 0."""
    hit, of = np.sum(list(pairs), 0)
    return float(hit / of) if of else 0.0


def counts(seen, mask):
    """How many pixels of each kind there are and are flagged: pairs that may be added up over seeds."""
    good = ~seen.outliers
    return {
        "recall": share(mask, seen.strong(5)),
        "recall of 3σ": share(mask, seen.strong(3)),
        "specimen": share(mask, seen.specimen & good),
        "flat": share(mask, ~seen.specimen & good),
        "precision": share(seen.outliers, mask),
    }


def median_at_recall(seen, recall, score=None):
    """Share of clean specimen pixels the 5 × 5 median flags with the threshold that gives it this ``recall``.

    Recall of defects above 3σ: of those above 5σ nearly all are found at any threshold, and one pixel would decide. As
    a pair of `share`; in super-resolution of physical pixels. ``score``: its `median_score`, if known already.
    """
    score = median_score(normalised(seen)) if score is None else score
    up = seen.super_resolution
    strong, clean = (mask[::up, ::up] for mask in (seen.strong(3), seen.specimen & ~seen.outliers))
    threshold = np.quantile(score[strong], 1 - recall) if strong.any() else np.inf
    return share(score >= threshold, clean)


def sums(seen, model):
    """Over all regions together: (sum of the filtered frames, sum of the same electrons without defects).

    Defects weaker than 5σ that were left in are left out of both: nobody is asked to find them.
    """
    inside = (seen.regions > 0) & ~(seen.outliers & ~seen.strong(5) & ~model.mask)
    gain = 1.0 if seen.gain is None else seen.gain.astype(np.float64)
    filtered = np.zeros(inside.shape)
    for number, frame in enumerate(seen.stack):
        frame = frame if seen.gain is None else frame * seen.gain
        filtered += model.apply_frame(frame, number=number)
    return float(filtered[inside].sum()), float((seen.clean_sum * gain)[inside].sum())


def held_out(seen, find, width=2.0, ways=2):
    """R between frames, outliers found in one half of them and judged on the other, mean of both ways; in two manners.

    First, of high-passed frames: minus their own Gaussian of ``width`` pixels, which takes most of the specimen away
    and leaves single pixels; a filter that erases specimen looks good here. Second, of frames minus the scene's true
    image, which leaves defects, and the holes where a filter erased specimen.
    """
    half = len(seen.stack) // 2
    gain = 1.0 if seen.gain is None else seen.gain
    truth = seen.expected * gain
    out = []
    for fitted, judged in ((slice(0, half), slice(half, None)), (slice(half, None), slice(0, half)))[:ways]:
        model = defect_model(seen.stack[fitted], defects=find(seen, fitted), gain=seen.gain)

        def filtered(frame, number, model=model):
            return model.apply_frame(np.asarray(frame * gain, np.float32), number=number)

        frames = np.stack([filtered(frame, number) for number, frame in enumerate(seen.stack[judged])])
        out.append(
            [
                correlation(frames, lambda frame, _: frame - gaussian_filter(frame, width, mode="nearest")),
                correlation(frames, lambda frame, _: frame - truth),
            ]
        )
    return tuple(np.mean(out, 0).tolist())
