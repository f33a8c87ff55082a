"""Work on one file as plain data: a `Job` says what is to be made of what, a `Result` what became of it.

Both can be printed, sorted, pickled and sent elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mrcz.check.origin import Overwrite
from mrcz.check.result import Result as AnyResult
from mrcz.errors import printable, system_error

__all__ = ["Job", "Result", "error_text"]


@dataclass(frozen=True)
class Job:
    """One file to make from another.

    Attributes
    ----------
    action : str
        ``"compress"`` or ``"decompress"``.
    source, destination : str
        Paths.
    options : dict
        Keyword arguments of `mrcz.convert.copy.compress` or `~mrcz.convert.copy.decompress`.
    overwrite : bool or "any"
        Replace a destination that is there, as `mrcz.compress` does.
    skip_existing : bool
        A destination that holds the source already is success, and left alone.
    earlier : tuple of str
        Other places where it may be: what older versions called the destination.
    remove : bool
        Remove the source once the copy was read back and found identical; implies ``options["check"]``.
    """

    action: str
    source: str
    destination: str
    options: Mapping[str, Any] = field(default_factory=dict)
    overwrite: Overwrite = False
    skip_existing: bool = False
    earlier: tuple[str, ...] = ()
    remove: bool = False


@dataclass(frozen=True)
class Result(AnyResult):
    """What became of one file.

    Attributes
    ----------
    status : str
        ``"done"``, ``"planned"`` (a dry run), ``"skipped"`` (the destination holds the source already),
        ``"refused"`` (no such file, something else in the way) or ``"failed"``.
    error : str or None
        Why it was skipped, refused or failed.
    reason : str
        The same as one of few words, so that whoever shows it can say what helps: ``"directory"``, ``"exists"``,
        ``"exists, empty"``, ``"same destination"``, ``"its own destination"``, ``"an input"``,
        ``"of another source"``, ``"another file"`` (which stands there), ``"contradictory"``, ``"trailing bytes"``,
        ``"damaged source"``, ``"damaged frame"``; empty where there is no such word.
    damaged : bool
        The error is in the bytes of the file (a `FormatError`), not in the disk or the command.
    plain_bytes, stored_bytes : int
        Size as a plain MRC file and as the compressed one; 0 where unknown.
    source_bytes, destination_bytes : int
        Sizes of both files on disk.
    n_frames : int
    seconds : float
        Wall time.
    checked, removed : bool
        The copy was read back and is identical; the source was then removed.
    notes : tuple of str
        What else there is to say of a file that was made.
    integers, integers_reason : mapping or None, str or None
        Of `mrcz.convert.copy.Copy`: how floats are stored as counts, or why they are not where that was asked for.
    restores : str
        Of the same: ``"file"`` or ``"pixels"``; empty where nothing was made.
    """

    action: str
    source: str
    destination: str | None
    status: str
    error: str | None = None
    reason: str = ""
    damaged: bool = False
    plain_bytes: int = 0
    stored_bytes: int = 0
    source_bytes: int = 0
    destination_bytes: int = 0
    n_frames: int = 0
    seconds: float = 0.0
    checked: bool = False
    removed: bool = False
    notes: tuple[str, ...] = ()
    integers: Mapping[str, Any] | None = None
    integers_reason: str | None = None
    restores: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing went wrong with this file."""
        return self.status in ("done", "planned", "skipped")


def error_text(error: BaseException, path: str, destination: str | None = None) -> str:
    """The text of an error about the file at `path`, without the path in front: whoever shows it names the file.

    `destination` is what was being made of it, if anything: errors of a full disk do not say.
    """
    if isinstance(error, OSError) and error.strerror:
        return system_error(error, path, destination)
    if isinstance(error, MemoryError) and not str(error):
        return "there is not enough memory"
    text = str(error) or type(error).__name__
    return text.removeprefix(f"{path}: ").removeprefix(f"{printable(path)}: ")
