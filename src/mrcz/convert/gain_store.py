"""A folder in which the gain references of a session lie, each once: ``<sha256>.mrcz``.

Each is written whole or absent, and as all that write one write the same pixels, it does not matter whose file stays.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import numpy as np

from mrcz.container.integers import gain_checksum
from mrcz.errors import FormatError, FormatWarning
from mrcz.file.gains import read_gain
from mrcz.file.writer import Writer

__all__ = ["store_gain", "stored_gains"]


def store_gain(folder: str | os.PathLike[str], gain: np.ndarray, metadata: Mapping[str, Any]) -> str:
    """Put a gain reference, (ny, nx) float32 or float64, into a store, unless it is there; its path.

    MRC has no float64: such a gain is four frames of uint16, the lowest 16 bits first.
    """
    place = os.path.join(os.fspath(folder), f"{gain_checksum(gain)}.mrcz")
    if _is_there(place, gain):
        return place
    os.makedirs(folder, exist_ok=True)
    frames = gain[np.newaxis]
    if gain.dtype == np.float64:
        frames = (
            np.ascontiguousarray(gain.astype("<f8", copy=False)).view("<u2").reshape(*gain.shape, 4).transpose(2, 0, 1)
        )
        frames = np.ascontiguousarray(frames)
    # Under a name of its own and moved: many processes may do the same at once, and a move is whole or absent.
    own = os.path.join(os.fspath(folder), f"{uuid4().hex}.mrcz")
    try:
        with Writer(own, codec="zstd", metadata=dict(metadata)) as writer:
            writer.extend(frames)
        os.replace(own, place)
    except BaseException:
        if os.path.exists(own):
            os.unlink(own)
        raise
    return place


def _is_there(place: str, gain: np.ndarray) -> bool:
    if not os.path.isfile(place):
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FormatWarning)
            there, _ = read_gain(place)
    except FormatError:
        return False  # damaged: what is known to be right takes its place
    return there.dtype == gain.dtype and there.tobytes() == gain.tobytes()


def stored_gains(folder: str | os.PathLike[str]) -> list[str]:
    """Paths of the gain references of a store, the newest first; none where there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            found = [(e.stat().st_mtime_ns, e.path) for e in entries if len(e.name) == 69 and e.name.endswith(".mrcz")]
    except FileNotFoundError:
        return []
    return [path for _, path in sorted(found, reverse=True)]
