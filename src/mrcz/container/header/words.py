"""The stored fields of a header as keywords, for type checkers: each name with what may be said of it.

Tests compare these names with `HEADER_DTYPE`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsFloat, SupportsIndex, TypedDict

import numpy as np

__all__ = ["FreeFields", "StoredFields"]

# What NumPy takes for one number of a field, and for a row of them.
Real = SupportsFloat | SupportsIndex
Reals = Sequence[float] | np.ndarray
Text = str | bytes


class FreeFields(TypedDict, total=False):
    """Fields that follow from nothing else and have no other word in `mrcz.edit_header`."""

    nxstart: SupportsIndex
    nystart: SupportsIndex
    nzstart: SupportsIndex
    cellb: Reals
    mapc: SupportsIndex
    mapr: SupportsIndex
    maps: SupportsIndex
    dmin: Real
    dmax: Real
    dmean: Real
    ispg: SupportsIndex
    creatid: SupportsIndex
    extra1: bytes
    exttyp: Text
    nversion: SupportsIndex
    extra2: bytes
    nint: SupportsIndex
    nreal: SupportsIndex
    imod_stamp: SupportsIndex
    imod_flags: SupportsIndex
    idtype: SupportsIndex
    lens: SupportsIndex
    nd1: SupportsIndex
    nd2: SupportsIndex
    vd1: SupportsIndex
    vd2: SupportsIndex
    tiltangles: Reals
    map: Text
    machst: bytes | Sequence[int] | np.ndarray
    rms: Real
    nlabl: SupportsIndex


class StoredFields(FreeFields, total=False):
    """All fields of `HEADER_DTYPE`, as `Header.replace` takes them."""

    nx: SupportsIndex
    ny: SupportsIndex
    nz: SupportsIndex
    mode: SupportsIndex
    mx: SupportsIndex
    my: SupportsIndex
    mz: SupportsIndex
    cella: Reals
    nsymbt: SupportsIndex
    mrcz_mz: SupportsIndex
    mrcz_slices: SupportsIndex
    voltage: Real
    c3: Real
    gain: Real
    packed_bytes: SupportsIndex
    origin: Reals
    label: Sequence[str]
