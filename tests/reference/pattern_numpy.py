"""The parts of a read-out pattern, image by image: what `mrcz.correct._pattern` must agree with."""

import numpy as np


def parts(image, bands, run, degree):
    """light, columns, rows and pixels of an image (ny, nx), each as an image; their sum is the image."""
    ny, nx = image.shape
    image = image.astype(np.float64)
    rows = [slice(ny * k // bands, ny * (k + 1) // bands) for k in range(bands)]
    count = max(1, nx // run)
    pieces = [slice(nx * k // count, nx * (k + 1) // count) for k in range(count)]
    tall = max(1, ny // run)
    blocks = [slice(ny * k // tall, ny * (k + 1) // tall) for k in range(tall)]
    y = np.linspace(-1, 1, ny) if ny > 1 else np.zeros(1)
    x = np.linspace(-1, 1, nx) if nx > 1 else np.zeros(1)
    terms = [np.outer(y**i, x**j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    means = np.array([[term[b, p].mean() for b in blocks for p in pieces] for term in terms]).T
    weight = np.sqrt([image[b, p].size for b in blocks for p in pieces])
    seen = np.array([image[b, p].mean() for b in blocks for p in pieces])
    solved = np.linalg.lstsq(means * weight[:, None], seen * weight, rcond=1e-10)[0]
    light = sum(value * term for value, term in zip(solved, terms, strict=True))
    left = image - light
    columns, along = np.zeros_like(left), np.zeros_like(left)
    for band in rows:
        columns[band] = left[band].mean(0)
    left = left - columns
    for piece in pieces:
        along[:, piece] = left[:, piece].mean(1, keepdims=True)
    return {"light": light, "columns": columns, "rows": along, "pixels": left - along}


def factors(image, other, bands, run, degree):
    """⟨other · part⟩/⟨part²⟩ for each part of ``image``, and the correlation of the two in each."""
    out = {}
    theirs = parts(other, bands, run, degree)
    for name, part in parts(image, bands, run, degree).items():
        mine, its = part - part.mean(), theirs[name] - theirs[name].mean()
        power = (mine**2).sum() * (its**2).sum()
        product = (mine * its).sum()
        out[name] = (product / (mine**2).sum(), product / np.sqrt(power)) if power > 1e-12 * image.size else (0, 0)
    return out


def moments(stack):
    return stack.astype(np.float64).sum(0), (stack.astype(np.float64) ** 2).sum(0)
