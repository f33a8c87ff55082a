"""Damaged copies of small files: what every format of ours owes to them."""

from __future__ import annotations

import tracemalloc
import warnings

import numpy as np

import mrcz

MEMORY = 64 << 20  # bytes no small file may make anyone take


def survives(path, **keywords) -> np.ndarray | None:
    """The frames of a file, or None where it is refused with an error of ours that names the file.

    Anything else that is raised is a fault, and so is memory that only the file claims.
    """
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", mrcz.FormatWarning)
            with mrcz.open(path, **keywords) as reader:
                found = reader.read()
                reader.frame_metadata  # noqa: B018 — it reads, too
                assert isinstance(reader.metadata, dict)
    except mrcz.MrczError as error:
        assert path.name in str(error)
        return None
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < MEMORY
    return found


def flipped(raw: bytes, at: int, bits: int = 0xFF) -> bytes:
    """The same bytes, one of them changed."""
    return raw[:at] + bytes([raw[at] ^ bits]) + raw[at + 1 :]
