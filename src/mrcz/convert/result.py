"""What a copy of a file says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mrcz.check.result import Result
from mrcz.errors import MrczError

__all__ = ["Copy", "DifferentCopyError"]


class DifferentCopyError(MrczError):
    """What was written was read back from the disk, and is something else."""


@dataclass(frozen=True)
class Copy(Result):
    """A file that was made from another.

    Attributes
    ----------
    source, destination : str
    n_frames : int
        nz.
    plain_bytes : int
        Size as a plain MRC file: header, extended header, pixels.
    stored_bytes : int
        Size of the compressed one of the two, on disk.
    source_bytes, destination_bytes : int
        Sizes of both files on disk; where the source was inside gzip or the like, that of the gzip file.
    seconds : float
        Wall time, reading back included where that was asked for.
    checked : bool
        The new file was read back before it got its name, and holds the same header, extended header and pixels, bit
        for bit.
    removed : bool
        The source was removed after that.
    lost : tuple of str
        Names of metadata that a plain MRC file has no place for.
    restores : {"file", "pixels"}
        What the compressed one of the two gives back: the very file, or its pixels and what it says of itself, as MRC.
    notes : tuple of str
        That in words, and how counts were found.
    integers : mapping or None
        Where the floats are stored as counts: the operation, the gain reference and how many exceptions there are.
    integers_reason : str or None
        Why they are not, where that was asked for.
    """

    source: str
    destination: str
    n_frames: int
    plain_bytes: int
    stored_bytes: int
    source_bytes: int
    destination_bytes: int
    seconds: float
    checked: bool
    removed: bool = False
    lost: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    integers: Mapping[str, Any] | None = None
    integers_reason: str | None = None
    restores: str = "pixels"

    @property
    def ok(self) -> bool:
        """True: a copy that fails is an exception, and leaves nothing."""
        return True
