"""The pixel kernels in plain NumPy: slow, short, and what the fast ones must agree with."""

import math

import numpy as np


def bit_transpose(data):
    """Eight planes of n / 8 bytes: bit i of byte j of plane p is bit p of data[8 j + i]."""
    bits = np.unpackbits(data, bitorder="little").reshape(-1, 8)
    return np.packbits(bits.T.reshape(-1), bitorder="little")


def bit_untranspose(data):
    bits = np.unpackbits(data, bitorder="little").reshape(8, -1)
    return np.packbits(bits.T.reshape(-1), bitorder="little")


def shuffle(data, size):
    whole = len(data) // size * size
    return np.concatenate([data[:whole].reshape(-1, size).T.reshape(-1), data[whole:]])


def unshuffle(data, size):
    whole = len(data) // size * size
    return np.concatenate([data[:whole].reshape(size, -1).T.reshape(-1), data[whole:]])


def byteswap(data, size):
    return data.reshape(-1, size)[:, ::-1].reshape(-1)


def pack4(pixels):
    """(ny, nx) pixels -> (ny, (nx + 1) // 2) bytes, the first of each pair in the low nibble."""
    ny, nx = pixels.shape
    even = np.zeros((ny, nx + nx % 2), np.uint8)
    even[:, :nx] = pixels & 15
    return even[:, ::2] | even[:, 1::2] << 4


def unpack4(packed, nx):
    """(ny, (nx + 1) // 2) bytes -> (ny, nx) pixels."""
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(packed), -1)[:, :nx]


def nonzero_mask(data):
    bits = np.zeros((len(data) + 63) // 64 * 64, np.uint8)
    bits[: len(data)] = data != 0
    return np.packbits(bits, bitorder="little").view("<u8").astype(np.uint64)


def histogram(data):
    return np.bincount(data, minlength=256).astype(np.uint32)


def stats(pixels):
    """(n, min, max, sum, sumsq), NaN skipped, sums as exact as float64 can hold them."""
    with np.errstate(invalid="ignore"):
        values = pixels[~np.isnan(pixels)].astype(np.float64)
    if not len(values):
        return 0, math.inf, -math.inf, 0.0, 0.0
    return len(values), values.min(), values.max(), math.fsum(values), math.fsum(values * values)


def to_float(pixels, gain=None):
    with np.errstate(all="ignore"):
        out = pixels.astype(np.float32)
        return out if gain is None else out * gain


def add(pixels, acc):
    return acc + pixels.astype(acc.dtype)


def add_f64(pixels, acc, gain=None, weight=1.0):
    with np.errstate(all="ignore"):
        values = pixels.astype(np.float64) if gain is None else to_float(pixels, gain).astype(np.float64)
        return acc + weight * values
