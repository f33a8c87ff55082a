"""Values -> 1024 bytes: the fields of a header that is being made, group by group."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mrcz.container.header.fields import Fields
from mrcz.container.header.layout import (
    COUNTS_LABEL,
    IMOD_4BIT,
    IMOD_SIGNED,
    IMOD_STAMP,
    KINDS,
    LABEL_PATTERN,
    MRCZ_LABEL,
    default_mz,
)
from mrcz.container.modes import PixelFormat

# DMIN, DMAX, DMEAN, RMS as the standard marks them.
NOT_COMPUTED = (0.0, -1.0, -2.0, -1.0)


def first_given(*values: Any) -> float:
    """The first value that is given."""
    return float(next(value for value in values if value is not None))


def build_order(byteorder: str | None, pixel_format: PixelFormat, like: Fields | None) -> str:
    """The byte order asked for, of the pixels or of `like`."""
    own = pixel_format.byteorder
    if byteorder not in (None, "<", ">"):
        raise ValueError(f"byteorder is {byteorder!r}, expected '<' or '>'")
    if own != "|" and byteorder not in (None, own):
        raise ValueError(f"byteorder {byteorder!r} of the header contradicts {own!r} of the pixels")
    if own != "|":
        return own
    return byteorder or (like.byteorder if like is not None else "<")


def set_axes(record: np.ndarray, like: Fields | None) -> None:
    if like is None:
        record["cellb"] = 90.0
        axes = (1, 2, 3)
    else:
        axes = like.axes
    record["mapc"], record["mapr"], record["maps"] = axes


def set_kind(record: np.ndarray, kind: str | None, nz: int, like: Fields | None) -> str:
    """ISPG of a kind; a space group of `like` that already says so stays."""
    if kind is None:
        kind = like.kind if like is not None else "stack"
        if kind == "volume stack" and like is not None and nz != like.nz and nz % max(1, like.mz):
            kind = "volume" if nz < like.mz else "stack"  # sections of a volume, or of several: no whole ones any more
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}, expected one of {', '.join(KINDS)}")
    if kind == "image" and nz > 1:
        kind = "stack"
    ispg = int(record["ispg"])
    if kind == "volume":
        ispg = ispg if 1 <= ispg <= 400 else 1
    elif kind == "volume stack":
        ispg = ispg if 401 <= ispg <= 630 else 401
    else:
        ispg = 0
    record["ispg"] = ispg
    return kind


def set_cell(
    record: np.ndarray,
    size: tuple[int, int, int],
    kind: str,
    mz: int | None,
    pixel_size: float | Sequence[float] | None,
    whole: bool,
    like: Fields | None,
) -> int:
    """MX, MY, MZ and CELLA; returns MZ as the standard means it."""
    sampling = [size[0], size[1], default_mz(kind, size[2])]
    if kind == "volume stack" and mz is None and (like is None or like.kind != kind):
        raise ValueError("a volume stack needs mz=, the sections of one volume")
    spacing, divisor = [0.0, 0.0, 0.0], [0, 0, 0]
    if like is not None:
        spacing, divisor = like.spacing
        old = like.sampling
        for i, axis in enumerate((1, 2, 3)):
            where = like.axes.index(axis)  # which of columns, rows, sections runs along x, y, z
            n_old, n_new = (like.nx, like.ny, int(like.record["nz"]))[where], size[where]
            of_images = i == 2 and kind in ("image", "stack")
            if i == 2 and like.kind != kind and {like.kind, kind} != {"image", "stack"}:
                continue
            if old[i] > 0 and (old[i] != n_old or (of_images and old[i] == 1) or kind == "volume stack"):
                sampling[i] = old[i]  # part of a cell, or sections of one volume: the same whatever is stored
            elif not (of_images and old[i] <= 0):
                sampling[i] = n_new
    if mz is not None:
        sampling[2] = int(mz)
    if min(sampling) < 1 or max(sampling) > 2**31 - 1:
        raise ValueError(f"sampling (MX, MY, MZ) {tuple(sampling)} is out of range")
    contradicts = like is not None and mz is None and like.kind == kind and like.nz == size[2]  # as the source does
    if kind == "volume stack" and size[2] % sampling[2] and not contradicts:
        raise ValueError(f"a volume stack of {size[2]} sections does not hold whole volumes of mz={sampling[2]}")
    record["mx"], record["my"], record["mz"] = sampling
    # mrcz 0.6 divides by NZ, and MZ is no sampling in a compressed file.
    new = [sampling[0], sampling[1], size[2] if whole else sampling[2]]
    if pixel_size is not None:
        spacing, divisor = list(three_sizes(pixel_size)), [0, 0, 0]
    with np.errstate(over="ignore"):
        for i in range(3):
            if divisor[i] != new[i]:  # else the bytes stay as they are
                record["cella"][i] = spacing[i] * new[i]
    return sampling[2]


def three_sizes(pixel_size: Any) -> tuple[float, float, float]:
    """Pixel size along x, y, z of one number, three, or a record of mrcfile's ``voxel_size``."""
    if getattr(getattr(pixel_size, "dtype", None), "names", None):
        pixel_size = pixel_size.item()
    values = np.atleast_1d(np.asarray(pixel_size, dtype=float)).ravel().tolist()
    if len(values) == 1:
        values = values * 3
    if len(values) != 3 or not all(math.isfinite(v) and v >= 0 for v in values):
        raise ValueError(f"pixel_size is {pixel_size!r}, expected one or three (x, y, z) numbers in Å, 0 or more")
    return (values[0], values[1], values[2])


def set_extended(record: np.ndarray, exttyp: str | None, nsymbt: int | None) -> None:
    if nsymbt is not None:
        if not 0 <= nsymbt <= 2**31 - 1:
            raise ValueError(f"nsymbt is {nsymbt}, expected 0 to 2147483647")
        if nsymbt == 0 and int(record["nsymbt"]) > 0 and exttyp is None:
            exttyp = ""
        record["nsymbt"] = nsymbt
    if exttyp is not None:
        code = exttyp_bytes(exttyp)
        # Old files have anything in these four bytes (they were EXTRA); what only reads the same stays as it is.
        if code != bytes(record["exttyp"]).strip(b"\0 "):
            record["exttyp"] = code


def exttyp_bytes(exttyp: str | bytes) -> bytes:
    """EXTTYP as the bytes that are stored: `Header.exttyp` gives any four bytes as text, and takes them back."""
    try:
        code = exttyp.encode("latin-1") if isinstance(exttyp, str) else bytes(exttyp)
    except UnicodeEncodeError:
        code = b"12345"
    if len(code) > 4:
        raise ValueError(f"exttyp is {exttyp!r}, expected four characters at most, each of one byte")
    return code


def set_imod(record: np.ndarray, pixel_format: PixelFormat) -> None:
    """The stamp, which makes every program that knows it agree on the sign of bytes."""
    stamped = int(record["imod_stamp"]) == IMOD_STAMP
    flags = int(record["imod_flags"]) if stamped else 0
    flags &= ~IMOD_4BIT  # we never write half-width frames
    if pixel_format.mode == 0:
        signed = pixel_format.dtype.kind == "i"
        record["imod_stamp"] = IMOD_STAMP
        record["imod_flags"] = (flags & ~IMOD_SIGNED) | (IMOD_SIGNED if signed else 0)
    elif stamped:
        record["imod_flags"] = flags


def label_bytes(label: str | bytes) -> bytes:
    raw = label if isinstance(label, bytes) else label.encode("utf-8")
    if len(raw) > 80 and not isinstance(label, bytes):
        raw = raw[:80].decode("utf-8", "ignore").encode("utf-8")
    return raw[:80]


def set_labels(record: np.ndarray, labels: Sequence[bytes]) -> None:
    if len(labels) > 10:
        raise ValueError(f"a header holds 10 labels, not {len(labels)}")
    record["nlabl"] = len(labels)
    record["label"] = list(labels) + [b""] * (10 - len(labels))


def drop_counts_label(record: np.ndarray) -> None:
    """Of a header that floats get: they are no counts, whatever the file was that they came from."""
    labels = [bytes(label) for label in record["label"]]
    kept = [label for label in labels if label.rstrip(b"\0 ") != COUNTS_LABEL.encode("ascii")]
    if len(kept) < len(labels):
        set_labels(record, [label for label in kept if label.strip(b"\0 \t\r\n")])


def add_labels(record: np.ndarray, new: list[str], compressed: bool) -> bool:
    """Our label and new ones beside those there; False if ten others leave ours no place.

    A compressed file has ours first, as the MRCZ specification wants it at byte 224; else the order of age is kept.
    """
    if len(new) > 9:
        raise ValueError(f"a header holds 9 labels besides ours, not {len(new)}")
    ours = MRCZ_LABEL.encode("ascii")
    labels = [bytes(label) for label in record["label"] if label.strip(b"\0 \t\r\n")]
    places = [i for i, label in enumerate(labels) if LABEL_PATTERN.match(label)]
    if compressed:
        labels = [ours] + [label for i, label in enumerate(labels) if i not in places]
    elif places:
        labels[places[0]] = ours
    elif len(labels) < 10:
        labels.append(ours)
    labels += [label_bytes(text) for text in new if text.strip()]
    set_labels(record, labels[:10])
    return ours in labels[:10]
